"""Attacks by frames that cost their sender nothing: the connection closes, and nothing stays behind."""

import asyncio
from collections.abc import Callable, Iterator
from itertools import islice, repeat

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from machpay_gateway.proxy.http2 import bounds
from machpay_gateway.proxy.http2_callers.connection import Http2Connection
from tests.proxy.harness import Rig, Upstream, proxied
from tests.proxy.http2.harness import Http2Client, http2

HEAD = [(":method", "GET"), (":scheme", "http"), (":authority", "api.test"), (":path", "/public/x")]
CALM = ErrorCodes.ENHANCE_YOUR_CALM
Flood = Callable[[Http2Client], Iterator[Frame]]


def headers(client: Http2Client, stream_id: int, *, is_last: bool = True, is_whole: bool = True) -> HeadersFrame:
    frame = HeadersFrame(stream_id, data=client.state.encoder.encode(HEAD))
    if is_whole:
        frame.flags.add("END_HEADERS")
    if is_last:
        frame.flags.add("END_STREAM")
    return frame


def rapid_reset(client: Http2Client) -> Iterator[Frame]:
    for stream_id in range(1, 20_001, 2):
        yield headers(client, stream_id)
        yield RstStreamFrame(stream_id, error_code=8)


def made_you_reset(client: Http2Client) -> Iterator[Frame]:
    for stream_id in range(1, 20_001, 2):
        frame = HeadersFrame(stream_id, data=client.state.encoder.encode([*HEAD, ("connection", "close")]))
        frame.flags.add("END_HEADERS")
        yield frame


def continuations(client: Http2Client) -> Iterator[Frame]:
    yield headers(client, 1, is_whole=False)
    yield from repeat(ContinuationFrame(1, data=b""), 10_000)


def large_continuations(client: Http2Client) -> Iterator[Frame]:
    yield headers(client, 1, is_whole=False)
    yield from repeat(ContinuationFrame(1, data=b"\x00\x03abc\x7f" * 2000), 10)


def header_bomb(client: Http2Client) -> Iterator[Frame]:
    first = client.state.encoder.encode([*HEAD, ("x-bomb", "a" * 3000)])
    reference = b"\xbe" * 10_000  # the entry of the table that was made last
    frame = HeadersFrame(1, data=first + reference)
    frame.flags |= {"END_HEADERS", "END_STREAM"}
    yield frame


def empty_data(client: Http2Client) -> Iterator[Frame]:
    yield headers(client, 1, is_last=False)
    yield from repeat(DataFrame(1), 10_000)


def window_updates(_: Http2Client) -> Iterator[Frame]:
    yield from repeat(WindowUpdateFrame(0, window_increment=1), 10_000)


def unknown(_: Http2Client) -> Iterator[Frame]:
    yield from repeat(ExtensionFrame(0x42, 0, body=b""), 10_000)


@pytest.mark.parametrize(
    "flood",
    [
        rapid_reset,
        made_you_reset,
        continuations,
        large_continuations,
        header_bomb,
        empty_data,
        window_updates,
        unknown,
        lambda _: repeat(SettingsFrame(0), 10_000),
        lambda _: repeat(PingFrame(0, opaque_data=b"12345678"), 10_000),
        lambda _: repeat(PriorityFrame(1, depends_on=0, stream_weight=1), 10_000),
        lambda _: repeat(GoAwayFrame(0), 10_000),
    ],
)
async def test_a_flood_closes_the_connection(flood: Flood) -> None:
    async with Upstream() as upstream, proxied(upstream) as rig:
        async with http2(rig) as client:
            frames = flood(client)
            while piece := list(islice(frames, 500)):
                client.frames(*piece)
                await asyncio.sleep(0)
            [(code, _)] = await client.closed()
            assert code == CALM
        await rig.until(lambda: len(rig.proxy) == 0)
        assert rig.proxy.in_flight == 0
        server = rig.proxy.router.pools["live"].servers[0]
        await rig.until(lambda: server.in_flight == 0)


async def test_who_does_not_read_responses_is_not_read_from() -> None:
    async with Upstream() as upstream, proxied(upstream) as rig, http2(rig) as client:
        connection = await connection_of(rig)
        connection.pause_writing()
        assert not connection.transport.is_reading()
        stream = client.request()
        connection.resume_writing()
        assert (await client.result(stream)).status == 200


async def connection_of(rig: Rig) -> Http2Connection:
    def those() -> list[Http2Connection]:
        return [each for each in rig.proxy._connections if isinstance(each, Http2Connection)]  # noqa: SLF001

    await rig.until(those)
    return those()[0]


async def test_one_stream_too_many_is_refused_and_may_be_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_STREAMS", 3)
    async with Upstream(lambda *_: asyncio.sleep(60)) as upstream, proxied(upstream) as rig, http2(rig) as client:
        streams = [client.request() for _ in range(5)]
        for stream in streams[3:]:
            assert (await client.result(stream)).reset == ErrorCodes.REFUSED_STREAM
        await rig.until(lambda: rig.proxy.in_flight == 3)
        assert client.goaways == []


async def test_a_client_that_gives_no_window_times_out(quick_clock: None) -> None:  # noqa: ARG001
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000
    async with (
        Upstream(answer=answer) as upstream,
        proxied(upstream, proxy={"idle_seconds": 0.3}) as rig,
        http2(rig, takes_content=False) as client,
    ):
        result = await client.fetch()
        assert (result.status, len(result.body), result.has_ended) == (200, 65_535, False)
        assert result.reset in {ErrorCodes.INTERNAL_ERROR, ErrorCodes.CANCEL}
        await rig.until(lambda: rig.proxy.in_flight == 0)
        assert client.goaways == []


async def test_an_incomplete_block_times_out(quick_clock: None) -> None:  # noqa: ARG001
    async with Upstream() as upstream, proxied(upstream, server={"head_seconds": 0.2}) as rig, http2(rig) as client:
        assert (await client.fetch()).status == 200
        client.frames(headers(client, 3, is_whole=False))
        assert await client.closed() == [(ErrorCodes.NO_ERROR, 1)]


async def test_an_idle_connection_closes(quick_clock: None) -> None:  # noqa: ARG001
    async with (
        Upstream() as upstream,
        proxied(upstream, server={"keepalive_seconds": 0.2}) as rig,
        http2(rig) as client,
    ):
        assert (await client.fetch()).status == 200
        assert await client.closed() == [(ErrorCodes.NO_ERROR, 1)]
