"""An upgraded connection is bytes both ways; what was not asked for, or would hide requests, is no upgrade."""

import asyncio
import fcntl
import sys
import termios

import pytest

from machpay_gateway import Tier
from machpay_gateway.proxy.websocket_frames import close_frame
from tests.proxy.harness import OK, Client, Rig, Upstream, fields_of, proxied, request, reset

_ASK = ("Connection: Upgrade", "Upgrade: websocket")
_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Kept: 1\r\n\r\n"


class _Switching:
    """An upstream that switches, and hands its side of the tunnel to the test."""

    def __init__(self, early: bytes = b"") -> None:
        self.early = early
        self.heads: list[bytes] = []
        self.sides = asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]()
        self.ended = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(_SWITCH + self.early)
        self.sides.put_nowait((reader, writer))
        await self.ended.wait()


async def request_upgrade(rig: Rig, client: Client, *fields: str, more: bytes = b"") -> None:
    await client.send(request("GET", "/v1/x", *(fields or _ASK), secret=await rig.secret()) + more)


async def test_bytes_after_the_handshake_belong_to_the_tunnel() -> None:
    switching = _Switching(early=b"from the upstream")
    async with Upstream(switching) as upstream, proxied(upstream) as rig, rig.client() as client:
        await request_upgrade(rig, client, more=request("GET", "/v1/nowhere"))
        head = await client.head()
        fields = fields_of(head)
        assert (fields["upgrade"], fields["connection"], fields["x-kept"]) == (["websocket"], ["Upgrade"], ["1"])
        assert await client.reader.readexactly(17) == b"from the upstream"
        reader, _ = await switching.sides.get()
        assert await reader.readuntil(b"\r\n\r\n") == request("GET", "/v1/nowhere")  # bytes, and no request of ours
        forwarded = fields_of(switching.heads[0])
        assert (forwarded["connection"], forwarded["upgrade"]) == (["Upgrade"], ["websocket"])
        assert "authorization" not in forwarded
        switching.ended.set()


@pytest.mark.parametrize("first", ["client", "upstream"])
async def test_each_direction_ends_separately(first: str) -> None:
    switching = _Switching()
    async with Upstream(switching) as upstream, proxied(upstream) as rig, rig.client() as client:
        await request_upgrade(rig, client)
        await client.head()
        reader, writer = await switching.sides.get()
        ours, theirs = (client.writer, reader) if first == "client" else (writer, client.reader)
        back, there = (writer, client.reader) if first == "client" else (client.writer, reader)
        ours.write(b"last words")
        ours.write_eof()
        assert await asyncio.wait_for(theirs.read(), 3) == b"last words"
        back.write(b"still here")
        assert await asyncio.wait_for(there.readexactly(10), 3) == b"still here"
        back.write_eof()
        assert await asyncio.wait_for(there.read(), 3) == b""
        await rig.until(lambda: not len(rig.proxy))
        switching.ended.set()


@pytest.mark.parametrize("first", ["client", "upstream"])
async def test_a_tunnel_with_one_lost_side_frees_its_slot(first: str) -> None:
    switching = _Switching()
    tiers = {"standard": Tier("1000/minute", concurrency=1)}
    async with Upstream(switching) as upstream, proxied(upstream, tiers=tiers) as rig, rig.client() as client:
        secret = await rig.secret()
        await client.send(request("GET", "/v1/x", *_ASK, secret=secret))
        await client.head()
        reader, writer = await switching.sides.get()
        async with rig.client() as other:
            await other.send(request("GET", "/v1/x", secret=secret))
            assert (await other.answer())[0] == 429  # it holds a slot as any request does
            reset(client.writer if first == "client" else writer)
            assert await asyncio.wait_for((reader if first == "client" else client.reader).read(), 3) == b""
            await rig.until(lambda: len(rig.proxy) == 1)
            await other.send(request("GET", "/v1/x", *_ASK, secret=secret))
            assert (await other.head()).startswith(b"HTTP/1.1 101 ")
        assert [ended.status for ended in rig.ended] == [101, 429, 101]  # counted once each, when it begins
        switching.ended.set()


