"""Flow control in both directions, cancellation, and the end of a connection of HTTP/2."""

import asyncio

from h2.errors import ErrorCodes

from tests.proxy.harness import Upstream, proxied, request
from tests.proxy.http2.harness import http2

SIZE = 3_000_000
LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE + b"x" * SIZE


async def test_large_content_goes_both_ways() -> None:
    async with Upstream(answer=LARGE) as upstream, proxied(upstream) as rig, http2(rig) as client:
        stream = client.request("POST", "/public/x", ("content-length", str(SIZE)), is_open=True)
        left = SIZE
        while left:
            await client.until(lambda: client.state.local_flow_control_window(stream) > 0)
            size = min(left, client.state.local_flow_control_window(stream), 16_384)
            left -= size
            client.data(stream, b"y" * size, is_last=not left)
        result = await client.result(stream)
        assert (result.status, len(result.body), result.reset) == (200, SIZE, None)
        assert upstream.bodies == [b"y" * SIZE]


async def test_an_upstream_that_does_not_read_stops_the_client_alone() -> None:
    waiting = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/public/slow" in head:
            await waiting.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    async with Upstream(handler) as upstream, proxied(upstream) as rig, http2(rig) as client:
        stream = client.request("POST", "/public/slow", is_open=True)
        sent = await client.fill(stream, most=20_000_000)
        assert sent < 20_000_000
        assert (await client.fetch()).status == 200
        waiting.set()
        assert (await client.result(stream)).status == 200


async def test_a_slow_client_stops_its_upstream() -> None:
    sent = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while sent < 20_000_000:
            writer.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
            await writer.drain()
            sent += 0x4000

    async with Upstream(handler) as upstream, proxied(upstream) as rig, http2(rig, takes_content=False) as client:
        stream = client.request()
        await client.until(lambda: len(client.results[stream].body) == 65_535)
        await asyncio.sleep(0.2)
        assert sent < 10_000_000
        client.state.increment_flow_control_window(1_000_000)
        client.state.increment_flow_control_window(1_000_000, stream)
        client.flush()
        await client.until(lambda: len(client.results[stream].body) == 1_065_535)


async def test_a_canceled_stream_frees_the_slot_and_the_upstream() -> None:
    lost = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        lost.set()

    async with Upstream(handler) as upstream, proxied(upstream) as rig, http2(rig) as client:
        secret = await rig.secret()
        stream = client.request("GET", "/v1/x", secret=secret)
        await rig.until(lambda: upstream.connections)
        client.state.reset_stream(stream, ErrorCodes.CANCEL)
        client.flush()
        await asyncio.wait_for(lost.wait(), 5)
        await rig.until(lambda: rig.ended)
        assert (rig.ended[0].status, rig.proxy.in_flight, client.goaways) == (499, 0, [])


async def test_a_response_that_breaks_off_resets_its_stream() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")

    async with Upstream(handler) as upstream, proxied(upstream) as rig, http2(rig) as client:
        result = await client.fetch()
        assert (result.status, result.body, result.has_ended) == (200, b"abc", False)
        assert result.reset == ErrorCodes.INTERNAL_ERROR


async def test_a_refused_upload_is_reset_without_an_error() -> None:
    async with Upstream() as upstream, proxied(upstream) as rig, http2(rig) as client:
        stream = client.request("POST", "/v1/x", is_open=True)
        result = await client.result(stream)
        await client.until(lambda: result.reset is not None)
        assert (result.status, result.has_ended, result.reset) == (401, True, ErrorCodes.NO_ERROR)
        assert (await client.fetch()).status == 200


async def test_a_drain_announces_itself_and_serves_what_has_begun() -> None:
    going_on = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await going_on.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with Upstream(handler) as upstream, proxied(upstream) as rig, http2(rig) as client, http2(rig) as idle:
        stream = client.request()
        await rig.until(lambda: rig.proxy.in_flight == 1)
        await idle.until(lambda: idle.state.remote_settings.max_concurrent_streams == 1000)
        closing = asyncio.create_task(rig.proxy.close(1.0))
        await client.until(lambda: client.goaways)
        assert client.goaways == [(0, 2**31 - 1)]
        late = client.request()  # it was in transit
        await client.until(lambda: len(client.goaways) == 2)
        assert client.goaways[1] == (0, late)
        assert (await client.result(client.request())).reset == ErrorCodes.REFUSED_STREAM
        going_on.set()
        assert [(await client.result(each)).status for each in (stream, late)] == [200, 200]
        assert len(await client.closed()) == 2
        assert await idle.closed() == [(0, 2**31 - 1), (0, 0)]
        await closing


async def test_a_client_that_says_goodbye_gets_its_responses(quick_clock: None) -> None:  # noqa: ARG001
    async with Upstream() as upstream, proxied(upstream) as rig, http2(rig) as client:
        stream = client.request()
        client.state.close_connection()
        client.writer.write(client.state.data_to_send())
        client.state = type(client.state)(client.state.config)
        await rig.until(lambda: rig.ended)
        assert (stream, rig.ended[0].status) == (1, 200)
        await rig.until(lambda: len(rig.proxy) == 0)


async def test_a_websocket_is_a_stream() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\nhi"
        )
        while data := await reader.read(100):
            writer.write(data.upper())

    async with Upstream(handler) as upstream, proxied(upstream) as rig, http2(rig) as client:
        secret = await rig.secret()
        fields = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", "/v1/x")]
        fields += [(":authority", "api.test"), ("sec-websocket-version", "13"), ("authorization", f"Bearer {secret}")]
        await client.until(lambda: client.state.remote_settings.enable_connect_protocol)
        stream = client.raw_request(fields, is_last=False)
        result = client.results[stream]
        await client.until(lambda: result.body == b"hi")
        assert (result.status, result.values("sec-websocket-protocol")) == (200, ["chat"])
        assert result.values("sec-websocket-accept") == result.values("upgrade") == []
        client.data(stream, b"abc")
        await client.until(lambda: result.body == b"hiABC")
        client.data(stream, b"d", is_last=True)
        assert ((await client.result(stream)).body, result.has_ended) == (b"hiABCD", True)
        await rig.until(lambda: rig.proxy.in_flight == 0)
        head = upstream.heads[0].lower()
        assert head.startswith(b"get /v1/x http/1.1\r\n")
        assert b"\r\nsec-websocket-key: " in head
        refused = await client.result(client.raw_request(fields[:-1], is_last=False))
        assert refused.status == 401
        assert rig.ended[0].status == 101


async def test_http11_goes_on_beside_it() -> None:
    async with Upstream() as upstream, proxied(upstream) as rig, http2(rig) as client, rig.client() as old:
        await old.send(request())
        assert (await old.answer())[0] == (await client.fetch()).status == 200
