"""What an upstream answers: carried back as it is, or refused as a whole, and never given to another."""

import asyncio
import time
from email.utils import parsedate_to_datetime

import pytest

from tests.proxy.harness import OK, Rig, Upstream, fields_of, proxied, request, reset

_HTTP = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        _HTTP + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        _HTTP + b"Content-Length: 2, 3\r\n\r\nabc",
        _HTTP + b"Content-Length: +2\r\n\r\nab",
        _HTTP + b"Content-Length: -1\r\n\r\n",
        _HTTP + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        _HTTP + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        _HTTP + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        _HTTP + b"Transfer-Encoding: identity\r\n\r\nab",
        _HTTP + b"X: 1\r\n folded\r\nContent-Length: 0\r\n\r\n",
        _HTTP + b"X: 1\nY: 2\r\nContent-Length: 0\r\n\r\n",
        _HTTP + b"X: \x00\r\nContent-Length: 0\r\n\r\n",
        _HTTP + b"X\x00: 1\r\nContent-Length: 0\r\n\r\n",
        _HTTP + b"X : 1\r\nContent-Length: 0\r\n\r\n",
        _HTTP + b"X\r\nContent-Length: 0\r\n\r\n",
        _HTTP + b"X: " + b"a" * 33_000 + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 +200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"ICY 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"<html>\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",  # and waits
        b"\x15\x03\x03\x00\x02\x02\x46",
        b"HTTP/2",
        b"\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"a" * 40_000,
    ],
)
async def test_a_malformed_response_becomes_a_502(answer: bytes) -> None:
    async def bad(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await upstream.read(reader)
        writer.write(OK if b"/public/good" in head else answer)
        await reader.read()

    async with Upstream(bad) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request())
        status, _, body = await client.answer()
        assert (status, b"upstream_unavailable" in body) == (502, True)
        await client.send(request("GET", "/public/good"))
        assert (await client.answer())[0] == 200
        assert upstream.connections == 2


@pytest.mark.parametrize(
    "body",
    [
        b"3\r\nabc\r\n0x1\r\na\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nabc\r\ng\r\n",
        b"3\r\nabc\r\n0\r\nContent-Length: 3\r\n\r\n",
        b"3\r\nabc\r\n0\r\nX-Request-Id: 3\r\n\r\n",
        b"3\r\nabc\r\n0\r\nX: 1\n\r\n",
        b"3\r\nabc\r\n3\r\nab",  # and no more
        b"3\r\nabc\r\n",
        b"3\r\nabc\r\n0\r\n",
        b"3\r\nabc",
    ],
)
async def test_a_response_with_a_malformed_body_looks_incomplete(body: bytes) -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(_HTTP + b"Transfer-Encoding: chunked\r\n\r\n" + body)

    async with Upstream(broken) as upstream, proxied(upstream) as rig:
        answer = await rig.exchange(request())
        assert answer.startswith(_HTTP)
        assert not answer.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("first", [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", b"HTTP/1.1 200 OK\r\nContent-Le"])
async def test_a_truncated_response_stays_truncated(first: bytes) -> None:
    async def short(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(first)

    async with Upstream(short) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request())
        if first.endswith(b"ab"):
            assert (await client.rest()).endswith(b"\r\n\r\nab")
        else:
            assert (await client.answer())[0] == 502


@pytest.mark.parametrize("minor", [0, 1])
async def test_a_reset_response_without_a_length_looks_incomplete(minor: int) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nxyz")
        await came.wait()
        reset(writer)

    came = asyncio.Event()
    async with Upstream(cut) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(b"GET /public/x HTTP/1.%d\r\nHost: a\r\n\r\n" % minor)
        await client.reader.readuntil(b"xyz")  # which is in no id of a request
        came.set()
        if minor:
            assert await client.rest() == b"\r\n"  # of the only chunk, and there is no last one
        else:
            with pytest.raises(ConnectionResetError):
                await client.rest()


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"garbage",
        OK + OK.replace(b"ok", b"no"),
        OK + b"\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 204 No Content\r\n\r\nno",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + OK.replace(b"ok", b"no"),
    ],
)
async def test_bytes_after_a_response_reach_nobody(answer: bytes) -> None:
    async def garbled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await upstream.read(reader)
            writer.write(answer)

    async with Upstream(garbled) as upstream, proxied(upstream) as rig, rig.client() as client:
        for count in (1, 2):
            await client.send(request())
            if answer.startswith(b"HTTP/1.1 200 "):
                assert (await client.answer())[2] == b"ok"
            else:
                assert (await client.head()).startswith(answer[:12])
            assert upstream.connections == count


async def test_bytes_on_an_idle_connection_reach_nobody() -> None:
    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(OK)
        if upstream.connections == 1:
            await go_on.wait()
            writer.write(OK.replace(b"ok", b"no"))
            await reader.read()
            closed.set()

    go_on, closed = asyncio.Event(), asyncio.Event()
    async with Upstream(late) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request())
        assert (await client.answer())[2] == b"ok"
        go_on.set()
        await asyncio.wait_for(closed.wait(), 3)
        await client.send(request())
        assert (await client.answer())[2] == b"ok"


