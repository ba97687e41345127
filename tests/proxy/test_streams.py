"""Both directions at once: each piece goes on when it comes, interim answers and early ones too."""

import asyncio
import socket

import pytest

from machpay_gateway.proxy import connection as client_connection
from tests.proxy.harness import OK, Rig, Upstream, fields_of, proxied, request, status_of
from tests.proxy.strict import Strict

_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_EXPECT = ("Expect: 100-continue", "Content-Length: 3")


@pytest.mark.parametrize(
    "head, framed",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n", False),
    ],
)
async def test_a_response_is_streamed(head: bytes, framed: bool) -> None:  # noqa: FBT001 - a table's column
    arrived = asyncio.Queue[None]()

    async def events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(head)
        for number in range(3):
            await arrived.get()
            event = b"data: %d\n" % number
            writer.write(b"8\r\n%b\r\n" % event if framed else event)
        if framed:
            writer.write(b"0\r\n\r\n")

    async with Upstream(events) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request())
        is_chunked = "transfer-encoding" in fields_of(await client.head())
        for number in range(3):
            arrived.put_nowait(None)
            piece = await asyncio.wait_for(client.reader.readuntil(b"data: %d\n" % number), 3)
            assert piece.endswith((b"8\r\n" if is_chunked else b"") + b"data: %d\n" % number)


async def test_a_request_body_is_streamed() -> None:
    pieces = asyncio.Queue[bytes]()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(4):
            pieces.put_nowait(await reader.readuntil(b"\r\n\r\n" if _ == 3 else b"c\r\n"))
        writer.write(OK)

    async with Upstream(listen) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request("POST", "/public/x", "Transfer-Encoding: chunked"))
        for _ in range(3):
            await client.send(b"3\r\nabc\r\n")
            assert await asyncio.wait_for(pieces.get(), 3) == b"3\r\nabc\r\n"
        await client.send(b"0\r\nX: 1\r\n\r\n")
        assert await asyncio.wait_for(pieces.get(), 3) == b"0\r\nX: 1\r\n\r\n"
        assert (await client.answer())[0] == 200


@pytest.mark.parametrize("announced", [(), ("Trailer: X-Sum",)])
async def test_request_trailers_are_forwarded(announced: tuple[str, ...]) -> None:
    strict = Strict()
    body = b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nx-sum: caf\xe9\r\n\r\n"
    async with Upstream(strict) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request("POST", "/public/x", "Transfer-Encoding: chunked", *announced, body=body))
        assert (await client.answer())[0] == 200
    assert strict.requests[0].trailers == [(b"X-Sum", b"1"), (b"x-sum", b"caf\xe9")]


async def test_expect_100_continue_is_forwarded() -> None:
    strict = Strict()
    async with Upstream(strict) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request("POST", "/public/x", *_EXPECT))
        assert (await client.head()).startswith(b"HTTP/1.1 100 ")
        await client.send(b"abc" + request())
        assert [(await client.answer())[0] for _ in range(2)] == [200, 200]
        assert [seen.body for seen in strict.requests] == [b"abc", b""]


@pytest.mark.parametrize("path", ["/v1/x", "/nowhere", "/public/x"])
async def test_a_final_response_to_expect_100_continue_makes_the_body_unnecessary(path: str) -> None:
    no = b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(no)
        await reader.read()

    async with Upstream(refuse) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request("POST", path, *_EXPECT))
        status, head, _ = await client.answer()
        assert status == {"/v1/x": 401, "/nowhere": 404, "/public/x": 417}[path]
        # What comes next might be the body, or a request: nobody can tell.
        assert fields_of(head)["connection"] == ["close"]
        await client.send(request("GET", "/public/smuggled"))
        assert await client.rest() == b""


