"""Which addresses of an upstream's name are tried, how soon the next one is, and when the name is resolved again."""

import asyncio
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from machpay_gateway.core.network.upstream import parse_origin
from machpay_gateway.proxy.dead_peers import detect_dead_peers
from machpay_gateway.proxy.dialer import Dialer
from machpay_gateway.proxy.framing import HeadLimits
from machpay_gateway.proxy.header_fields import response_fields
from machpay_gateway.proxy.readers import ResponseReader
from machpay_gateway.proxy.upstream import UpstreamConnection
from tests.clocks import FixedClock
from tests.proxy.harness import Rig, Upstream, proxied, request
from tests.redises.ports import free_port

GOOD, SECOND, DEAF, CLOSED = "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"
NAME = "api.internal"


class Names:
    """A resolver: *addresses* of every name, or an error."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: Sequence[str] = addresses
        self.questions = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, host: str, port: int, **_: object) -> list[Any]:
        if host != NAME:  # uvloop asks for addresses, too
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
        self.questions += 1
        addresses = self.addresses
        await self.gate.wait()
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names(GOOD)
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", names, raising=False)
    return names


@contextmanager
def deaf(port: int, host: str = DEAF) -> Iterator[None]:
    """Listen at *host*, and accept nobody: whoever connects waits."""
    with ExitStack() as waiting, socket.create_server((host, port), backlog=0) as listening:
        for _ in range(4):  # more than wait unseen
            sock = waiting.enter_context(socket.socket())
            sock.settimeout(0)
            sock.connect_ex(listening.getsockname())
        yield


def _dialer(port: int, clock: FixedClock | None = None, *, seconds: float = 30.0) -> Dialer:
    responses = ResponseReader(response_fields(), HeadLimits(1024, 10))
    origin = parse_origin(f"http://{NAME}:{port}")
    return Dialer(
        origin, lambda: UpstreamConnection(responses), resolve_seconds=seconds, clock=clock or FixedClock(0.0)
    )


async def _address(dialer: Dialer) -> str:
    _, connection = await dialer.connect()
    connection.abort()
    return connection.address


async def test_a_silent_first_address_costs_a_quarter_of_a_second(names: Names) -> None:
    async with Upstream() as upstream:
        names.addresses = (DEAF, GOOD)
        with deaf(upstream.port):
            dialer, at = _dialer(upstream.port), time.monotonic()
            assert await _address(dialer) == GOOD
            assert 0.2 < time.monotonic() - at < 1.0
            at = time.monotonic()
            assert [await _address(dialer) for _ in range(3)] == [GOOD] * 3  # it is tried last from now on
            assert time.monotonic() - at < 0.2


async def test_an_address_that_refuses_costs_nothing(names: Names) -> None:
    async with Upstream() as upstream:
        names.addresses = (CLOSED, GOOD)
        dialer, at = _dialer(upstream.port), time.monotonic()
        assert [await _address(dialer) for _ in range(4)] == [GOOD] * 4
        assert time.monotonic() - at < 0.2


async def test_the_connections_of_a_name_spread_over_its_addresses(names: Names) -> None:
    async with Upstream() as one, Upstream(host=SECOND, port=one.port):
        names.addresses = (GOOD, SECOND)
        dialer = _dialer(one.port)
        assert sorted([await _address(dialer) for _ in range(4)]) == [GOOD, GOOD, SECOND, SECOND]


async def test_families_take_turns_and_addresses_are_tried_once(names: Names) -> None:
    names.addresses = ("2001:db8::1", "2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2", "192.0.2.3")
    dialer = _dialer(9)
    await dialer.refresh()
    assert dialer.addresses == ("2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "192.0.2.3")


async def test_the_error_of_the_last_address_is_raised(names: Names) -> None:
    async with Upstream() as gone:
        pass
    names.addresses = (CLOSED, GOOD)
    with pytest.raises(ConnectionRefusedError):
        await _dialer(gone.port).connect()
    names.addresses = ()
    with pytest.raises(socket.gaierror, match="no such name"):
        await _dialer(gone.port).connect()


async def test_a_name_is_resolved_again_after_its_time_and_kept_while_the_resolver_fails(names: Names) -> None:
    async with Upstream() as upstream:
        clock = FixedClock(0.0)
        dialer = _dialer(upstream.port, clock, seconds=10.0)
        assert [await _address(dialer) for _ in range(3)] == [GOOD] * 3
        assert names.questions == 1
        clock.advance(10.0)
        names.addresses = ()
        assert await _address(dialer) == GOOD
        clock.advance(4.9)
        assert await _address(dialer) == GOOD
        assert names.questions == 2
        clock.advance(0.2)
        assert await _address(dialer) == GOOD
        assert names.questions == 3


async def test_connections_that_begin_together_resolve_a_name_once(names: Names) -> None:
    async with Upstream() as upstream:
        dialer = _dialer(upstream.port)
        names.gate.clear()
        connecting = [asyncio.create_task(_address(dialer)) for _ in range(5)]
        await asyncio.sleep(0)
        connecting[0].cancel()
        await asyncio.sleep(0)
        names.gate.set()
        assert await asyncio.gather(*connecting[1:]) == [GOOD] * 4
        assert names.questions == 1


async def test_a_name_is_resolved_at_once_when_its_address_refuses(names: Names) -> None:
    async with Upstream() as upstream:
        clock = FixedClock(0.0)
        dialer = _dialer(upstream.port, clock, seconds=300.0)
        assert await _address(dialer) == GOOD
        dialer.addresses = (CLOSED,)  # where the server was before
        with pytest.raises(ConnectionRefusedError):
            await dialer.connect()
        assert names.questions == 1  # it was resolved a moment ago
        clock.now = 1.0
        assert await _address(dialer) == GOOD
        assert names.questions == 2


async def test_servers_that_refuse_do_not_flood_the_resolver(names: Names) -> None:
    clock = FixedClock(0.0)
    names.addresses = (CLOSED,)
    dialer = _dialer(free_port(), clock, seconds=300.0)
    for _ in range(20):
        with pytest.raises(ConnectionRefusedError):
            await dialer.connect()
        clock.now += 0.25
    assert names.questions == 5


async def test_a_name_is_resolved_again_after_nobody_answered_in_time(names: Names) -> None:
    async with Upstream() as upstream:
        clock = FixedClock(0.0)
        dialer = _dialer(upstream.port, clock, seconds=300.0)
        assert await _address(dialer) == GOOD
        dialer.addresses = (DEAF,)
        clock.now = 2.0
        with deaf(upstream.port), pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await dialer.connect()
        assert await _address(dialer) == GOOD
        assert names.questions == 2


async def test_a_resolver_that_hangs_delays_no_connection_to_known_addresses(names: Names) -> None:
    async with Upstream() as upstream:
        clock = FixedClock(0.0)
        dialer = _dialer(upstream.port, clock, seconds=10.0)
        await _address(dialer)
        clock.advance(10.0)
        names.gate.clear()
        at = time.monotonic()
        assert await _address(dialer) == GOOD
        assert 0.9 < time.monotonic() - at < 2.0
        names.gate.set()
        await dialer.refresh()


async def _served_by(rig: Rig, upstreams: Sequence[Upstream]) -> int:
    """Return the index of the one of *upstreams* that gets a request."""
    before = [len(upstream.heads) for upstream in upstreams]
    async with rig.client() as client:
        await client.send(request())
        assert (await client.answer())[0] == 200
    return [len(upstream.heads) - count for upstream, count in zip(upstreams, before, strict=True)].index(1)


async def test_a_name_that_moves_is_followed_while_its_connections_are_busy(names: Names) -> None:
    async with Upstream() as old, Upstream(host=SECOND, port=old.port) as new:
        url = f"http://{NAME}:{old.port}"
        async with proxied(upstreams={"live": url, "resolve_seconds": 0.1, "keepalive_seconds": 60}) as rig:
            for _ in range(3):
                assert await _served_by(rig, (old, new)) == 0
            assert old.connections == 1
            names.addresses = (SECOND,)
            (server,) = rig.proxy.router.pools["live"].servers
            await rig.until(lambda: not server.idle)  # by the timer that runs once a second
            assert [await _served_by(rig, (old, new)) for _ in range(3)] == [1] * 3


@pytest.mark.parametrize("seconds, idle, probe", [(45, 15, 10), (4, 1, 1), (5.5, 2, 1), (3600, 1200, 800), (0, 0, 0)])
def test_accepted_connections_inherit_the_detection_of_dead_peers(seconds: float, idle: int, probe: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        detect_dead_peers(listening, seconds)
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
            options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            values = [accepted.getsockopt(socket.IPPROTO_TCP, option) for option in options]
            assert bool(accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is (seconds > 0)
            if seconds:
                assert values == [idle, probe, 3, seconds * 1000]
                assert idle + 3 * probe <= seconds


async def test_connections_to_upstreams_detect_dead_peers() -> None:
    async with Upstream() as upstream:
        transport, connection = await _dialer_of_address(upstream.port).connect()
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 45_000
        connection.abort()


def _dialer_of_address(port: int) -> Dialer:
    responses = ResponseReader(response_fields(), HeadLimits(1024, 10))
    origin = parse_origin(f"http://127.0.0.1:{port}")
    return Dialer(origin, lambda: UpstreamConnection(responses), resolve_seconds=30.0, dead_peer_seconds=45.0)
