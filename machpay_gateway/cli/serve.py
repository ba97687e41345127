"""`machpay-gateway serve`: the gateway as a process of its own."""

import asyncio
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from machpay_gateway.cli.output import json_option, print_json
from machpay_gateway.cli.session import CliSession, pass_session

logger = logging.getLogger("machpay_gateway")

if TYPE_CHECKING:
    from machpay_gateway.serving.supervisor import ServingProcess


@click.command()
@click.option("--config", metavar="FILE", help="Settings file, as before the command.")
@click.option("--workers", type=click.IntRange(1), help="Processes that serve; more than one need Redis.")
@click.option("--listen", metavar="HOST:PORT", help="Where callers connect to.")
@click.option("--management", metavar="HOST:PORT", help="Where operators connect to; empty for nowhere.")
@json_option
@pass_session
def serve(
    session: CliSession,
    *,
    config: str | None,
    workers: int | None,
    listen: str | None,
    management: str | None,
    as_json: bool,
) -> None:
    """Carry requests to the upstreams, for those who may make them. Ctrl-C ends it.

    SIGTERM lets what is under way end, SIGHUP reads the settings anew.
    """
    try:
        from machpay_gateway.serving.supervisor import Supervisor
        from machpay_gateway.telemetry.logs import configure_logging
    except ModuleNotFoundError as exc:
        raise click.ClickException("Serving needs a server: pip install 'machpay-gateway[server]'") from exc
    given = {"workers": workers, "listen": listen, "management": management}

    async def run() -> None:
        supervisor = Supervisor(
            (CliSession(config) if config else session).options,
            changes={name: value for name, value in given.items() if value is not None},
            on_ready=lambda serving: _print_serving(serving, as_json=as_json),
        )
        configure_logging(supervisor.settings.server.log_format)
        await supervisor.run()

    asyncio.run(run())


def _print_serving(serving: "ServingProcess", *, as_json: bool) -> None:
    if as_json:
        print_json({"object": "serving", **asdict(serving)})
        return
    # Not printed: that may be the access log, and stderr may be lines of JSON.
    workers = f"{serving.workers} worker{'s' if serving.workers > 1 else ''}"
    logger.info("MachPay Gateway serves %s by %s.", serving.url, workers)
    if serving.management is not None:
        logger.info("Operators ask %s/readyz.", serving.management)