async def test_interim_responses_are_forwarded() -> None:
    interim = (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: X-Gone\r\nX-Gone: 1\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    )

    async def hint(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(interim)
        await go_on.wait()
        writer.write(OK)

    go_on = asyncio.Event()
    async with Upstream(hint) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request())
        heads = [await client.head() for _ in range(3)]
        assert [head.split()[1] for head in heads] == [b"103", b"103", b"102"]
        assert [fields_of(head).get("link") for head in heads] == [["</a>"], ["</b>"], None]
        assert "x-gone" not in fields_of(heads[0])
        go_on.set()
        assert (await client.answer())[2] == b"ok"
        assert [ended.status for ended in rig.ended] == [200]
        go_on.set()
        old = await rig.exchange(b"GET /public/x HTTP/1.0\r\n\r\n")  # RFC 9110 §15.2: HTTP/1.0 knows of none
        assert old.startswith(b"HTTP/1.1 200 ")
        assert old.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_response_may_arrive_before_the_body(is_whole: bool) -> None:  # noqa: FBT001 - a table's column
    ended = asyncio.Event()

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if is_whole:
            writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
        else:
            writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nn")
            await reader.readexactly(3)
            writer.write(b"o")
        while await reader.read(65536):
            pass
        ended.set()

    async with Upstream(early) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request("POST", "/public/x", "Content-Length: 100000000"))
        head = await client.head()
        assert (head.split()[1], fields_of(head)["connection"]) == (b"413", ["close"])
        if not is_whole:
            await client.send(b"abc")
        assert await client.rest() == b"no"
        await asyncio.wait_for(ended.wait(), 3)
        assert [(ended.status, ended.outcome) for ended in rig.ended] == [(413, "allowed")]


@pytest.mark.parametrize("longest, is_heard", [(30.0, True), (0.0, False)])
async def test_a_refused_client_may_send_its_body_for_a_limited_time(
    longest: float,
    is_heard: bool,  # noqa: FBT001 - a table's column
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_connection, "_MAX_LINGER_SECONDS", longest)
    async with Upstream() as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request("POST", "/v1/x", "Content-Length: 100"))
        await rig.until(lambda: rig.ended)
        connection = rig.connections[0]
        for _ in range(3):
            now = connection.due
            connection.data_received(b"abc")
            rig.proxy.check_timeouts(now)
        assert connection.transport.is_closing() is not is_heard
        rig.proxy.check_timeouts(connection.due)  # and nothing came meanwhile
        assert connection.transport.is_closing()


def _is_sent_on(rig: Rig) -> bool:
    forwarders = [connection.forwarder for connection in rig.connections]
    return any(forwarder is not None and forwarder.takes_body for forwarder in forwarders)


@pytest.mark.parametrize("missing, status", [(0, 413), (1, 413), (20, 502)])
async def test_a_response_is_read_although_writing_the_body_failed(missing: int, status: int) -> None:
    """The upstream answers and closes at once: the next write fails before the answer has been read."""
    answer = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with proxied(Upstream(port=listening.getsockname()[1])) as rig, rig.client() as client:
            await client.send(request("POST", "/public/x", "Content-Length: 9"))
            await rig.until(lambda: _is_sent_on(rig))
            with listening.accept()[0] as sock:
                sock.recv(1)  # closing on the others is a reset
                sock.sendall(answer[: len(answer) - missing])
            for _ in range(2):
                rig.connections[0].data_received(b"abc")
            assert status_of(await client.head()) == status
            rest = await client.rest()
            assert rest == b"no"[: 2 - missing] or status == 502


async def test_a_response_and_a_request_body_may_be_streamed_at_the_same_time() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(_CHUNKED)
        for _ in range(3):
            writer.write(await reader.readexactly(8))
        assert await reader.readexactly(5) == b"0\r\n\r\n"
        writer.write(b"0\r\n\r\n")

    async with Upstream(echo) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request("POST", "/public/x", "Transfer-Encoding: chunked"))
        await client.head()
        for _ in range(3):
            await client.send(b"3\r\nabc\r\n")
            assert await asyncio.wait_for(client.reader.readexactly(8), 3) == b"3\r\nabc\r\n"
        await client.send(b"0\r\n\r\n")
        assert await client.rest() == b"0\r\n\r\n"


async def test_a_malformed_body_during_the_response_ends_both() -> None:
    ended = asyncio.Event()

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(_CHUNKED + b"1\r\na\r\n")
        await reader.read()
        ended.set()

    async with Upstream(early) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request("POST", "/public/x", "Transfer-Encoding: chunked"))
        await client.head()
        await client.send(b"nonsense\r\n")
        assert await client.rest() == b"1\r\na\r\n"
        await asyncio.wait_for(ended.wait(), 3)


async def test_an_incomplete_body_stays_incomplete_for_the_upstream() -> None:
    strict = Strict()
    for body in (b"3\r\nabc\r\n", b"3\r\nabc\r\n0\r\n", b"3\r\nab"):
        async with Upstream(strict) as upstream, proxied(upstream) as rig:
            async with rig.client() as client:
                await client.send(request("POST", "/public/x", "Transfer-Encoding: chunked", body=body))
                await rig.until(lambda: upstream.connections)
            await rig.until(lambda: rig.ended)
    assert strict.requests == []
    assert strict.faults == []
