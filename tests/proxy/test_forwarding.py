"""What goes to the upstream, and what comes back."""

import asyncio

import pytest

from tests.proxy.harness import OK, Upstream, fields_of, proxied, request


async def test_a_request_is_forwarded_with_identity_headers_and_without_the_credential() -> None:
    async with Upstream() as upstream, proxied(upstream) as rig, rig.client() as client:
        secret = await rig.secret()
        sent = request(
            "POST", "/v1/x?a=1&a=2", "X-Thing: One", "x-thing:  Two ", "Content-Length: 3", secret=secret, body=b"abc"
        )
        await client.send(sent)
        status, head, body = await client.answer()
        assert (status, body) == (200, b"ok")
        fields = fields_of(upstream.heads[0])
        assert upstream.heads[0].startswith(b"POST /v1/x?a=1&a=2 HTTP/1.1\r\nX-Thing: One\r\nx-thing:  Two \r\n")
        assert upstream.bodies == [b"abc"]
        assert "authorization" not in fields
        assert fields["host"] == ["api.test"]
        assert fields["x-machpay-environment"] == ["live"]
        assert fields["x-machpay-scopes"] == ["skills:execute"]
        assert fields["x-forwarded-for"] == ["127.0.0.1"]
        assert fields["via"] == ["1.1 machpay"]
        answered = fields_of(head)
        assert answered["x-request-id"] == fields["x-request-id"]
        assert answered["ratelimit"][0].startswith('"minute";r=999;')


async def test_a_refused_request_is_not_forwarded() -> None:
    async with Upstream() as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request("GET", "/v1/x"))
        status, head, _ = await client.answer()
        assert status == 401
        assert fields_of(head)["www-authenticate"] == ['Bearer realm="machpay"']
        await client.send(request("GET", "/nowhere", secret=await rig.secret()))
        assert (await client.answer())[0] == 404
        assert upstream.connections == 0


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with Upstream() as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(b"".join(request("GET", f"/public/{number}") for number in range(5)))
        assert [(await client.answer())[0] for _ in range(5)] == [200] * 5
        assert [head.split()[1] for head in upstream.heads] == [b"/public/%d" % number for number in range(5)]
        assert upstream.connections == 1


async def test_a_chunked_body_stays_chunked_without_its_extensions() -> None:
    async with Upstream() as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request("POST", "/public/x", "Transfer-Encoding: chunked"))
        for piece in (b"3;x=y\r\nab", b"c\r\n4\r", b"\ndefg\r\n0\r\nX-Sum: 1\r\n", b"\r\n"):
            await client.send(piece)
            await asyncio.sleep(0.01)
        assert (await client.answer())[0] == 200
        assert upstream.bodies[0].replace(b"2\r\nab\r\n1\r\nc\r\n", b"3\r\nabc\r\n") == (
            b"3\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Sum: 1\r\n\r\n"
        )


async def test_a_response_without_a_length_becomes_chunked() -> None:
    async def until_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nabc")

    async with Upstream(until_close) as upstream, proxied(upstream) as rig, rig.client() as client:
        for _ in range(2):
            await client.send(request())
            status, head, body = await client.answer()
            assert (status, body) == (200, b"abc")
            assert fields_of(head)["transfer-encoding"] == ["chunked"]


async def test_a_response_that_breaks_off_stays_incomplete() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")

    async with Upstream(cut) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request())
        assert (await client.rest()).endswith(b"\r\n\r\n3\r\nabc\r\n")  # without the last chunk


async def test_a_close_delimited_response_that_breaks_off_is_reset() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await asyncio.sleep(0.05)

    async with Upstream(cut) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(b"GET /public/x HTTP/1.0\r\n\r\n")
        assert "transfer-encoding" not in fields_of(await client.head())
        assert await client.reader.readexactly(3) == b"abc"
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_a_disconnect_closes_the_upstream_connection() -> None:
    gone = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await reader.read()
        gone.set()

    async with Upstream(wait) as upstream, proxied(upstream) as rig:
        async with rig.client() as client:
            await client.send(request())
            await client.head()
        async with asyncio.timeout(5):
            await gone.wait()


async def test_an_upgraded_connection_is_bidirectional_with_half_close() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert fields_of(head)["upgrade"] == ["websocket"]
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
        data = await reader.read()  # until the client has said all
        writer.write(data.upper())

    async with Upstream(echo) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(
            request("GET", "/v1/x", "Connection: Upgrade", "Upgrade: websocket", secret=await rig.secret())
        )
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 101 ")
        assert await client.reader.readexactly(5) == b"hello"
        await client.send(b"abc")
        client.writer.write_eof()
        assert await client.rest() == b"ABC"


async def test_an_unreachable_upstream_becomes_a_502() -> None:
    async with Upstream() as upstream:
        port = upstream.port
    async with proxied(upstream) as rig, rig.client() as client:
        assert port == upstream.port
        await client.send(request())
        status, _, body = await client.answer()
        assert (status, b"upstream_unavailable" in body) == (502, True)


async def test_a_safe_request_is_retried_when_the_reused_connection_was_lost() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")  # and closes without an answer

    async with Upstream(once) as upstream, proxied(upstream) as rig, rig.client() as client:
        for method, expected in (("GET", 200), ("GET", 200), ("POST", 502)):
            await client.send(request(method))
            assert (await client.answer())[0] == expected