@pytest.mark.parametrize("announced", [b"", b"Content-Length: 2\r\n"])
async def test_a_204_with_a_length_is_the_last_response_of_its_connection(announced: bytes) -> None:
    """RFC 9110 §8.6 forbids it: whoever sends it may well send that body, and the next would get it."""

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await upstream.read(reader)
            writer.write(b"HTTP/1.1 204 No Content\r\n" + announced + b"\r\n")

    async with Upstream(late) as upstream, proxied(upstream) as rig, rig.client() as client:
        for _ in range(2):
            await client.send(request())
            head = await client.head()
            assert head.startswith(b"HTTP/1.1 204 ")
            assert "content-length" not in fields_of(head)
        assert upstream.connections == (2 if announced else 1)


@pytest.mark.parametrize(
    "method, answer, length",
    [
        ("HEAD", _HTTP + b"Content-Length: 5\r\n\r\n", ["5"]),  # RFC 9110 §9.3.2: what a GET would have had
        ("HEAD", _HTTP + b"\r\n", None),
        ("HEAD", _HTTP + b"Transfer-Encoding: chunked\r\n\r\n", None),
        ("HEAD", b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n", ["9"]),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n", ["5"]),
        ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n", None),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("GET", _HTTP + b"Content-Length: 0\r\n\r\n", ["0"]),
        ("GET", b"HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n", ["0"]),
        ("GET", b"HTTP/1.1 299\r\nContent-Length: 0\r\n\r\n", ["0"]),
        ("GET", b"HTTP/1.1 999 caf\xe9\r\nContent-Length: 0\r\n\r\n", ["0"]),
    ],
)
async def test_a_response_without_a_body_ends_with_its_head(
    method: str, answer: bytes, length: list[str] | None
) -> None:
    async with Upstream(answer=answer) as upstream, proxied(upstream) as rig, rig.client() as client:
        for _ in range(2):
            await client.send(request(method))
            head = await client.head()
            assert head.split(b" ")[1] == answer.split()[1]
            assert fields_of(head).get("content-length") == length
            assert "transfer-encoding" not in fields_of(head)
        assert upstream.connections == 1


@pytest.mark.parametrize("dates", [[], ["Sun, 06 Nov 1994 08:49:37 GMT"], ["yesterday", "Sunday"]])
async def test_a_response_without_a_date_gets_one(dates: list[str]) -> None:
    lines = "".join(f"date: {date}\r\n" for date in dates).encode()
    answer = _HTTP + lines + b"Transfer-Encoding: chunked\r\n\r\n0\r\nDate: now\r\n\r\n"
    async with Upstream(answer=answer) as upstream, proxied(upstream) as rig, rig.client() as client:
        began_at = int(time.time())
        for path in ("/public/x", "/public/x", "/nowhere"):
            await client.send(request("GET", path))
            status, head, _ = await client.answer()
            date_fields = fields_of(head)["date"]
            if dates and status == 200:
                assert date_fields == dates
            else:
                (date,) = date_fields
                assert date.endswith(" GMT")
                assert began_at <= parsedate_to_datetime(date).timestamp() <= time.time()


async def _trailers(rig: Rig, minor: int) -> bytes:
    return await rig.exchange(
        b"GET /public/x HTTP/1.%d\r\nHost: a\r\nConnection: close, TE\r\nTE: trailers\r\n\r\n" % minor
    )


@pytest.mark.parametrize("announced", [b"", b"Trailer: X-Sum\r\n"])
async def test_response_trailers_are_forwarded_to_clients_of_http_1_1(announced: bytes) -> None:
    end = b"0\r\nX-Sum: 1\r\nx-sum: caf\xe9\r\n\r\n"
    answer = _HTTP + b"Transfer-Encoding: chunked\r\n" + announced + b"\r\n2\r\nok\r\n" + end
    async with Upstream(answer=answer) as upstream, proxied(upstream) as rig:
        assert (await _trailers(rig, 1)).endswith(b"\r\n\r\n2\r\nok\r\n" + end)
        assert (await _trailers(rig, 0)).endswith(b"\r\n\r\nok")


@pytest.mark.parametrize(
    "version, fields, is_kept",
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: X, Close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: keep-alive\r\n", True),
    ],
)
async def test_an_upstream_connection_is_reused_if_the_upstream_allows_it(
    version: bytes,
    fields: bytes,
    is_kept: bool,  # noqa: FBT001 - a table's column
) -> None:
    answer = b"HTTP/%b 200 OK\r\n%bContent-Length: 2\r\n\r\nok" % (version, fields)
    async with Upstream(answer=answer) as upstream, proxied(upstream) as rig, rig.client() as client:
        for _ in range(3):
            await client.send(request())
            assert (await client.answer())[2] == b"ok"
        assert upstream.connections == (1 if is_kept else 3)
