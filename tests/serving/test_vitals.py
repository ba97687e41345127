"""What workers report of themselves: clock, policy, event loop, process."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.redises.servers import running_server
from tests.serving.processes import Served, served
from tests.serving.test_lifecycle import ask, status, until
from tests.serving.test_metrics import ANYWHERE, samples_of, scraped, value

# A worker's clock is an hour ahead, but for the times of files. SIGUSR2 blocks its event loop for half a second.
SITE = """
import signal, sys, time
_real = time.time
_sleep = time.sleep
def _ahead():
    return _real() + (0 if sys._getframe(1).f_globals["__name__"].endswith("snapshots") else 3600)
if sys.argv[0] == "-m":
    time.time = _ahead
    signal.signal(signal.SIGUSR2, lambda *_: _sleep(0.5))
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("vitals")
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SITE.replace("3600", "0"))
    with served(folder, management=ANYWHERE, environ={"PYTHONPATH": str(folder / "site")}) as gateway:
        yield gateway


def digests(gateway: Served) -> dict[str, float]:
    samples = samples_of(scraped(gateway)[0])
    return {it.labels["digest"]: it.value for it in samples if it.name == "machpay_policy_info"}


def test_a_worker_whose_clock_is_off_says_so(tmp_path: Path, postgres_url: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITE)
    environ = {"PYTHONPATH": str(tmp_path), "MACHPAY_DATABASE": postgres_url}
    with (
        running_server() as redis,
        served(tmp_path, settings=f'redis = "{redis.url}"', management=ANYWHERE, environ=environ) as gateway,
    ):
        for server in ("redis", "database"):
            until(partial(value, gateway, "machpay_clock_skew_seconds", against=server))
            assert value(gateway, "machpay_clock_skew_seconds", against=server) == pytest.approx(3600, abs=1.0)
        for part, expected in {"size": {10}, "in_use": range(11), "waiting": {0}}.items():
            assert value(gateway, f"machpay_database_pool_{part}", pool="server") in expected


def test_a_host_with_another_policy_shows(alone: Served, tmp_path: Path) -> None:
    with ExitStack() as stack:
        hosts = [alone]
        for number, settings in enumerate(("", "[tiers.standard]\nrate = '999/minute'")):
            (folder := tmp_path / str(number)).mkdir()
            hosts.append(stack.enter_context(served(folder, settings=settings, management=ANYWHERE)))
        same, also_same, other = map(digests, hosts)
    assert same == also_same
    assert list(same.values()) == list(other.values()) == [1]
    assert same.keys() != other.keys()


def test_a_reload_changes_the_digest_and_the_age(alone: Served) -> None:
    until(lambda: value(alone, "machpay_policy_age_seconds") > 1.0)
    before, settings = digests(alone), alone.folder / "machpay.toml"
    settings.write_text(settings.read_text() + '[[routes]]\nmatch = "GET /new"\n')
    alone.supervisor.send_signal(signal.SIGHUP)
    until(lambda: len(now := digests(alone)) == 1 and not before.keys() & now.keys())
    assert value(alone, "machpay_policy_age_seconds") < 30.0
    until(lambda: len(alone.workers()) == 1)


def test_an_event_loop_that_is_blocked_shows(alone: Served) -> None:
    until(lambda: value(alone, "machpay_event_loop_lag_seconds") < 0.2)
    (worker,) = alone.workers()
    os.kill(worker, signal.SIGUSR2)
    until(lambda: value(alone, "machpay_event_loop_lag_seconds") > 0.2)
    assert value(alone, "machpay_event_loop_lag_seconds") < 5.0


def test_processor_memory_and_files_are_those_of_the_workers(alone: Served) -> None:
    (worker,) = alone.workers()
    files, cpu = value(alone, "process_open_fds"), value(alone, "process_cpu_seconds_total")
    assert files >= 8
    assert abs(value(alone, "process_resident_memory_bytes") - _resident_bytes(worker)) < 8_000_000
    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(socket.create_connection(("127.0.0.1", alone.port)))
        until(lambda: value(alone, "process_open_fds") >= files + 45)
        for _ in range(50):
            assert status(ask(alone)) == 200
        until(lambda: value(alone, "process_cpu_seconds_total") > cpu + 0.01)


def test_the_processor_time_of_ended_workers_counts(alone: Served) -> None:
    before, (worker,) = value(alone, "process_cpu_seconds_total"), alone.workers()
    os.kill(worker, signal.SIGKILL)
    until(lambda: alone.workers() not in ([], [worker]) and status(ask(alone)) == 200)
    until(lambda: value(alone, "machpay_workers") == 1)
    assert value(alone, "process_cpu_seconds_total") > before


def _resident_bytes(process: int) -> int:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
