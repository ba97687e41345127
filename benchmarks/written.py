"""What is written down of a request, and what that costs it: usage, metrics and a line of the access log.

`python -m benchmarks.written`, and a part of `make bench`. Each way is asked for by the very call that the proxy makes
when an answer has ended, on one core, in turns; what is done once a second is done once a turn.
"""

import asyncio
import gc
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NamedTuple

import click
import orjson
import structlog
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.processes import alone
from benchmarks.report import WIDTH, table_of
from machpay_gateway import Gateway, Principal, Route
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.core.network.address import format_address_or_none
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.core.usage.counters import ALLOWED
from machpay_gateway.proxy.forwarding import Forwarder
from machpay_gateway.proxy.framing import FramedRequest
from machpay_gateway.proxy.proxy import Proxy
from machpay_gateway.serving.counter import collect_counts
from machpay_gateway.serving.vitals import Vitals
from machpay_gateway.telemetry.access_log import AccessLog
from machpay_gateway.telemetry.snapshots import Snapshots

AT_MOST_MICROSECONDS = 5.0
_REQUESTS = 20_000  # of a turn: what a worker does in a second, or two
_CALLERS = 64
_ROUTES = (Route("GET /v1/skills"), Route("POST /v1/skills/execute"), Route("* /v1/{rest:path}"))
_HEAD = b"GET /v1/skills HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
_NOTHING, _COUNTS, _ALL, _STRUCTLOG = (
    "nothing",
    "usage and metrics",
    "usage, metrics and access log",
    "the access log's line by structlog",
)


class Cost(NamedTuple):
    """What one request pays in µs of CPU, over what the same turn costs without it."""

    counts: float
    all: float
    structlog: float

    @property
    def line(self) -> float:
        """What the access log's line costs."""
        return self.all - self.counts


