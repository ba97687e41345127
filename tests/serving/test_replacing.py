"""How workers are replaced by new ones: nobody outside can tell."""

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.drills.test_proxy_load import connected, head
from tests.redises.servers import running_server
from tests.serving.processes import Served, served
from tests.serving.test_lifecycle import ask, is_alive, status, until
from tests.serving.test_stopping import ready

SLOW = b"GET /public/slow?2 HTTP/1.1\r\nHost: a\r\n\r\n"


async def load(gateway: Served, is_over: asyncio.Event, statuses: list[int]) -> None:
    """Ask without a pause, on a new connection whenever one is closed after its answer, until *is_over*."""
    while not is_over.is_set():
        reader, writer = await connected(gateway)
        try:
            while not is_over.is_set():
                writer.write(head("GET", "/public/x"))
                told = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
                statuses.append(status(told))
                if b"\r\nConnection: close\r\n" in told:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            statuses.append(0)
        writer.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_no_request_under_way_or_after_fails(tmp_path: Path, workers: int) -> None:
    statuses: list[int] = []
    with running_server() as redis:
        counting = f'redis = "{redis.url}"\n' if workers > 1 else ""
        with served(tmp_path, settings=f"{counting}[server]\nworkers = {workers}") as gateway:

            async def replace() -> None:
                before, is_over = set(gateway.workers()), asyncio.Event()
                loads = [asyncio.create_task(load(gateway, is_over, statuses)) for _ in range(8)]
                gateway.supervisor.send_signal(signal.SIGHUP)
                await asyncio.to_thread(until, lambda: "are read anew" in gateway.log)
                await asyncio.to_thread(until, lambda: not before & set(gateway.workers()))
                is_over.set()
                await asyncio.gather(*loads)

            asyncio.run(replace())
            assert len(gateway.workers()) == workers
    assert set(statuses) == {200}


def test_what_no_worker_can_start_by_leaves_the_old_ones_serving(tmp_path: Path) -> None:
    with served(tmp_path) as gateway:
        settings, before = tmp_path / "machpay.toml", gateway.workers()
        settings.write_text(settings.read_text().replace("machpay.db", "nowhere/machpay.db"))
        gateway.supervisor.send_signal(signal.SIGHUP)
        until(lambda: "the old ones stay" in gateway.log)
        assert "nowhere is not a directory, make it first" in gateway.log
        assert gateway.workers() == before
        assert status(ask(gateway)) == 200


def test_operators_hear_nothing_of_a_worker_that_drains_while_others_serve(tmp_path: Path) -> None:
    with served(tmp_path, management="127.0.0.1:0") as gateway:
        (old,) = gateway.workers()
        with socket.create_connection(("127.0.0.1", gateway.port)) as slow:
            slow.sendall(SLOW)
            time.sleep(0.3)  # until it is under way
            gateway.supervisor.send_signal(signal.SIGHUP)
            heard: list[int] = []

            def is_replaced() -> bool:
                heard.append(ready(f"{gateway.management}/readyz")[0])
                return "are read anew" in gateway.log

            until(is_replaced)
            heard += [ready(f"{gateway.management}/readyz")[0] for _ in range(20)]
            assert is_alive(old)
            assert set(heard) == {200}
            assert status(slow.recv(65536)) == 200


def test_a_worker_that_dies_while_others_are_replaced_makes_none_too_many(tmp_path: Path) -> None:
    with served(tmp_path) as gateway:
        (worker,) = gateway.workers()
        os.kill(worker, signal.SIGKILL)
        until(lambda: "has died" in gateway.log)
        gateway.supervisor.send_signal(signal.SIGHUP)
        until(lambda: "are read anew" in gateway.log)
        time.sleep(1.0)  # longer than the pause before another one would come
        assert len(gateway.workers()) == 1
        assert status(ask(gateway)) == 200
