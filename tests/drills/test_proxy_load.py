"""The proxy under much of everything: bytes, idle connections, WebSockets, slow clients; memory and latency stay."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import quantiles

import pytest
import uvloop

from tests.serving.processes import ROOT, Served, served

pytestmark = [pytest.mark.drill, pytest.mark.timeout(600)]

MEBIBYTE = 1 << 20
GIBIBYTE = 1 << 30
PIECE = bytes(256 * 1024)
IDLE = 10_000
SOCKETS = 1000
SLOW = 500


def run(work: Callable[[], Awaitable[None]]) -> None:
    uvloop.run(work())  # type: ignore[arg-type]  # a coroutine each time


def head(method: str, path: str, *fields: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: drill", *fields, "", ""]).encode()


async def connected(gateway: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", gateway.port, limit=MEBIBYTE)


async def answered(reader: asyncio.StreamReader) -> int:
    """Read an answer of 2 bytes, or a refusal, and return its status."""
    response_head = await reader.readuntil(b"\r\n\r\n")
    length = int(response_head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    await reader.readexactly(length)
    return int(response_head.split(b" ", 2)[1])


def test_a_gibibyte_each_way_at_once_makes_it_grow_by_less_than_30_mb(tmp_path: Path) -> None:
    async def upload(gateway: Served) -> None:
        reader, writer = await connected(gateway)
        writer.write(head("POST", "/public/up", f"Content-Length: {GIBIBYTE}"))
        for _ in range(GIBIBYTE // len(PIECE)):
            writer.write(PIECE)
            await writer.drain()
        assert await answered(reader) == 200
        writer.close()

    async def download(gateway: Served) -> None:
        reader, writer = await connected(gateway)
        writer.write(head("GET", f"/public/down?{GIBIBYTE}"))
        await reader.readuntil(b"\r\n\r\n")
        left = GIBIBYTE
        while left:
            data = await reader.read(MEBIBYTE)
            assert data
            left -= len(data)
        writer.close()

    async def watch(gateway: Served, peaks: list[int]) -> None:
        while True:
            peaks.append(gateway.resident_bytes())
            await asyncio.sleep(0.1)

    with served(tmp_path) as gateway:

        async def both() -> None:
            reader, writer = await connected(gateway)
            writer.write(head("GET", "/public/x"))
            await answered(reader)
            before, peaks = gateway.resident_bytes(), list[int]()
            watching = asyncio.create_task(watch(gateway, peaks))
            began_at = time.monotonic()
            await asyncio.gather(upload(gateway), download(gateway))
            seconds = time.monotonic() - began_at
            watching.cancel()
            writer.close()
            grown = max(peaks) - before
            print(f"\n1 GiB up and 1 GiB down at once in {seconds:.1f} s: grew by {grown / 1e6:.1f} MB")
            assert grown < 30e6

        run(both)


def test_ten_thousand_idle_connections_take_less_than_20_kb_each(tmp_path: Path) -> None:
    # An idle connection needs no second file for an upstream; by default, there is one for each.
    settings = f"[server]\nkeepalive_seconds = 600\nmax_connections = {IDLE + 10}"
    with served(tmp_path, settings=settings) as gateway:

        async def hold() -> None:
            before, held = gateway.resident_bytes(), []
            for _ in range(IDLE // 100):
                held += await asyncio.gather(*(connected(gateway) for _ in range(100)))
            for reader, writer in held:  # each has been used: an idle connection is one between two requests
                writer.write(head("GET", "/public/x"))
                assert await answered(reader) == 200
            each = (gateway.resident_bytes() - before) / IDLE
            print(f"\n{IDLE} idle connections: {each / 1000:.1f} KB each")
            assert each < 20_000
            for _, writer in held:
                writer.close()

        run(hold)


def test_a_thousand_websockets_echo(tmp_path: Path) -> None:
    with served(tmp_path) as gateway:

        async def echo(number: int) -> float:
            reader, writer = await connected(gateway)
            writer.write(head("GET", "/public/echo", "Connection: Upgrade", "Upgrade: websocket"))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            began_at = time.monotonic()
            for turn in range(10):
                payload = b"%08d %02d" % (number, turn) * 20
                writer.write(payload)
                assert await reader.readexactly(len(payload)) == payload
            took = time.monotonic() - began_at
            writer.close()
            return took / 10

        async def all_at_once() -> None:
            took = await asyncio.gather(*(echo(number) for number in range(SOCKETS)))
            print(f"\n{SOCKETS} WebSockets, 10 messages each: {max(took) * 1000:.0f} ms a message at most")

        run(all_at_once)


def test_slow_heads_and_slow_bodies_hold_up_nobody_else(tmp_path: Path) -> None:
    async def good(gateway: Served, seconds: float) -> list[float]:
        took: list[float] = []
        ends_at = time.monotonic() + seconds

        async def one() -> None:
            reader, writer = await connected(gateway)
            while time.monotonic() < ends_at:
                began_at = time.perf_counter()
                writer.write(head("GET", "/public/x"))
                assert await answered(reader) == 200
                took.append(time.perf_counter() - began_at)
                await asyncio.sleep(0.01)
            writer.close()

        await asyncio.gather(*(one() for _ in range(16)))
        return took

    with served(tmp_path) as gateway:

        async def compare() -> None:
            await good(gateway, 1)  # warm
            alone = quantiles(await good(gateway, 6), n=100)[98]
            command = [sys.executable, "-m", "tests.drills.slow", str(gateway.port), str(SLOW)]
            with subprocess.Popen(command, cwd=ROOT) as slow:  # noqa: ASYNC220 - starting it is all that blocks
                await asyncio.sleep(3)  # until all of them are there
                beside = quantiles(await good(gateway, 6), n=100)[98]
                assert slow.poll() is None
                slow.kill()
            print(f"\np99 of good requests: {alone * 1000:.2f} ms, beside {2 * SLOW} slow ones {beside * 1000:.2f} ms")
            assert beside < 2 * alone

        run(compare)
