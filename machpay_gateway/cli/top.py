"""`machpay-gateway top`: what a gateway that runs does right now, from its metrics and its stored usage."""

import asyncio
import http.client
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from machpay_gateway.assembly import ConfiguredGateway
from machpay_gateway.cli.output import print_json, print_rendered
from machpay_gateway.cli.session import CliSession, pass_session
from machpay_gateway.cli.top_keys import TopKeys
from machpay_gateway.cli.top_view import board
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.text import format_moment
from machpay_gateway.core.usage.counters import ALLOWED
from machpay_gateway.core.usage.document import in_milliseconds
from machpay_gateway.settings.server import ListenAddress, parse_listen

if TYPE_CHECKING:
    from machpay_gateway.telemetry.scrape import Flow, Interval, LatencyQuantiles, Scrape

_INTERVAL_SECONDS, _ONCE_SECONDS = 1.0, 5.0
_READINGS = 6  # a rate is over the last five intervals: workers write down what they count once a second
_PATIENCE_SECONDS = 5.0
_MOST_BYTES = 16_777_216
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what listens everywhere is asked here
_OK = 200


class _Away(Exception):
    """Nothing answers as a gateway would."""


class _Listen(click.ParamType[ListenAddress]):
    """An address to ask."""

    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> ListenAddress:
        """Return *value* read; fails with the way out."""
        try:
            return parse_listen(value)
        except ConfigurationError as exc:
            self.fail(f"{exc}.", param, ctx)


@click.command(short_help="Show what goes on in a gateway that runs.")
@click.option("--management", type=_Listen(), metavar="HOST:PORT", help="Where it answers; else as in the settings.")
@click.option("--interval", type=click.FloatRange(0.2, 60), metavar="SECONDS", help="Between two looks; 1, once 5.")
@click.option("--keys", type=click.IntRange(0, 100), default=10, show_default=True, help="How many of the busiest.")
@click.option("--once", is_flag=True, help="Look for one interval, print what was seen, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for scripts; as --once.")
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
    """Show requests, refusals, delays and the busiest keys, anew each second. Ctrl-C ends it.

    It asks the management address of a `machpay-gateway serve`, which tells of all its workers, and the database.
    """
    is_live = not (once or as_json)
    if is_live and not sys.stdout.isatty():
        raise click.UsageError("This is drawn on a terminal: add --once or --json to print it.")
    if find_spec("prometheus_client") is None:  # by which metrics are read
        raise click.ClickException("Metrics are read by what serves, too: pip install 'machpay-gateway[server]'")
    address = management or _managed(session)
    seconds = interval or (_INTERVAL_SECONDS if is_live else _ONCE_SECONDS)

    async def look() -> None:
        gateway = ConfiguredGateway(**session.options)
        try:
            async with aclosing(_views(address, seconds, TopKeys(gateway, keys), goes_on=is_live)) as views:
                if is_live:
                    await _draw(views)
                elif as_json:
                    print_json(await anext(views))
                else:
                    print_rendered(board(await anext(views)), err=False)
        finally:
            await gateway.lifecycle.close()

    try:
        asyncio.run(look())
    except _Away as exc:
        raise click.ClickException(
            f"{exc}: start `machpay-gateway serve`, or name its management address by --management HOST:PORT."
        ) from exc


def _managed(session: CliSession) -> ListenAddress:
    """Return the management address of the settings. Raises a click exception with the way out when there is none."""
    address = session.settings().server.management_address
    if address is None or not address.port:
        raise click.UsageError("The settings name no management address to ask: add --management HOST:PORT.")
    return address


async def _views(
    address: ListenAddress, seconds: float, busiest: TopKeys, *, goes_on: bool
) -> AsyncGenerator[dict[str, Any]]:
    """Yield what is seen, once in each interval. Raises _Away when nothing answers, unless something did before."""
    from machpay_gateway.telemetry.scrape import interval_between

    readings: deque[Scrape] = deque([await _reading(address)], maxlen=_READINGS)
    while True:
        await asyncio.sleep(seconds)
        try:
            readings.append(await _reading(address))
        except _Away as exc:
            if not goes_on:
                raise
            readings.clear()
            yield {"object": "top", "mistake": str(exc)}
            continue
        if len(readings) > 1:
            yield _document(interval_between(readings[0], readings[-1]), await busiest.told())


async def _reading(address: ListenAddress) -> "Scrape":
    from machpay_gateway.telemetry.scrape import parse_scrape

    try:
        text = await asyncio.to_thread(_asked, address)
        return parse_scrape(text, time.monotonic())
    except (OSError, http.client.HTTPException) as exc:
        reason = exc.strerror or type(exc).__name__ if isinstance(exc, OSError) else "it does not speak HTTP"
        raise _Away(f"Nothing answers at {_told(address)} ({reason})") from exc
    except ValueError as exc:
        raise _Away(f"No gateway answers at {_told(address)}") from exc


def _asked(address: ListenAddress) -> str:
    connection = http.client.HTTPConnection(
        _ANY.get(address.host, address.host), address.port, timeout=_PATIENCE_SECONDS
    )
    try:
        connection.request("GET", "/metrics", headers={"Accept": "text/plain;version=0.0.4"})
        answer = connection.getresponse()
        if answer.status != _OK:
            raise ValueError(answer.status)
        return answer.read(_MOST_BYTES).decode()
    finally:
        connection.close()


def _told(address: ListenAddress) -> str:
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"


async def _draw(views: AsyncIterator[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(highlight=False), screen=True, auto_refresh=False) as live:
        async for document in views:
            live.update(board(document), refresh=True)


def _document(interval: "Interval", keys: Mapping[str, Any]) -> dict[str, Any]:
    refused = sum(rate for outcome, rate in interval.outcomes.items() if outcome != ALLOWED)
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
        "degraded_workers": interval.degraded,
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