@pytest.mark.parametrize("first", ["client", "upstream"])
async def test_the_last_bytes_of_a_lost_side_reach_the_other_one_if_that_reads_late(first: str) -> None:
    switching = _Switching()
    async with Upstream(switching) as upstream, proxied(upstream) as rig, rig.client() as client:
        await request_upgrade(rig, client)
        await client.head()
        reader, writer = await switching.sides.get()
        client_side = rig.connections[0].transport
        assert rig.connections[0].forwarder is not None
        upstream_connection = rig.connections[0].forwarder._upstream  # noqa: SLF001 - whose buffer has to be full
        assert upstream_connection is not None
        source, target = client_side, upstream_connection.transport
        sending, receiving = client.writer, reader
        if first == "upstream":
            source, target = target, source
            sending, receiving = writer, client.reader
        sent = await _fill(rig, sending, source, target)
        reset(sending)
        await rig.until(source.is_closing)
        await rig.until(target.is_closing)
        received = await asyncio.wait_for(receiving.read(), 10)
        assert len(received) == sent
        switching.ended.set()


async def _fill(
    rig: Rig, writer: asyncio.StreamWriter, source: asyncio.WriteTransport, target: asyncio.WriteTransport
) -> int:
    """Write until the proxy, which reads at *source*, has something in its own buffer for *target*; return how much."""
    sent = 0
    while not target.get_write_buffer_size():
        writer.write(bytes(16 * 1024))
        sent += 16 * 1024
        await rig.until(lambda: not writer.transport.get_write_buffer_size())
        await rig.until(
            lambda: not _queued(writer.transport, termios.TIOCOUTQ) and not _queued(source, termios.FIONREAD)
        )
    return sent


def _queued(transport: asyncio.WriteTransport, what: int) -> int:
    """Return how many bytes the kernel holds for *transport*."""
    result = fcntl.ioctl(transport.get_extra_info("socket").fileno(), what, bytes(4))
    return int.from_bytes(result, sys.byteorder)


@pytest.mark.parametrize("status", [b"200 OK", b"400 Bad Request", b"426 Upgrade Required"])
async def test_a_declined_upgrade_is_a_regular_request(status: bytes) -> None:
    answer = OK.replace(b"200 OK", status)
    async with Upstream(answer=answer) as upstream, proxied(upstream) as rig, rig.client() as client:
        await request_upgrade(rig, client, more=request("GET", "/public/next"))
        assert (await client.answer())[0] == int(status[:3])
        assert (await client.answer())[0] == int(status[:3])
        assert [head.split()[1] for head in upstream.heads] == [b"/v1/x", b"/public/next"]


@pytest.mark.parametrize(
    "fields",
    [
        ("Upgrade: websocket",),  # not named by Connection
        ("Connection: Upgrade",),
        ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
        ("Connection: Upgrade", "Upgrade: H2C"),
        ("Connection: Upgrade", "Upgrade: HTTP/2.0"),
        ("Connection: Upgrade", "Upgrade: TLS/1.2"),  # what would be in it nobody could see
        ("Connection: Upgrade", "Upgrade: websocket, h2c"),
        ("Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"),
        ("Connection: Upgrade", "Upgrade:"),
        ("Connection: Upgrade", "Upgrade: web socket"),
        (*_ASK, "Content-Length: 3"),  # a body and another protocol after it: some servers mix them up
    ],
)
@pytest.mark.parametrize("is_switching", [False, True])
async def test_unsupported_upgrades_are_not_forwarded(fields: tuple[str, ...], is_switching: bool) -> None:  # noqa: FBT001 - a table's column
    async with Upstream(answer=_SWITCH if is_switching else OK) as upstream, proxied(upstream) as rig:
        async with rig.client() as client:
            await request_upgrade(rig, client, *fields, more=b"abc" if "Content-Length: 3" in fields else b"")
            assert (await client.answer())[0] == (502 if is_switching else 200)
        forwarded = fields_of(upstream.heads[0])
        assert not {"upgrade", "connection", "http2-settings"} & set(forwarded)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: \xe2\x84\xaaebsocket\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
    ],
)
async def test_a_switch_to_another_protocol_than_requested_becomes_a_502(answer: bytes) -> None:
    async with Upstream(answer=answer) as upstream, proxied(upstream) as rig, rig.client() as client:
        await request_upgrade(rig, client)
        assert (await client.answer())[0] == 502


