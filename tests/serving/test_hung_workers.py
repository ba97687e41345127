"""Workers that no longer run, though their process is there: the supervisor replaces them."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.redises.servers import running_server
from tests.serving.processes import Served, served
from tests.serving.test_lifecycle import ask, is_alive, new_log, status, until
from tests.serving.test_metrics import ANYWHERE, value

pytestmark = pytest.mark.xdist_group("hung workers")

REPLACED_SECONDS = 15.0
SILENT_SECONDS = 6.0  # after which a worker counts as hung
# SIGUSR2 blocks a worker's event loop, and SLOW_START_SECONDS its start.
SITE = """
import os, signal, sys, time
if sys.argv[0] == "-m":  # a worker
    def block(*_):
        open(os.environ["BLOCKED"], "w").close()
        time.sleep(3600)
    signal.signal(signal.SIGUSR2, block)
    time.sleep(float(os.environ.get("SLOW_START_SECONDS", "0")))
"""


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("hung")
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SITE)
    with running_server() as redis:
        settings = f'redis = "{redis.url}"\n[server]\nworkers = 2'
        environ = {"PYTHONPATH": str(folder / "site"), "BLOCKED": str(folder / "blocked")}
        with served(folder, settings=settings, management=ANYWHERE, environ=environ) as gateway:
            yield gateway


def stop(_gateway: Served, worker: int) -> None:
    os.kill(worker, signal.SIGSTOP)


def block(gateway: Served, worker: int) -> None:
    os.kill(worker, signal.SIGUSR2)
    until((gateway.folder / "blocked").exists)  # until then, it accepts connections


@pytest.mark.parametrize("hang", [stop, block])
def test_a_worker_that_hangs_is_replaced_while_the_other_one_serves(
    two_workers: Served, hang: Callable[[Served, int], None]
) -> None:
    until(lambda: value(two_workers, "machpay_workers") == 2)
    (hung, other), log = two_workers.workers(), new_log(two_workers)
    hang(two_workers, hung)
    began_at, slowest = time.monotonic(), 0.0
    while hung in two_workers.workers() or len(two_workers.workers()) < 2 or status(ask(two_workers)) != 200:
        asked_at = time.monotonic()
        assert status(ask(two_workers)) == 200
        slowest = max(slowest, time.monotonic() - asked_at)
        assert asked_at - began_at < REPLACED_SECONDS
    assert slowest < 1.0
    until(lambda: value(two_workers, "machpay_workers") == value(two_workers, "machpay_workers_wanted") == 2)
    assert time.monotonic() - began_at < REPLACED_SECONDS
    assert other in two_workers.workers()
    assert f"Worker {hung} has not reported for 6 s: it is stopped, or its event loop hangs. It is killed." in log()
    assert log().count("died with status -9") == 1


def test_no_worker_is_killed_because_the_whole_host_was_stopped(two_workers: Served) -> None:
    workers, log = two_workers.workers(), new_log(two_workers)
    processes = [two_workers.supervisor.pid, *workers]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    time.sleep(SILENT_SECONDS + 2.0)
    for process in processes:  # the supervisor first: it sees what was not reported before the others can report
        os.kill(process, signal.SIGCONT)
    time.sleep(2.0)  # longer than the pause between two heartbeats
    assert [status(ask(two_workers)) for _ in range(20)] == [200] * 20
    assert two_workers.workers() == workers
    assert log() == ""


def test_a_supervisor_that_was_stopped_alone_kills_no_worker(two_workers: Served) -> None:
    workers, log = two_workers.workers(), new_log(two_workers)
    two_workers.supervisor.send_signal(signal.SIGSTOP)
    time.sleep(SILENT_SECONDS + 2.0)
    two_workers.supervisor.send_signal(signal.SIGCONT)
    time.sleep(2.0)
    assert two_workers.workers() == workers
    assert log() == ""


def test_a_start_may_take_longer_than_a_heartbeat(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITE)
    environ = {"PYTHONPATH": str(tmp_path), "SLOW_START_SECONDS": str(SILENT_SECONDS + 2.0)}
    with served(tmp_path, environ=environ) as gateway:
        assert status(ask(gateway)) == 200
        assert "killed" not in gateway.log


def test_a_stop_does_not_wait_for_a_worker_that_hangs(tmp_path: Path) -> None:
    with served(tmp_path) as gateway:
        (worker,) = gateway.workers()
        stop(gateway, worker)
        began_at = time.monotonic()
        gateway.supervisor.terminate()
        until(lambda: not is_alive(worker))
        assert time.monotonic() - began_at < REPLACED_SECONDS
        assert gateway.supervisor.wait(REPLACED_SECONDS) == 0


def test_a_worker_that_dies_again_and_again_is_started_ever_more_rarely(tmp_path: Path) -> None:
    with served(tmp_path) as gateway:
        died, pauses = time.monotonic(), []
        for _ in range(4):
            (worker,) = gateway.workers()
            os.kill(worker, signal.SIGKILL)
            died = time.monotonic()
            until(lambda: gateway.workers() not in ([], [worker]))  # noqa: B023 - it is called at once
            pauses.append(time.monotonic() - died)
            until(lambda: status(ask(gateway)) == 200)
    assert [pause >= least for pause, least in zip(pauses, (0.5, 1.0, 2.0, 4.0), strict=True)] == [True] * 4
    assert pauses[0] < 2.0
