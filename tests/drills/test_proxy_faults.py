"""Upstreams that are silent, slow or break off, and workers that are replaced under load."""

import asyncio
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.drills.test_proxy_load import answered, connected, head, run
from tests.redises.servers import running_server
from tests.serving.processes import Served, served

pytestmark = [pytest.mark.drill, pytest.mark.timeout(600)]
ONE_LIMIT = 'rate = "10000000/minute"\nconcurrency = 500\n'
FOUR_LIMITS = """
rate = ["10000000/minute", "100000000/hour"]
concurrency = 500
quota = "1000000000/month"
account = { rate = "10000000/minute", concurrency = 1000 }
"""


def test_an_upstream_that_is_silent_is_given_up_and_one_that_breaks_off_is_told(tmp_path: Path) -> None:
    with served(tmp_path, settings="[proxy]\nfirst_byte_seconds = 1") as gateway:

        async def ask() -> None:
            reader, writer = await connected(gateway)
            began_at = time.monotonic()
            writer.write(head("GET", "/public/silent"))
            assert await answered(reader) == 504
            assert 1 <= time.monotonic() - began_at < 3
            writer.write(head("GET", "/public/slow?0.5"))
            assert await answered(reader) == 200
            writer.write(head("GET", "/public/reset"))
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.read() == b"3\r\nabc\r\n"  # and no last chunk
            writer.close()

        run(ask)


@pytest.mark.parametrize("limits", [ONE_LIMIT, FOUR_LIMITS], ids=["one limit", "four limits"])
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_are_replaced_under_load_without_a_failed_request(tmp_path: Path, workers: int, limits: str) -> None:
    async def load(gateway: Served, secret: str, ends_at: float, counts: dict[int, int]) -> None:
        while time.monotonic() < ends_at:
            reader, writer = await connected(gateway)
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while time.monotonic() < ends_at:
                    writer.write(head("GET", "/v1/x", f"Authorization: Bearer {secret}"))
                    response_head = await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(
                        int(response_head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                    )
                    status = int(response_head.split(b" ", 2)[1])
                    counts[status] = counts.get(status, 0) + 1
                    if b"connection: close" in response_head.lower():
                        break
                writer.close()
                continue
            counts[0] = counts.get(0, 0) + 1  # a connection that ended without an answer

    with running_server() as server:
        redis = f'redis = "{server.url}"\n' if workers > 1 else ""
        settings = f"{redis}[tiers.enterprise]\n{limits}[server]\nworkers = {workers}"
        with served(tmp_path, settings=settings) as gateway:
            secret, counts = gateway.secret(tier="enterprise"), dict[int, int]()

            async def replace() -> None:
                ends_at = time.monotonic() + 20
                loads = [asyncio.create_task(load(gateway, secret, ends_at, counts)) for _ in range(16)]
                seen = [set(gateway.workers())]
                for _ in range(3):
                    await asyncio.sleep(5)
                    gateway.supervisor.send_signal(signal.SIGHUP)
                await asyncio.gather(*loads)
                seen.append(set(gateway.workers()))
                assert not seen[0] & seen[1]

            run(replace)
            print(f"\n{workers} worker(s) replaced 3 times under load: {counts}")
            assert set(counts) == {200}
