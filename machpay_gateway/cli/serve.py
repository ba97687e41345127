"""`machpay-gateway serve`: the gateway as a process of its own."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from machpay_gateway.cli.output import finding_json, json_option, print_findings, print_json
from machpay_gateway.cli.session import CliSession, pass_session
from machpay_gateway.core.check_result import CheckResult, CheckStatus, worst
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.settings import load_settings

logger = logging.getLogger("machpay_gateway")

if TYPE_CHECKING:
    from machpay_gateway.serving.supervisor import ServingProcess


@click.command()
@click.option("--config", metavar="FILE", help="Settings file; the same as before the command.")
@click.option("--workers", type=click.IntRange(1), help="Number of worker processes; more than one needs Redis.")
@click.option(
    "--listen",
    metavar="ADDRESS",
    multiple=True,
    help="Address for callers: HOST:PORT, :PORT for all addresses, or unix:/PATH. May be repeated.",
)
@click.option("--management", metavar="HOST:PORT", help="Address for operators; empty for none.")
@click.option("--check", "is_check", is_flag=True, help="Try the whole configuration, and serve nothing.")
@json_option
@pass_session
def serve(
    session: CliSession,
    *,
    config: str | None,
    workers: int | None,
    listen: tuple[str, ...],
    management: str | None,
    is_check: bool,
    as_json: bool,
) -> None:
    """Serve the reverse proxy, and the APIs and pages of the gateway. Stop with Ctrl-C.

    SIGTERM shuts down gracefully: requests in flight finish. SIGHUP reloads the settings.

    --check tries addresses, certificates, upstreams, the database and Redis instead. It exits with 1 if a start would
    fail, or if something that it needs cannot be reached.
    """
    from machpay_gateway.serving.supervisor import Supervisor
    from machpay_gateway.telemetry.logs import configure_logging

    overrides = {"workers": workers, "listen": listen or None, "management": management}
    changes = {name: value for name, value in overrides.items() if value is not None}
    session = CliSession(config) if config else session
    if is_check:
        _check(session, changes, as_json=as_json)
        return

    async def run() -> None:
        supervisor = Supervisor(
            session.options,
            changes=changes,
            on_ready=lambda serving: _print_serving(serving, as_json=as_json),
        )
        server = supervisor.settings.server
        configure_logging(server.log_format, level=server.log_level)
        await supervisor.run()

    asyncio.run(run())


def _check(session: CliSession, changes: Mapping[str, object], *, as_json: bool) -> None:
    """Print what trying the settings with *changes* under `server` has shown, and exit with 1 if something is wrong."""
    from machpay_gateway.cli.serve_check import check_serving

    try:
        settings = load_settings({**session.options, "server": changes})
    except ConfigurationError as exc:
        results = [CheckResult("configuration", CheckStatus.WRONG, line) for line in str(exc).splitlines()]
    else:
        results = [*check_serving(settings, session.settings_file)]
    if as_json:
        findings = [finding_json(result) for result in results]
        print_json({"object": "serve_check", "status": worst(results), "findings": findings})
    else:
        print_findings(results)
    if worst(results) is CheckStatus.WRONG:
        raise click.exceptions.Exit(1)


def _print_serving(serving: "ServingProcess", *, as_json: bool) -> None:
    if as_json:
        print_json({"object": "serving", **asdict(serving)})
        return
    # Logged and not printed: stdout may be the access log, and stderr may be lines of JSON.
    workers = f"{serving.workers} worker{'s' if serving.workers > 1 else ''}"
    logger.info("MachPay Gateway serves %s with %s.", " and ".join(serving.urls), workers)
    if serving.management is not None:
        logger.info("Health checks and metrics are at %s: /healthz, /readyz and /metrics.", serving.management)
