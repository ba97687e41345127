"""A route with `buffer` takes the whole body before any of it is forwarded, and forwards it with a length."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from machpay_gateway import Route
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.proxy_settings import ProxySettings
from tests.proxy.harness import ROUTES, Rig, Upstream, fields_of, proxied, request

BUFFERED = (
    *ROUTES,
    Route("* /buffered", public=True, buffer=True),
    Route("* /small", public=True, buffer=True, proxy={"max_body_bytes": 10}),
)
CHUNKED = "Transfer-Encoding: chunked"
LARGE = 3_000_000  # more than is kept in memory


def chunks(body: bytes, size: int = 65_536) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nX-Trailer: 1\r\n\r\n"


@asynccontextmanager
async def buffered(upstream: Upstream) -> AsyncIterator[Rig]:
    async with proxied(upstream, routes=BUFFERED) as rig:
        yield rig


@pytest.mark.parametrize("length", [0, 1, 1000, 65_536, 1_048_576, 1_048_577, LARGE])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_the_body_arrives_whole_with_its_length(length: int, is_chunked: bool) -> None:  # noqa: FBT001 - a table's column
    body = bytes(number % 251 for number in range(1000)) * (length // 1000 + 1)
    body = body[:length]
    framing = CHUNKED if is_chunked else f"Content-Length: {length}"
    async with Upstream() as upstream, buffered(upstream) as rig, rig.client() as client:
        await client.send(request("POST", "/buffered", framing) + (chunks(body) if is_chunked else body))
        assert (await client.answer())[0] == 200
        await client.send(request("GET", "/public/next"))
        assert (await client.answer())[0] == 200
    forwarded = fields_of(upstream.heads[0])
    assert forwarded["content-length"] == [str(length)]
    assert "transfer-encoding" not in forwarded
    assert upstream.bodies[0] == body


async def test_no_server_is_occupied_while_the_body_arrives() -> None:
    async with Upstream() as upstream, buffered(upstream) as rig, rig.client() as client, rig.client() as other:
        await client.send(request("POST", "/buffered", "Content-Length: 6", body=b"abc"))
        await other.send(request("GET", "/public/x"))
        assert (await other.answer())[0] == 200
        assert len(upstream.heads) == 1
        await client.send(b"def")
        assert (await client.answer())[0] == 200
        assert upstream.bodies[-1] == b"abcdef"
        assert upstream.connections == 1


async def test_an_expectation_is_met_by_the_gateway_and_not_forwarded() -> None:
    async with Upstream() as upstream, buffered(upstream) as rig, rig.client() as client:
        await client.send(request("POST", "/buffered", "Content-Length: 3", "Expect: 100-continue"))
        assert (await client.head()).startswith(b"HTTP/1.1 100 Continue\r\n")
        await client.send(b"abc")
        assert (await client.answer())[0] == 200
        assert "expect" not in fields_of(upstream.heads[0])


@pytest.mark.parametrize(
    "sent, status",
    [
        (request("POST", "/small", "Content-Length: 10", body=b"0123456789"), 200),
        (request("POST", "/small", "Content-Length: 11", body=b"01234567890"), 413),
        (request("POST", "/small", CHUNKED) + chunks(b"0123456789"), 200),
        (request("POST", "/small", CHUNKED) + chunks(b"01234567890"), 413),
        (request("POST", "/buffered", CHUNKED) + b"zz\r\n", 400),
    ],
)
async def test_what_is_refused_never_reaches_the_upstream(sent: bytes, status: int) -> None:
    async with Upstream() as upstream, buffered(upstream) as rig, rig.client() as client:
        await client.send(sent)
        assert (await client.answer())[0] == status
        assert len(upstream.heads) == (status == 200)


@pytest.mark.usefixtures("quick_clock")
async def test_a_body_that_stops_arriving_is_answered_408() -> None:
    async with (
        Upstream() as upstream,
        proxied(upstream, routes=BUFFERED, proxy={"idle_seconds": 0.05}) as rig,
        rig.client() as client,
    ):
        await client.send(request("POST", "/buffered", "Content-Length: 3", body=b"ab"))
        assert (await client.answer())[0] == 408
        assert upstream.heads == []


async def test_an_upstream_that_reads_slowly_is_waited_for() -> None:
    read = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await read.wait()
        body = await reader.readexactly(int(fields_of(head)["content-length"][0]))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n%07d" % len(body))

    async with Upstream(slow) as upstream, buffered(upstream) as rig, rig.client() as client:
        body = bytes(20_000_000)
        await client.send(request("POST", "/buffered", f"Content-Length: {len(body)}", body=body))
        forwarder = rig.connections[0].forwarder
        assert forwarder is not None
        await rig.until(lambda: forwarder._upstream is not None and forwarder._upstream.is_full)  # noqa: SLF001 - its fill
        assert forwarder._upstream is not None  # noqa: SLF001 - as above
        assert forwarder._upstream.transport.get_write_buffer_size() < 2_000_000  # noqa: SLF001 - as above
        read.set()
        assert (await client.answer())[0] == 200


async def test_a_client_that_leaves_reaches_no_upstream_and_frees_the_buffer() -> None:
    async with Upstream() as upstream, buffered(upstream) as rig:
        async with rig.client() as client:
            await client.send(request("POST", "/buffered", "Content-Length: 3", body=b"ab"))
            await rig.until(lambda: rig.connections and rig.connections[0].forwarder is not None)
        await rig.until(lambda: not len(rig.proxy))
        assert upstream.heads == []
        assert [ended.status for ended in rig.ended] == [499]


def test_a_buffer_without_a_limit_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="buffer needs max_body_bytes"):
        ProxySettings(buffer=True, max_body_bytes=0)
