"""How workers are replaced by new ones: nobody outside can tell."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from machpay_gateway.proxy.websocket_frames import close_frame
from tests.drills.test_proxy_load import connected, head
from tests.serving.processes import Served, served
from tests.serving.test_lifecycle import PATIENCE_SECONDS, ask, is_alive, status, until
from tests.serving.test_stopping import ready

pytestmark = pytest.mark.xdist_group("replacing")

READY_AT_ONCE = b"GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n"
SILENT = b"GET /public/silent HTTP/1.1\r\nHost: a\r\n\r\n"
SLOW = b"GET /public/slow?2 HTTP/1.1\r\nHost: a\r\n\r\n"


async def load(gateway: Served, is_over: asyncio.Event, statuses: list[int], request: bytes) -> None:
    """Send *request* again and again, on a new connection whenever one is closed after its answer, until *is_over*."""
    while not is_over.is_set():
        reader, writer = await connected(gateway)
        try:
            while not is_over.is_set():
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
                statuses.append(status(head))
                if b"\r\nconnection: close\r\n" in head:
                    break
                await asyncio.sleep(0.005)  # or new workers would wait for a processor instead of requests for them
        except (asyncio.IncompleteReadError, ConnectionError):
            statuses.append(0)
        writer.close()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One worker, and no Redis."""
    with served(tmp_path_factory.mktemp("alone"), management="127.0.0.1:0") as gateway:
        yield gateway


@pytest.fixture(scope="module")
def control_plane_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One worker that serves the control plane alone, and no Redis."""
    settings = '[tiers.standard]\nrate = "1000000/minute"\nconcurrency = 1000\n[server]\ncontrol_plane = "only"'
    with served(tmp_path_factory.mktemp("asked"), management="127.0.0.1:0", settings=settings) as gateway:
        yield gateway


@pytest.mark.parametrize("number, code", [(signal.SIGHUP, 1012), (signal.SIGTERM, 1001)])
def test_an_open_websocket_gets_a_close_frame_when_its_worker_ends(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with served(tmp_path) as gateway, socket.create_connection(("127.0.0.1", gateway.port)) as caller:
        caller.settimeout(PATIENCE_SECONDS)
        caller.sendall(b"GET /public/echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert status(caller.recv(65536)) == 101
        gateway.supervisor.send_signal(number)
        assert caller.recv(65536) == close_frame(code)
        caller.shutdown(socket.SHUT_WR)
        assert caller.recv(65536) == b""  # the end of the connection, and no reset


def hang_up(gateway: Served, *, message: str = "are reloaded") -> Callable[[], bool]:
    """Send SIGHUP, and return a function that tells whether the log has a new *message*."""
    before = gateway.log.count(message)
    gateway.supervisor.send_signal(signal.SIGHUP)
    return lambda: gateway.log.count(message) > before


@pytest.mark.parametrize(
    "group, workers, path",
    [("alone", 1, "/public/x"), ("several", 2, "/public/x"), ("control_plane_only", 1, "/v1/whoami")],
)
def test_no_request_under_way_or_after_fails(
    request: pytest.FixtureRequest, group: str, workers: int, path: str
) -> None:
    gateway: Served = request.getfixturevalue(group)
    sent = head("GET", path, f"Authorization: Bearer {gateway.secret()}")
    statuses: list[int] = []

    async def replace() -> None:
        before, is_over = set(gateway.workers()), asyncio.Event()
        loads = [asyncio.create_task(load(gateway, is_over, statuses, sent)) for _ in range(8)]
        await asyncio.to_thread(until, hang_up(gateway))
        await asyncio.to_thread(until, lambda: not before & set(gateway.workers()))
        is_over.set()
        await asyncio.gather(*loads)

    asyncio.run(replace())
    assert set(statuses) == {200}
    assert len(gateway.workers()) == workers


def test_what_no_worker_can_start_by_leaves_the_old_ones_serving(alone: Served) -> None:
    settings, before = alone.folder / "machpay.toml", alone.workers()
    right = settings.read_text()
    settings.write_text(right.replace("machpay.db", "nowhere/machpay.db"))
    try:
        until(hang_up(alone, message="the old ones stay in effect"))
    finally:
        settings.write_text(right)
    assert "nowhere is not a directory, make it first" in alone.log
    assert alone.workers() == before
    assert status(ask(alone)) == 200


def test_new_settings_hold_while_a_worker_still_drains_that_gave_way_to_earlier_ones(alone: Served) -> None:
    (old,) = alone.workers()
    with socket.create_connection(("127.0.0.1", alone.port)) as unanswered:
        unanswered.sendall(READY_AT_ONCE)
        assert status(unanswered.recv(65536)) == 200  # by the old one
        unanswered.sendall(SILENT)
        until(hang_up(alone))
        until(hang_up(alone))
        assert is_alive(old)
    until(lambda: len(alone.workers()) == 1)
    assert status(ask(alone)) == 200


def test_a_worker_that_gave_way_decides_what_still_comes_and_takes_nothing_back(alone: Served) -> None:
    secret = alone.secret().encode()  # which no worker has seen yet
    with socket.create_connection(("127.0.0.1", alone.port)) as idle:
        idle.settimeout(PATIENCE_SECONDS)
        idle.sendall(READY_AT_ONCE)
        assert status(idle.recv(65536)) == 200  # by the old one
        until(hang_up(alone))
        idle.sendall(b"GET /v1/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n\r\n" % secret)
        assert status(idle.recv(65536)) == 200
    assert "does not answer" not in alone.log
    until(lambda: len(alone.workers()) == 1)


def test_operators_hear_nothing_of_a_worker_that_drains_while_others_serve(alone: Served) -> None:
    (old,) = alone.workers()
    with socket.create_connection(("127.0.0.1", alone.port)) as slow:
        slow.sendall(SLOW)
        time.sleep(0.3)  # until it is under way
        is_told = hang_up(alone)
        statuses_after: list[int] = []

        def is_replaced() -> bool:
            statuses_after.append(ready(f"{alone.management}/readyz")[0])
            return is_told()

        until(is_replaced)
        statuses_after += [ready(f"{alone.management}/readyz")[0] for _ in range(20)]
        assert is_alive(old)
        assert set(statuses_after) == {200}
        assert status(slow.recv(65536)) == 200
    until(lambda: not is_alive(old) and len(alone.workers()) == 1)


def test_a_worker_that_dies_while_others_are_replaced_makes_none_too_many(alone: Served) -> None:
    (worker,) = alone.workers()
    os.kill(worker, signal.SIGKILL)
    until(lambda: "died with status" in alone.log)
    until(hang_up(alone))
    time.sleep(1.0)  # longer than the pause before another one would come
    assert len(alone.workers()) == 1
    assert status(ask(alone)) == 200
