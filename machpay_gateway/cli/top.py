"""`machpay-gateway top`: live figures of a running gateway, from its metrics and its stored usage."""

import asyncio
import http.client
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import click

from machpay_gateway.assembly import ConfiguredGateway
from machpay_gateway.cli.output import print_json
from machpay_gateway.cli.session import CliSession, pass_session
from machpay_gateway.cli.top_keys import TopKeys
from machpay_gateway.cli.top_view import print_view, top_view
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.text import format_moment
from machpay_gateway.core.usage.counters import ADMITTED_OUTCOMES, PREFLIGHT_OUTCOME
from machpay_gateway.core.usage.document import in_milliseconds
from machpay_gateway.extras import require_extra
from machpay_gateway.settings.listeners import ListenAddress, parse_listen

if TYPE_CHECKING:
    from machpay_gateway.telemetry.scrape import Flow, Interval, LatencyQuantiles, Scrape

_INTERVAL_SECONDS, _ONCE_SECONDS = 1.0, 5.0
_SCRAPES = 6  # rates are over the last five intervals, as workers write their metrics once a second
_TIMEOUT_SECONDS = 5.0
_MAX_BYTES = 16_777_216
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where such a listener is reached from this host
_OK = 200


class _NoGateway(Exception):
    """No gateway responds at the management address."""


class _Listen(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """A management address."""

    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> ListenAddress:
        """Return *value* parsed, or fail with a hint."""
        try:
            return parse_listen(value)
        except ConfigurationError as exc:
            self.fail(f"{exc}.", param, ctx)


@click.command(short_help="Show live figures of a running gateway.")
@click.option("--management", type=_Listen(), metavar="HOST:PORT", help="Management address; default: the settings.")
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 60),
    metavar="SECONDS",
    help="Time between updates; default 1, with --once 5.",
)
@click.option("--keys", type=click.IntRange(0, 100), default=10, show_default=True, help="Number of the busiest keys.")
@click.option("--once", is_flag=True, help="Print the figures of one interval, and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for scripts; implies --once.")
@pass_session
def top(
    session: CliSession,
    *,
    management: ListenAddress | None,
    interval: float | None,
    keys: int,
    once: bool,
    as_json: bool,
) -> None:
    """Show requests, refusals, latency and the busiest keys, updated every second. Stop with Ctrl-C.

    The figures come from the management address of a running `machpay-gateway serve`, and from the database.
    """
    is_live = not (once or as_json)
    if is_live and not sys.stdout.isatty():
        raise click.UsageError("`top` needs a terminal: add --once or --json to print the figures.")
    require_extra("cli", "`machpay-gateway top`")
    address = management or _management_address(session)
    seconds = interval or (_INTERVAL_SECONDS if is_live else _ONCE_SECONDS)

    async def show() -> None:
        gateway = ConfiguredGateway(workers=0, **session.options)
        try:
            async with aclosing(_views(address, seconds, TopKeys(gateway, keys), is_live=is_live)) as views:
                if is_live:
                    await _draw(views)
                elif as_json:
                    print_json(await anext(views))
                else:
                    print_view(await anext(views))
        finally:
            await gateway.lifecycle.close()

    try:
        asyncio.run(show())
    except _NoGateway as exc:
        raise click.ClickException(
            f"{exc}: start `machpay-gateway serve`, or pass its management address with --management HOST:PORT."
        ) from exc


def _management_address(session: CliSession) -> ListenAddress:
    """Return the management address of the settings. Raises a click exception with a hint when there is none."""
    address = session.load_settings().server.management_address
    if address is None or not address.port:
        raise click.UsageError("The settings have no management address: add --management HOST:PORT.")
    return address


async def _views(
    address: ListenAddress, seconds: float, busiest: TopKeys, *, is_live: bool
) -> AsyncGenerator[dict[str, Any]]:
    """Yield the figures of each interval. Raises _NoGateway at the start, and also later unless *is_live*."""
    from machpay_gateway.telemetry.scrape import interval_between

    scrapes: deque[Scrape] = deque([await _scrape(address)], maxlen=_SCRAPES)
    while True:
        await asyncio.sleep(seconds)
        try:
            scrapes.append(await _scrape(address))
        except _NoGateway as exc:
            if not is_live:
                raise
            scrapes.clear()
            yield {"object": "top", "mistake": str(exc)}
            continue
        if len(scrapes) > 1:
            yield _document(interval_between(scrapes[0], scrapes[-1]), await busiest.document())


async def _scrape(address: ListenAddress) -> "Scrape":
    from machpay_gateway.telemetry.scrape import parse_scrape

    try:
        text = await asyncio.to_thread(_fetch_metrics, address)
        return parse_scrape(text, time.monotonic())
    except (OSError, http.client.HTTPException) as exc:
        reason = exc.strerror or type(exc).__name__ if isinstance(exc, OSError) else "it does not speak HTTP"
        raise _NoGateway(f"Nothing answers at {_format_address(address)} ({reason})") from exc
    except ValueError as exc:
        raise _NoGateway(f"No gateway answers at {_format_address(address)}") from exc


def _fetch_metrics(address: ListenAddress) -> str:
    connection = http.client.HTTPConnection(
        _ANY.get(address.host, address.host), address.port, timeout=_TIMEOUT_SECONDS
    )
    try:
        connection.request("GET", "/metrics", headers={"Accept": "text/plain;version=0.0.4"})
        response = connection.getresponse()
        if response.status != _OK:
            raise ValueError(response.status)
        return response.read(_MAX_BYTES).decode()
    finally:
        connection.close()


def _format_address(address: ListenAddress) -> str:
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"


async def _draw(views: AsyncIterator[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(highlight=False), screen=True, auto_refresh=False) as live:
        async for document in views:
            live.update(top_view(document), refresh=True)


def _document(interval: "Interval", keys: Mapping[str, Any]) -> dict[str, Any]:
    served = {*ADMITTED_OUTCOMES, PREFLIGHT_OUTCOME}
    refused = sum(rate for outcome, rate in interval.outcomes.items() if outcome not in served)
    return {
        "object": "top",
        "mistake": None,
        "at": format_moment(time.time()),
        "seconds": round(interval.seconds, 3),
        "requests_per_second": _rounded(interval.per_second),
        "refused_per_second": _rounded(refused),
        "outcomes_per_second": {name: _rounded(rate) for name, rate in interval.outcomes.items()},
        "latency_ms": _milliseconds(interval.latency),
        "in_flight": interval.in_flight,
        "connections": interval.connections,
        "workers": interval.workers,
        "workers_wanted": interval.wanted,
        "degraded_workers": interval.degraded,
        "upstream_servers_out": [{"upstream": name, "server": server} for name, server in interval.servers_out],
        "processors": _rounded(interval.processors),
        "memory_bytes": interval.memory_bytes,
        "event_loop_lag_ms": in_milliseconds(interval.loop_lag_seconds),
        "routes": [_flow(flow) for flow in interval.routes],
        "steps": [_flow(flow) for flow in interval.steps],
        "keys": keys,
    }


def _flow(flow: "Flow") -> dict[str, Any]:
    return {
        "name": flow.name,
        "requests_per_second": _rounded(flow.per_second),
        "latency_ms": _milliseconds(flow.latency),
    }


def _milliseconds(latency: "LatencyQuantiles") -> dict[str, float | None]:
    return {name: in_milliseconds(at) for name, at in latency._asdict().items()}


def _rounded(number: float) -> float:
    return round(number, 3)
