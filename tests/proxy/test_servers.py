"""Which server is asked, and asked again: never twice for what could be done twice."""

import asyncio
from collections.abc import Sequence
from functools import partial

import pytest

from machpay_gateway.proxy.pool import ServerPool
from machpay_gateway.proxy.upstream_server import LOST, UpstreamServer
from tests.clocks import FixedClock
from tests.proxy.harness import OK, Rig, Upstream, proxied, request


class _Once:
    """An upstream that answers the first request of each connection, and closes when the next one comes."""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.read(reader)
        writer.write(OK)
        await self.read(reader)

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    async def read(self, reader: asyncio.StreamReader) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))


@pytest.mark.parametrize(
    "method, fields, body, expected, attempts",
    [
        ("GET", (), b"", 200, 2),
        ("HEAD", (), b"", 200, 2),
        ("OPTIONS", (), b"", 200, 2),
        ("POST", (), b"", 502, 1),  # it may have been done
        ("POST", ("Content-Length: 3",), b"abc", 502, 1),
        ("PUT", ("Content-Length: 3",), b"abc", 502, 1),
        ("DELETE", (), b"", 502, 1),
        ("PATCH", (), b"", 502, 1),
        ("PURGE", (), b"", 502, 1),
        ("GET", ("Content-Length: 3",), b"abc", 502, 1),  # its body is not kept
        ("GET", ("Transfer-Encoding: chunked",), b"0\r\n\r\n", 502, 1),
    ],
)
async def test_a_request_lost_on_a_reused_connection_is_retried_if_it_is_safe(
    method: str, fields: Sequence[str], body: bytes, expected: int, attempts: int
) -> None:
    once = _Once()
    async with Upstream(once) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request())
        assert (await client.answer())[0] == 200
        await client.send(request(method, "/public/again", *fields, body=body))
        assert int((await client.head()).split()[1]) == expected
        assert sum(b" /public/again " in head for head in once.heads) == attempts


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_lost_on_a_new_connection_is_not_retried(method: str) -> None:
    async def never(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)

    async with Upstream(never) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request(method))
        assert (await client.answer())[0] == 502
        assert len(upstream.heads) == 1


async def test_an_idle_connection_that_has_ended_is_not_reused() -> None:
    """It closes only in the event loop's next round, and a request that comes in this one may be no safe one."""
    async with Upstream() as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request())
        await client.answer()
        (server,) = rig.proxy.router.pools["live"].servers
        connection = server.take_idle()
        assert connection is not None
        server.give_back(connection)
        connection.eof_received()
        assert server.take_idle() is None


async def test_a_request_whose_response_has_begun_is_not_retried() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(OK)
        await upstream.read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")

    async with Upstream(half) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request())
        await client.answer()
        await client.send(request())
        assert (await client.rest()).endswith(b"\r\n\r\nab")
        assert len(upstream.heads) == 2


@pytest.mark.parametrize("body", [b"", b"abc"])
async def test_an_unreachable_server_is_skipped(body: bytes) -> None:
    """Nothing was sent to it, so that anything may be sent to the next."""
    async with Upstream() as away:
        pass
    async with Upstream() as there, proxied(away, there) as rig, rig.client() as client:
        for _ in range(20):
            await client.send(request("POST", "/public/x", f"Content-Length: {len(body)}", body=body))
            assert (await client.answer())[0] == 200
        assert there.bodies == [body] * 20


async def test_an_upstream_without_reachable_servers_becomes_a_502() -> None:
    async with Upstream() as one, Upstream() as two:
        pass
    async with proxied(one, two) as rig, rig.client() as client:
        for _ in range(20):
            await client.send(request())
            assert (await client.answer())[0] == 502
        async with Upstream(port=one.port):  # which is found again, though both were left alone
            await client.send(request())
            assert (await client.answer())[0] == 200


