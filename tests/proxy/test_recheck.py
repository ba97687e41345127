"""What goes on for long: its credential is looked at again, and a revoked or expired one ends it."""

import asyncio
import time

import pytest

from tests.proxy.harness import PATIENCE_SECONDS, Client, Rig, Upstream, proxied, request

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket")


class Streaming:
    """An upstream that begins and goes on until its connection ends."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH if b"Upgrade: websocket" in head else EVENTS)
        await reader.read()
        self.ended.set()


def look(rig: Rig, *, after: float = 21) -> None:
    """Let the time come at which credentials are looked at."""
    rig.proxy.check_timeouts(time.monotonic() + after)


async def begin_stream(client: Client, secret: str, *fields: str) -> None:
    await client.send(request("GET", "/v1/x", *fields, secret=secret))
    await client.head()


@pytest.mark.parametrize("fields", [(), UPGRADE], ids=["events", "websocket"])
async def test_a_revoked_key_ends_its_streams(fields: tuple[str, ...]) -> None:
    streaming = Streaming()
    async with Upstream(streaming) as upstream, proxied(upstream) as rig, rig.client() as client:
        secret = await rig.secret()
        await begin_stream(client, secret, *fields)
        look(rig)
        await asyncio.sleep(0.05)
        assert not streaming.ended.is_set()

        (key,) = await rig.gateway.keys.list(None)
        await rig.gateway.keys.revoke(None, key.id)
        look(rig, after=42)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await streaming.ended.wait()
        assert not (await client.rest()).endswith(b"0\r\n\r\n")


async def test_an_expired_key_ends_its_streams() -> None:
    streaming = Streaming()
    async with Upstream(streaming) as upstream, proxied(upstream) as rig, rig.client() as client:
        account = await rig.gateway.accounts.create("a", "standard")
        _, secret = await rig.gateway.keys.create(
            account.id, name="a", scopes=["skills:execute"], environment="live", expires_at=time.time() + 0.3
        )
        await begin_stream(client, secret)
        await asyncio.sleep(0.35)  # the key's own clock is the wall's
        look(rig)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await streaming.ended.wait()


async def test_streams_of_public_routes_are_not_ended() -> None:
    streaming = Streaming()
    async with Upstream(streaming) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request("GET", "/public/x"))
        await client.head()
        look(rig)
        await asyncio.sleep(0.05)
        assert not streaming.ended.is_set()
