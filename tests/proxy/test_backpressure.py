"""Backpressure: a side that does not read slows the other one down, fills no memory and blocks nobody else."""

import asyncio

import pytest

from machpay_gateway.proxy.forwarding import Forwarder
from tests.proxy.harness import PATIENCE_SECONDS, Rig, Upstream, deaf, proxied, request, reset

_SMALL = 8 * 1024
_LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000)


async def test_a_client_that_does_not_read_leaves_no_paused_connection_in_the_pool() -> None:
    async with (
        Upstream(answer=_LARGE) as upstream,
        proxied(upstream, buffer=_SMALL) as rig,
        rig.client(buffer=_SMALL) as slow,
        rig.client() as other,
    ):
        await slow.send(request())
        await rig.until(lambda: rig.ended)
        await other.send(request())
        assert len((await other.answer())[2]) == 100_000
        assert upstream.connections == 1
        assert len((await slow.answer())[2]) == 100_000


async def test_pipelined_requests_of_a_client_that_never_reads_fill_no_memory() -> None:
    count = 8
    async with (
        Upstream(answer=_LARGE) as upstream,
        proxied(upstream, buffer=_SMALL) as rig,
        rig.client(buffer=_SMALL) as slow,
        rig.client() as other,
    ):
        await slow.send(b"".join(request("GET", f"/public/{number}") for number in range(count)))
        for _ in range(3 * count):  # time enough for all of them
            await other.send(request("GET", "/public/other"))
            await other.answer()
        piled_up = rig.connections[0].transport.get_write_buffer_size()
        assert piled_up < 500_000
        assert [len((await slow.answer())[2]) for _ in range(count)] == [100_000] * count
        paths = [head.split()[1] for head in upstream.heads]
        assert [path for path in paths if path != b"/public/other"] == [b"/public/%d" % at for at in range(count)]


async def test_unread_refusals_fill_no_memory() -> None:
    async with (
        Upstream() as upstream,
        proxied(upstream, buffer=_SMALL) as rig,
        rig.client(buffer=_SMALL) as slow,
        rig.client() as other,
    ):
        slow.writer.write(b"".join(request("GET", "/v1/x") for _ in range(40_000)))
        for _ in range(100):
            await other.send(request("GET", "/public/other"))
            await other.answer()
        assert rig.connections[0].transport.get_write_buffer_size() < 5_000_000
        slow.writer.transport.abort()


async def test_backpressure_slows_the_upstream_to_the_pace_of_the_client() -> None:
    total = 30_000_000

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        for _ in range(total // 100_000):
            writer.write(bytes(100_000))
            await writer.drain()

    async with (
        Upstream(flood) as upstream,
        proxied(upstream, buffer=_SMALL) as rig,
        rig.client(buffer=_SMALL) as slow,
        rig.client() as other,
    ):
        await slow.send(request())
        await slow.head()
        for _ in range(50):
            await other.send(request("GET", "/nowhere"))
            await other.answer()
        assert rig.connections[0].transport.get_write_buffer_size() < 1_000_000
        read = 0
        while read < total:
            read += len(await slow.reader.read(1_000_000))
        assert read == total


async def test_backpressure_slows_the_client_to_the_pace_of_the_upstream() -> None:
    total = 30_000_000
    go_on = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go_on.wait()
        assert len(await reader.readexactly(total)) == total
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with Upstream(slow) as upstream, proxied(upstream) as rig, rig.client() as client, rig.client() as other:
        sending = asyncio.create_task(
            client.send(request("POST", "/public/x", f"Content-Length: {total}", body=bytes(total)))
        )
        for _ in range(50):
            await other.send(request("GET", "/nowhere"))
            await other.answer()
        assert not sending.done()
        go_on.set()
        await sending
        assert (await client.answer())[0] == 200


def _expire(rig: Rig) -> None:
    """Let the only request's patience end, as the clock would."""
    (forwarder,) = [connection.forwarder for connection in rig.connections if connection.forwarder is not None]
    forwarder.expire()


def _is_held_back(rig: Rig) -> bool:
    return any(_is_held_back_by_upstream(connection.forwarder) for connection in rig.connections)


def _is_held_back_by_upstream(forwarder: Forwarder | None) -> bool:
    upstream = None if forwarder is None else forwarder._upstream  # noqa: SLF001 - which nothing outside shows
    return upstream is not None and upstream.is_full


async def test_a_slowly_read_response_does_not_time_out() -> None:
    total = 2_000_000

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total + bytes(total))
        await reader.read()

    async with (
        Upstream(flood) as upstream,
        proxied(upstream, buffer=_SMALL) as rig,
        rig.client(buffer=_SMALL) as slow,
    ):
        await slow.send(request())
        await slow.head()
        await rig.until(lambda: rig.connections[0].is_full)
        transport, read = rig.connections[0].transport, 0
        for _ in range(5):
            left = transport.get_write_buffer_size()
            _expire(rig)
            while transport.get_write_buffer_size() == left:
                piece = await slow.reader.read(4096)
                assert piece
                read += len(piece)
        assert rig.connections[0].is_full  # all the time: the upstream has sent nothing meanwhile
        _expire(rig)
        _expire(rig)  # and nothing was taken between the two
        with pytest.raises(asyncio.IncompleteReadError):
            await slow.reader.readexactly(total - read)