async def test_http_1_0_has_no_upgrade() -> None:
    async with Upstream() as upstream, proxied(upstream) as rig:
        await rig.exchange(b"GET /public/x HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert "upgrade" not in fields_of(upstream.heads[0])


async def test_an_upgrade_is_decided_as_any_request() -> None:
    async with Upstream() as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request("GET", "/v1/x", *_ASK))
        assert (await client.answer())[0] == 401
        await client.send(request("GET", "/v1/x", *_ASK, secret=await rig.secret(scopes=["skills:list"])))
        assert (await client.answer())[0] == 403
        assert upstream.connections == 0


async def test_a_tunnel_applies_backpressure() -> None:
    switching = _Switching()
    async with (
        Upstream(switching) as upstream,
        proxied(upstream, buffer=8 * 1024) as rig,
        rig.client(buffer=8 * 1024) as client,
        rig.client() as other,
    ):
        await request_upgrade(rig, client)
        await client.head()
        _, writer = await switching.sides.get()
        writer.write(bytes(30_000_000))
        writer.write_eof()
        for _ in range(50):
            await other.send(request("GET", "/nowhere"))
            await other.answer()
        assert rig.connections[0].transport.get_write_buffer_size() < 1_000_000
        read = 0
        while piece := await asyncio.wait_for(client.reader.read(1_000_000), 3):
            read += len(piece)
        assert read == 30_000_000
        switching.ended.set()


async def test_a_client_that_does_not_read_the_rest_of_a_tunnel_times_out() -> None:
    switching = _Switching()
    async with (
        Upstream(switching) as upstream,
        proxied(upstream, buffer=8 * 1024) as rig,
        rig.client(buffer=8 * 1024) as client,
    ):
        await request_upgrade(rig, client)
        await client.head()
        _, writer = await switching.sides.get()
        writer.write(bytes(60_000))
        connection = rig.connections[0]
        await rig.until(connection.transport.get_write_buffer_size)
        reset(writer)
        await rig.until(connection.transport.is_closing)
        for _ in range(3):
            assert connection.forwarder is None
            connection.expire()
        await rig.until(lambda: not len(rig.proxy))
        switching.ended.set()


@pytest.mark.parametrize("sender", ["client", "upstream"])
async def test_a_tunnel_ends_when_it_is_idle_for_too_long(sender: str) -> None:
    switching = _Switching()
    async with (
        Upstream(switching) as upstream,
        proxied(upstream, proxy={"tunnel_idle_seconds": 100.0, "idle_seconds": 1.0}) as rig,
        rig.client() as client,
    ):
        await request_upgrade(rig, client)
        await client.head()
        reader, writer = await switching.sides.get()
        (connection,) = rig.connections
        forwarder = connection.forwarder
        assert forwarder is not None
        due = forwarder.due
        ours, theirs = (client.writer, reader) if sender == "client" else (writer, client.reader)
        ours.write(b"more")
        assert await theirs.readexactly(4) == b"more"
        rig.proxy.check_timeouts(due)
        assert due < forwarder.due < due + 100.0  # from the last byte on
        assert forwarder.tunnel is not None
        forwarder.tunnel.active_at -= 100.0
        rig.proxy.check_timeouts(forwarder.due)
        # The upstream has sent no complete frame, or none at all; inside a frame, no Close frame may begin.
        assert await client.reader.read() == (close_frame(1001) if sender == "client" else b"")
        assert await reader.read() == b""
        client.writer.close()
        await rig.until(lambda: not len(rig.proxy))
        switching.ended.set()
