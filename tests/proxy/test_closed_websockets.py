"""The gateway ends a WebSocket as an endpoint would: a Close frame, then the end of the connection."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
from websockets.frames import Frame, Opcode

from tests.proxy.harness import Client, Rig, Upstream, proxied, request

ASK = ("Connection: Upgrade", "Upgrade: websocket")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n"
MESSAGE = Frame(Opcode.TEXT, b"hello").serialize(mask=False)


def close(code: int, *, mask: bool = False) -> bytes:
    return Frame(Opcode.CLOSE, struct.pack("!H", code)).serialize(mask=mask)


class Open(NamedTuple):
    """An open tunnel: the caller's side, and the upstream's."""

    rig: Rig
    client: Client
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    secret: str


@asynccontextmanager
async def open_tunnel(protocol: str = "websocket") -> AsyncIterator[Open]:
    sides = asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]()
    is_over = asyncio.Event()

    async def switching(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH % protocol.encode())
        sides.put_nowait((reader, writer))
        await is_over.wait()

    async with Upstream(switching) as upstream, proxied(upstream) as rig, rig.client() as client:
        secret = await rig.secret()
        await client.send(request("GET", "/v1/x", "Connection: Upgrade", f"Upgrade: {protocol}", secret=secret))
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        reader, writer = await sides.get()
        yield Open(rig, client, reader, writer, secret)
        is_over.set()


@pytest.mark.parametrize("code", [1001, 1012])
async def test_a_drain_says_close_and_passes_the_answer_on(code: int) -> None:
    async with open_tunnel() as it:
        draining = asyncio.create_task(it.rig.proxy.close(drain_seconds=20, close_code=code))
        assert await it.client.reader.readexactly(4) == close(code)
        it.client.writer.write(close(code, mask=True))
        assert len(await it.reader.readexactly(8)) == 8  # the answer, which ends the upstream's side
        it.writer.write(close(code) + MESSAGE)  # nothing may follow our Close frame
        it.writer.close()
        assert await it.client.reader.read() == b""
        await asyncio.wait_for(draining, 5)


async def test_the_close_frame_waits_for_the_end_of_a_frame() -> None:
    async with open_tunnel() as it:
        it.writer.write(MESSAGE + MESSAGE[:4])
        assert await it.client.reader.readexactly(len(MESSAGE) + 4) == MESSAGE + MESSAGE[:4]
        draining = asyncio.create_task(it.rig.proxy.close(drain_seconds=20))
        await asyncio.sleep(0.2)  # for the drain to have begun
        it.writer.write(MESSAGE[4:] + MESSAGE)
        assert await it.client.reader.readexactly(len(MESSAGE)) == MESSAGE[4:] + close(1001)
        it.writer.close()
        await asyncio.wait_for(draining, 5)


async def test_a_client_that_does_not_answer_gets_the_end_of_the_connection_and_no_reset() -> None:
    async with open_tunnel() as it:
        await it.rig.proxy.close(drain_seconds=0.3)
        assert await it.client.reader.read() == close(1001)


async def test_another_protocol_gets_no_close_frame() -> None:
    async with open_tunnel("chat") as it:
        await it.rig.proxy.close(drain_seconds=0.3)
        with pytest.raises(ConnectionError):
            await it.client.reader.read()


async def test_a_revoked_key_ends_its_websocket_with_a_policy_violation() -> None:
    async with open_tunnel() as it:
        account = await it.rig.gateway.accounts.find("standard")
        assert account is not None
        for key in await it.rig.gateway.keys.list(account.id):
            await it.rig.gateway.keys.revoke(account.id, key.id)
        forwarder = it.rig.connections[0].forwarder
        assert forwarder is not None
        await forwarder.recheck()
        assert await it.client.reader.read() == close(1008)
        assert await it.reader.read() == b""


async def test_websockets_are_closed_over_the_whole_drain() -> None:
    """All clients at once would connect again at once."""
    async with open_tunnel() as it:
        others = [it.rig.client() for _ in range(3)]
        clients = [await other.__aenter__() for other in others]
        for client in clients:
            await client.send(request("GET", "/v1/x", *ASK, secret=it.secret))
            assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        draining = asyncio.create_task(it.rig.proxy.close(drain_seconds=4))
        loop = asyncio.get_running_loop()
        began_at = loop.time()

        async def told(client: Client) -> float:
            assert await client.reader.readexactly(4) == close(1001)
            return loop.time() - began_at

        moments = sorted(await asyncio.gather(*map(told, [it.client, *clients])))
        assert moments[0] < 0.5
        assert moments[-1] - moments[0] > 1
        await draining
        for other in others:
            await other.__aexit__(None, None, None)