async def test_a_slowly_read_request_body_does_not_time_out() -> None:
    piece = 12_000_000  # more than kernels keep
    taken, go_on = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(3):
            taken.set()
            await go_on.wait()
            go_on.clear()
            await reader.readexactly(piece)
        await reader.readexactly(piece)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with Upstream(slow) as upstream, proxied(upstream) as rig, rig.client() as client:
        sent = request("POST", "/public/x", f"Content-Length: {4 * piece}", body=bytes(4 * piece))
        sending = asyncio.create_task(client.send(sent))
        for _ in range(3):
            await asyncio.wait_for(taken.wait(), PATIENCE_SECONDS)
            taken.clear()
            await rig.until(lambda: _is_held_back(rig))
            _expire(rig)
            go_on.set()
        assert (await client.answer())[0] == 200
        await sending


@pytest.mark.parametrize("length", [10, 100_000])
async def test_a_client_that_reads_nothing_times_out(length: int) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + bytes(length)
    async with (
        Upstream(answer=answer) as upstream,
        proxied(upstream, buffer=_SMALL) as rig,
        rig.client(buffer=_SMALL) as client,
    ):
        await client.send(request())
        await rig.until(lambda: rig.ended)
        for _ in range(3):
            rig.connections[0].expire()
        await rig.until(lambda: not len(rig.proxy))


async def test_a_client_that_reads_the_last_response_slowly_gets_all_of_it() -> None:
    async with (
        Upstream(answer=_LARGE) as upstream,
        proxied(upstream, buffer=_SMALL) as rig,
        rig.client(buffer=_SMALL) as client,
    ):
        await client.send(request("GET", "/public/x", "Connection: close"))
        await rig.until(lambda: rig.ended)
        await client.head()
        connection, got = rig.connections[0], b""
        left = connection.transport.get_write_buffer_size()
        assert left
        while left:
            got += await client.reader.read(4096)
            if (now_left := connection.transport.get_write_buffer_size()) < left:
                left = now_left
                connection.expire()  # as the clock would, between any two pieces
        assert len(got + await client.rest()) == 100_000


async def test_a_body_is_not_buffered_while_the_upstream_is_connected() -> None:
    with deaf() as upstream:
        async with proxied(upstream) as rig, rig.client() as client:
            client.writer.write(request("POST", "/public/x", "Content-Length: 10000000", body=bytes(10_000_000)))
            await rig.until(lambda: len(rig.connections[0].buffer) > 64 * 1024)
            await asyncio.sleep(0.1)  # for more, if reading went on
            assert len(rig.connections[0].buffer) < 1_000_000
            reset(client.writer)