async def test_requests_go_to_the_server_with_the_fewest_in_flight() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await busy.read(reader)
        came.set()
        await go_on.wait()
        writer.write(OK)

    came, go_on = asyncio.Event(), asyncio.Event()
    async with (
        Upstream(slow) as busy,
        Upstream() as free,
        proxied(busy, free) as rig,
        rig.client() as first,
        rig.client() as second,
    ):
        await first.send(request())
        await came.wait()
        for _ in range(10):
            await second.send(request())
            assert (await second.answer())[0] == 200
        assert (len(busy.heads), len(free.heads)) == (1, 10)
        go_on.set()
        assert (await first.answer())[0] == 200


def _server(name: str, clock: FixedClock) -> UpstreamServer:
    async def never() -> tuple[object, object]:
        raise AssertionError("nobody connects here")

    return UpstreamServer(name, never, clock=clock)  # type: ignore[arg-type]  # it returns nothing at all


def test_each_ejection_lasts_longer() -> None:
    clock = FixedClock(0.0)
    bad, good = _server("bad", clock), _server("good", clock)
    pool = ServerPool([bad, good], clock=clock)
    for _ in range(5):
        assert {pool.pick(), pool.pick()} == {bad, good}
        bad.record_failure(LOST, "a test")
    for seconds in (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0):
        assert {pool.pick() for _ in range(4)} == {good}
        clock.advance(seconds - 0.1)
        assert {pool.pick() for _ in range(4)} == {good}
        clock.advance(0.2)
        assert {pool.pick() for _ in range(4)} == {bad, good}
        bad.record_failure(LOST, "once more")
    clock.advance(300.1)
    bad.record_response(200)
    for _ in range(4):
        bad.record_failure(LOST, "as if it had never been")
        assert {pool.pick() for _ in range(4)} == {bad, good}


def test_an_ejected_server_is_used_if_no_other_is_left() -> None:
    clock = FixedClock(0.0)
    servers = [_server("one", clock), _server("two", clock)]
    pool = ServerPool(servers, clock=clock)
    for server in servers:
        for _ in range(5):
            server.record_failure(LOST, "a test")
    assert {pool.pick() for _ in range(4)} == {servers[1]}  # never more than half are ejected
    assert pool.pick(servers[1:]) is servers[0]
    assert pool.pick(servers) is None
    assert ServerPool(servers[:1]).pick() is servers[0]
    assert ServerPool(servers[:1]).pick(servers[:1]) is None


def _has(rig: Rig, count: int) -> bool:
    return len(rig.ended) == count


async def test_no_request_is_in_flight_once_all_have_ended() -> None:
    """Whatever the way in which a request ended."""

    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/public/bad" in head:
            writer.write(b"nonsense\r\n\r\n")
        elif b"/public/cut" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
        elif b"/public/gone" in head:
            came.set()
            await reader.read()
        else:
            writer.write(OK)
        await reader.read(1)

    came = asyncio.Event()
    async with Upstream(odd) as upstream, proxied(upstream, proxy={"max_body_bytes": 5}) as rig:
        for count, sent in enumerate(
            (
                request(),
                request("GET", "/public/bad"),
                request("GET", "/public/cut"),
                request("GET", "/public/gone"),
                request("POST", "/public/gone", "Content-Length: 5", body=b"abc"),
                request("POST", "/public/x", "Transfer-Encoding: chunked", body=b"6\r\nabcdef\r\n"),
                request("POST", "/public/x", "Transfer-Encoding: chunked", body=b"nonsense\r\n"),
                request("POST", "/public/x", "Content-Length: 6", body=b"abcdef"),
            )
        ):
            async with rig.client() as client:
                await client.send(sent)
                if b"/public/gone" in sent:
                    await came.wait()
                    came.clear()
                else:
                    await client.reader.read(65536)
            await rig.until(partial(_has, rig, count + 1))
        await rig.until(lambda: not len(rig.proxy))
        pool = rig.proxy.router.pools["live"]
        assert [server.in_flight for server in pool.servers] == [0]
