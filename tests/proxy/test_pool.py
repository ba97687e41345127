"""The counters of a connection pool: requests in flight, ejections, and idle connections."""

import asyncio
import socket

import pytest

from machpay_gateway.core.network.upstream_options import UpstreamOptions
from machpay_gateway.proxy.framing import HeadLimits
from machpay_gateway.proxy.header_fields import response_fields
from machpay_gateway.proxy.readers import ResponseReader
from machpay_gateway.proxy.upstream import UpstreamConnection
from machpay_gateway.proxy.upstream_server import CONNECT, LOST, UpstreamServer
from tests.clocks import FixedClock
from tests.proxy.harness import Upstream, proxied, request


class IdleTransport(asyncio.Transport):
    """A connection on which nothing happens."""

    def __init__(self) -> None:
        super().__init__()
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


async def _never() -> tuple[object, UpstreamConnection]:
    raise AssertionError("these tests do not connect")


def _server(clock: FixedClock, *, keepalive_seconds: float = 4.0) -> UpstreamServer:
    return UpstreamServer("test", _never, options=UpstreamOptions(keepalive_seconds=keepalive_seconds), clock=clock)


def _connections(count: int) -> list[tuple[UpstreamConnection, IdleTransport]]:
    connections = []
    for _ in range(count):
        connection, transport = (
            UpstreamConnection(ResponseReader(response_fields(), HeadLimits(1024, 10))),
            IdleTransport(),
        )
        connection.connection_made(transport)
        connections.append((connection, transport))
    return connections


async def test_a_failed_connect_leaves_no_request_in_flight() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with proxied(Upstream(port=port)) as rig, rig.client() as client:
        for _ in range(3):
            await client.send(request())
            assert (await client.answer())[0] == 502
        (server,) = rig.proxy.router.pools["live"].servers
        assert (server.in_flight, server.errors[CONNECT]) == (0, 3)


def test_failures_of_an_ejected_server_do_not_extend_its_ejection() -> None:
    clock = FixedClock(0.0)
    server = _server(clock)
    for _ in range(5):
        server.record_failure(LOST, "a test")
    assert server.ejected_until == 5.0
    clock.advance(4.0)
    for _ in range(20):  # requests that were in flight when it was ejected
        server.record_failure(LOST, "a test")
    assert server.ejected_until == 5.0
    clock.advance(1.0)
    server.record_failure(LOST, "a test")
    assert server.ejected_until == 5.0 + 10.0
    assert server.errors[LOST] == 26


def test_failures_count_only_in_a_row() -> None:
    server = _server(FixedClock(0.0))
    for _ in range(3):
        for _ in range(4):
            server.record_failure(LOST, "a test")
        server.record_response(200)
    assert server.ejected_until < 0.0


def test_idle_connections_are_bounded_and_the_longest_idle_close_first() -> None:
    server = _server(FixedClock(0.0))
    connections = _connections(300)
    for connection, _ in connections:
        server.give_back(connection)
    assert server.idle == 256
    assert [transport.is_aborted for _, transport in connections] == [True] * 44 + [False] * 256


def test_the_most_recently_used_open_connection_is_taken_first() -> None:
    server = _server(FixedClock(0.0))
    (first, _), (second, _), (third, _) = _connections(3)
    for connection in (first, second, third):
        server.give_back(connection)
    third.is_closing = True
    assert server.take_idle() is second
    assert server.take_idle() is first
    assert server.take_idle() is None


def test_connections_close_when_they_are_idle_for_too_long() -> None:
    """Before the server closes them, though this is looked at once a second only."""
    clock = FixedClock(0.0)
    server = _server(clock)
    (old, old_transport), (new, new_transport) = _connections(2)
    server.give_back(old)
    clock.advance(2.9)
    server.give_back(new)
    server.close_idle(clock())
    assert server.idle == 2
    clock.advance(0.1)
    server.close_idle(clock())
    assert (old_transport.is_aborted, new_transport.is_aborted, server.idle) == (True, False, 1)


@pytest.mark.parametrize(
    "seconds, idle, is_reused",
    [
        (0.0, 0.0, False),  # one request a connection
        (0.5, 0.4, True),
        (0.5, 0.5, False),  # between two calls of `close_idle`
        (60.0, 58.9, True),
        (60.0, 59.0, False),
    ],
)
def test_how_long_connections_may_be_idle_is_a_setting(seconds: float, idle: float, *, is_reused: bool) -> None:
    clock = FixedClock(0.0)
    server = _server(clock, keepalive_seconds=seconds)
    ((connection, transport),) = _connections(1)
    server.give_back(connection)
    clock.advance(idle)
    if seconds > 2:
        server.close_idle(clock())
    assert (server.take_idle() is connection, transport.is_aborted) == (is_reused, not is_reused)


def test_an_old_connection_gets_no_more_requests() -> None:
    clock = FixedClock(0.0)
    server = _server(clock, keepalive_seconds=60.0)
    (busy, busy_transport), (idle, idle_transport), (young, young_transport) = _connections(3)
    busy.expires_at = idle.expires_at = 10.0
    server.give_back(idle)
    server.give_back(young)
    clock.advance(10.0)
    server.give_back(busy)
    assert (busy_transport.is_aborted, server.idle) == (True, 2)
    server.close_idle(clock())
    assert (idle_transport.is_aborted, young_transport.is_aborted, server.idle) == (True, False, 1)


def test_connections_to_addresses_that_are_gone_get_no_more_requests() -> None:
    server = _server(FixedClock(0.0))
    (busy, busy_transport), (idle, idle_transport), (here, here_transport) = _connections(3)
    busy.address = idle.address = "192.0.2.1"
    here.address = "192.0.2.2"
    server.give_back(idle)
    server.give_back(here)
    server.move_to(frozenset({"192.0.2.2"}))
    server.give_back(busy)
    assert (idle_transport.is_aborted, busy_transport.is_aborted, here_transport.is_aborted) == (True, True, False)
    assert server.take_idle() is here


def test_bytes_on_an_idle_connection_close_it() -> None:
    """A response without a request: the next request would get it."""
    server = _server(FixedClock(0.0))
    ((connection, transport),) = _connections(1)
    server.give_back(connection)
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert transport.is_aborted
    assert server.take_idle() is None
