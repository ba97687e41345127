"""When all connections are taken, the block of addresses that holds most gives way to others."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest

from machpay_gateway.core.network.address import parse_address
from machpay_gateway.proxy.downstream import NEVER
from machpay_gateway.proxy.eviction import ConnectionTable
from tests.proxy.harness import OK, Client, Rig, Upstream, proxied, request, status_of

GREEDY, OTHER, THIRD = "127.0.0.2", "127.0.0.3", "127.0.0.4"
FOUR = {"max_connections": 4}


@asynccontextmanager
async def connected(rig: Rig, *sources: str) -> AsyncIterator[Sequence[Client]]:
    """Connect from each of *sources*, one after the other."""
    async with AsyncExitStack() as stack:
        clients = []
        for source in sources:
            count = len(rig.connections)
            clients.append(await stack.enter_async_context(rig.client(source=source)))
            await rig.until(partial(_is_taken_in, rig, count))
        yield clients


def _is_taken_in(rig: Rig, at: int) -> bool:
    return len(rig.connections) > at and hasattr(rig.connections[at], "due")


async def status(client: Client) -> int:
    """Return the status of a request over a connection that is there."""
    await client.send(request())
    return (await client.answer())[0]


async def is_closed(client: Client) -> bool:
    return await client.rest() == b""


async def test_one_address_may_use_all_connections_while_no_other_needs_one() -> None:
    async with Upstream() as upstream, proxied(upstream, server=FOUR) as rig, connected(rig, *[GREEDY] * 4) as clients:
        assert [await status(client) for client in clients] == [200] * 4
        async with rig.client(source=GREEDY) as fifth:
            assert status_of(await fifth.head()) == 503
        assert [await status(client) for client in clients] == [200] * 4


async def test_a_new_connection_evicts_the_one_that_is_idle_for_longest() -> None:
    async with Upstream() as upstream, proxied(upstream, server=FOUR) as rig, connected(rig, *[GREEDY] * 4) as clients:
        for client in (clients[1], clients[2], clients[3], clients[0]):
            assert await status(client) == 200
        async with connected(rig, OTHER) as (other,):
            assert await status(other) == 200
            assert await is_closed(clients[1])
            async with connected(rig, OTHER) as (another,):  # two each
                assert await status(another) == 200
                assert await is_closed(clients[2])
                async with rig.client(source=OTHER) as third:  # which would then hold more than the greedy one
                    assert status_of(await third.head()) == 503
                assert [await status(client) for client in (clients[3], clients[0], other, another)] == [200] * 4


async def test_slow_heads_are_evicted_with_a_503() -> None:
    async with Upstream() as upstream, proxied(upstream, server=FOUR) as rig, connected(rig, *[GREEDY] * 4) as clients:
        for client in clients:
            await client.send(b"GET /public/x HTTP/1.1\r\nX-Slow: ")
        await rig.until(lambda: all(connection.buffer for connection in rig.connections))
        async with connected(rig, OTHER) as (other,):
            assert await status(other) == 200
            assert (await clients[0].rest()).startswith(b"HTTP/1.1 503 ")


async def test_slow_bodies_are_evicted_after_idle_connections_with_a_503() -> None:
    async with Upstream() as upstream, proxied(upstream, server=FOUR) as rig, connected(rig, *[GREEDY] * 4) as clients:
        for client in clients[:3]:
            await client.send(request("POST", "/public/x", "Content-Length: 100", body=b"a"))
        await rig.until(lambda: sum(_waits(rig, at) for at in range(3)) == 3)
        async with connected(rig, OTHER, THIRD) as (other, third):
            assert await status(other) == 200
            assert await is_closed(clients[3])
            assert (await clients[0].rest()).startswith(b"HTTP/1.1 503 ")
            assert await status(third) == 200
        assert [ended.status for ended in rig.ended].count(503) == 1


def _waits(rig: Rig, at: int) -> bool:
    forwarder = rig.connections[at].forwarder
    return forwarder is not None and forwarder.waiting_since < NEVER


async def test_a_request_at_its_upstream_is_never_evicted() -> None:
    go_on = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        await go_on.wait()
        writer.write(OK)

    async with (
        Upstream(slow) as upstream,
        proxied(upstream, server=FOUR) as rig,
        connected(rig, *[GREEDY] * 4) as clients,
    ):
        for client in clients:
            await client.send(request())
        await rig.until(lambda: len(upstream.heads) == 4)
        async with rig.client(source=OTHER) as other:
            assert status_of(await other.head()) == 503
        go_on.set()
        assert [(await client.answer())[0] for client in clients] == [200] * 4


async def test_connections_of_a_trusted_proxy_count_separately() -> None:
    async with (
        Upstream() as upstream,
        proxied(upstream, server=FOUR, trusted_proxies=[GREEDY]) as rig,
        connected(rig, *[GREEDY] * 4) as clients,
    ):
        async with rig.client(source=OTHER) as other:
            assert status_of(await other.head()) == 503
        assert [await status(client) for client in clients] == [200] * 4


async def test_an_evicted_connection_is_discarded_once() -> None:
    async with Upstream() as upstream, proxied(upstream, server=FOUR) as rig:
        for _ in range(5):
            async with connected(rig, *[GREEDY] * 4), connected(rig, OTHER) as (other,):
                assert await status(other) == 200
            await rig.until(lambda: not len(rig.proxy))
        assert len(rig.proxy._table) == 0  # noqa: SLF001 - a count that drifts would turn away everybody some day


class Connection:
    """A connection, as far as it is weighed; it knows how often it was looked at."""

    def __init__(self, host: str, idle_since: float = 0.0) -> None:
        self.host = host
        self.address = parse_address(host)
        self.is_trusted = False
        self.looks = 0
        self._idle_since = idle_since

    @property
    def idle_since(self) -> float:
        self.looks += 1
        return self._idle_since


@pytest.mark.parametrize(
    "held, newcomer, expected",
    [
        (["192.0.2.1", "192.0.2.1"], "192.0.2.2", "192.0.2.1"),
        (["192.0.2.1"], "192.0.2.2", None),  # one each
        (["192.0.2.1", "192.0.2.2"], "192.0.2.2", None),  # it would hold more than any other
        (["2001:db8::1", "2001:db8::2"], "192.0.2.2", "2001:db8::1"),  # a /64 is one block
        (["2001:db8::1", "2001:db8:0:1::2"], "192.0.2.2", None),
        (["::ffff:192.0.2.1", "192.0.2.1"], "192.0.2.2", "::ffff:192.0.2.1"),
        (["", ""], "192.0.2.2", None),  # a Unix socket has no address
    ],
)
def test_the_block_with_the_most_connections_loses_one(held: list[str], newcomer: str, expected: str | None) -> None:
    places = ConnectionTable()
    for at, host in enumerate(held):
        places.add(Connection(host, idle_since=float(at)))
    arrived = Connection(newcomer)
    places.add(arrived)
    victim = places.victim_for(arrived)
    assert (victim.host if isinstance(victim, Connection) else None) == expected


def test_the_search_examines_few_and_finds_an_idle_connection_eventually() -> None:
    places, idle, newcomer = ConnectionTable(), Connection("192.0.2.1"), Connection("192.0.2.2")
    busy = [Connection("192.0.2.1", NEVER) for _ in range(1000)]
    for connection in (*busy, idle, newcomer):
        places.add(connection)
    assert places.victim_for(newcomer) is None
    assert sum(connection.looks for connection in busy) <= 64 + 1
    assert any(places.victim_for(newcomer) is idle for _ in range(1000 // 64 + 1))
    places.discard(idle)
    places.discard(idle)
    assert len(places) == 1001