class _Transport(asyncio.Transport):
    """A connection that nobody is on."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - as asyncio has it
        return ("192.0.2.1", 50_000) if name == "peername" else default


class Desk:
    """A proxy with requests that have just been answered, and what writes them down in each way."""

    def __init__(self, gateway: Gateway, folder: Path) -> None:
        self.log = AccessLog(str(folder / "access.log"))
        self._gateway = gateway
        self._vitals = Vitals(gateway)
        self._counting, self._logging = Proxy(gateway), Proxy(gateway, access_log=self.log)
        self._snapshots = Snapshots(folder)
        self._counted = [_forwarder(self._counting, number) for number in range(_CALLERS)]
        self._logged = [_forwarder(self._logging, number) for number in range(_CALLERS)]
        self._line = structlog.wrap_logger(
            structlog.BytesLogger(io.BytesIO()),  # no file, which would make each line slower still
            processors=[
                structlog.processors.TimeStamper(fmt="iso", key="time"),
                structlog.processors.JSONRenderer(serializer=orjson.dumps),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(0),
        ).bind()

    def ways(self) -> Mapping[str, tuple[Sequence[Forwarder], Callable[[Forwarder], object]]]:
        """Return the requests that end, and what is called with each."""
        return {
            _NOTHING: (self._logged, _nothing),
            _COUNTS: (self._counted, _record),
            _ALL: (self._logged, _record),
            _STRUCTLOG: (self._logged, self._by_structlog),
        }

    async def turn(self, forwarders: Sequence[Forwarder], write: Callable[[Forwarder], object]) -> float:
        """Return the µs of CPU that this process spends on each of a turn's requests."""
        gc.collect()
        began = time.process_time()
        for _ in range(_REQUESTS // _CALLERS):
            for forwarder in forwarders:
                forwarder.began_at = perf_counter()
                forwarder.decided_at = perf_counter()
                forwarder.responded_at = perf_counter()
                write(forwarder)
        if write is not _nothing:
            self._snapshots.write(collect_counts(self._gateway, self._vitals, self._logging, self.log))
        await self.log.close()
        return (time.process_time() - began) / (_REQUESTS // _CALLERS * _CALLERS) * 1e6

    async def close(self) -> None:
        """Close both proxies."""
        await self._counting.close(0.0)
        await self._logging.close(0.0)

    def _by_structlog(self, forwarder: Forwarder) -> None:
        facts, principal, route = forwarder.facts, forwarder.principal, forwarder.route
        assert forwarder.decided_at is not None
        assert forwarder.responded_at is not None
        self._line.info(
            "request",
            request_id=facts.request_id.decode(),
            method=facts.method,
            path=facts.path,
            status=200,
            outcome=ALLOWED,
            route=None if route is None else route.match,
            key=None if principal is None else principal.key_id,
            address=format_address_or_none(facts.address),
            milliseconds=round((perf_counter() - forwarder.began_at) * 1000, 3),
            decision_milliseconds=round((forwarder.decided_at - forwarder.began_at) * 1000, 3),
            upstream_milliseconds=round((forwarder.responded_at - forwarder.decided_at) * 1000, 3),
            bytes=forwarder.sent_bytes,
        )


_PRINCIPAL = Principal(
    kind="api_key",
    id="",
    name="bench",
    account_id="acct_1",
    subject="",
    environment="live",
    tier="standard",
    limits=TIERS["standard"],
    scopes=Scopes(),
    secret_digest=bytes(32),
)


def _forwarder(proxy: Proxy, number: int) -> Forwarder:
    """Return a request of *proxy* that has just been answered."""
    connection = proxy.connect()
    connection.connection_made(_Transport())
    request = proxy.context.requests.read(_HEAD)
    assert isinstance(request, FramedRequest)
    forwarder = Forwarder(proxy.context, connection, request, lambda _: None)
    connection.connection_lost(None)
    forwarder.principal = replace(_PRINCIPAL, id=f"key_{number:022d}", subject=f"key_{number:022d}")
    forwarder.route = _ROUTES[number % len(_ROUTES)]
    forwarder.sent_bytes = 1234
    return forwarder


def _record(forwarder: Forwarder) -> None:
    forwarder.record(ALLOWED, 200)


def _nothing(_forwarder: Forwarder) -> None:
    """Write nothing down."""


async def _taken(rounds: int) -> dict[str, list[float]]:
    with TemporaryDirectory() as folder:
        # Without `async with`: it is not opened, so that nothing is stored and paid for here.
        gateway = Gateway(database="memory://", upstreams={"live": ["http://127.0.0.1:9"]}, carries=True)
        desk = Desk(gateway, Path(folder))
        taken: dict[str, list[float]] = {way: [] for way in desk.ways()}
        for number in range(rounds + 1):
            for way, (forwarders, write) in desk.ways().items():
                microseconds = await desk.turn(forwarders, write)
                if number:  # the first one is to warm up
                    taken[way].append(microseconds)
        await desk.close()
        await gateway.lifecycle.close()
    return taken


def cost_of(taken: Mapping[str, Sequence[float]]) -> Cost:
    """Return the medians of what was *taken*, over those of nothing in the same rounds."""

    def over(way: str) -> float:
        return median(one - none for one, none in zip(taken[way], taken[_NOTHING], strict=True))

    return Cost(over(_COUNTS), over(_ALL), over(_STRUCTLOG))


def written_table(rounds: int) -> Table:
    """Measure, and return what is written down of a request."""
    with alone():
        cost = cost_of(uvloop.run(_taken(max(rounds, 5) * 4)))
    table = table_of("what is written down of a request, on one core", "written", ("CPU µs/request", ""))
    table.add_row(_COUNTS, f"{cost.counts:.2f}", "")
    met = "met" if cost.all < AT_MOST_MICROSECONDS else "MISSED"
    table.add_row(_ALL, f"{cost.all:.2f}", f"at most {AT_MOST_MICROSECONDS:.0f}: {met}")
    table.add_row("of it the access log's line", f"{cost.line:.2f}", "")
    table.add_row(_STRUCTLOG, f"{cost.structlog:.2f}", f"{cost.structlog / cost.line:.1f} times as much")
    return table


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Rounds; four turns of each way in each.")
def main(rounds: int) -> None:
    """Measure what is written down of a request."""
    Console(width=WIDTH).print(written_table(rounds))


if __name__ == "__main__":
    main()
