"""How the group of processes starts, is told new settings, loses a member and stops."""

import json
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.redises.ports import free_port
from tests.serving.processes import PROGRAM, Served, served

PATIENCE_SECONDS = 40


def ask(gateway: Served, path: str = "/public/x", *fields: str) -> bytes:
    """Return the whole answer to a request of its own connection."""
    lines = [f"GET {path} HTTP/1.1", "Host: api.test", "Connection: close", *fields, "", ""]
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall("\r\n".join(lines).encode())
        answer = b""
        while data := connection.recv(65536):
            answer += data
        return answer


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def until(claim: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not claim():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def new_log(gateway: Served) -> Callable[[], str]:
    """Return a function that returns what *gateway* has logged since now."""
    already = len(gateway.log)
    return lambda: gateway.log[already:]


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One worker, which tests may kill or replace; it starts where files have the names of modules."""
    folder = tmp_path_factory.mktemp("running")
    for name in ("httptools", "redis", "logging", "machpay_gateway"):
        (folder / f"{name}.py").write_text("raise SystemExit('this is a file of somebody else')")
    with served(folder) as gateway:
        yield gateway


def test_a_stop_answers_what_is_in_flight(tmp_path: Path) -> None:
    with served(tmp_path) as gateway, socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall(b"GET /public/slow?1 HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.3)  # until it is under way
        gateway.supervisor.send_signal(signal.SIGTERM)
        answer = connection.recv(65536)
        assert status(answer) == 200
        assert b"\r\nConnection: close\r\n" in answer
        assert gateway.supervisor.wait(PATIENCE_SECONDS) == 0


def test_what_lies_in_the_working_directory_is_not_taken_for_a_module(running: Served) -> None:
    assert status(ask(running)) == 200


def test_new_settings_hold_after_a_hangup_and_wrong_ones_do_not(running: Served) -> None:
    settings = running.folder / "machpay.toml"
    right = settings.read_text()
    before, log = running.workers(), new_log(running)
    assert status(ask(running, "/new/x")) == 404

    settings.write_text(right + '\n[[routes]]\nmatch = "* /new/{rest:path}"\npublik = true\n')
    running.supervisor.send_signal(signal.SIGHUP)
    until(lambda: "the old ones stay" in log())
    assert "machpay.toml:" in log()
    assert "'publik' is not a setting here; did you mean 'public'?" in log()
    assert running.workers() == before

    settings.write_text(right + '\n[[routes]]\nmatch = "* /new/{rest:path}"\npublic = true\n')
    running.supervisor.send_signal(signal.SIGHUP)
    until(lambda: status(ask(running, "/new/x")) == 200)
    until(lambda: not set(before) & set(running.workers()) and "are reloaded" in log())


def test_a_worker_that_dies_is_started_again(running: Served) -> None:
    (worker,), log = running.workers(), new_log(running)
    os.kill(worker, signal.SIGKILL)
    until(lambda: running.workers() not in ([], [worker]))
    assert status(ask(running)) == 200  # it waits for the new one
    assert "died with status -9" in log()


def test_a_worker_that_could_not_be_started_is_started_as_soon_as_it_can_be(running: Served) -> None:
    (worker,), supervisor, log = running.workers(), running.supervisor.pid, new_log(running)
    _, most = before = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (3, most))
    os.kill(worker, signal.SIGKILL)
    until(lambda: "could not be started (Too many open files)" in log())
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, before)
    until(running.workers)
    assert status(ask(running)) == 200


def test_workers_outlive_their_supervisor_only_for_what_is_in_flight(tmp_path: Path) -> None:
    with served(tmp_path, status=-signal.SIGKILL) as gateway:
        workers = gateway.workers()
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_SECONDS) as connection:
            connection.sendall(b"GET /public/slow?1 HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(0.3)  # until it is under way
            gateway.supervisor.kill()
            assert status(connection.recv(65536)) == 200
        until(lambda: not any(is_alive(worker) for worker in workers))


@pytest.mark.parametrize(
    "settings, message",
    [
        ("", "upstreams: none is set"),
        (
            '[upstreams]\nlive = "http://127.0.0.1:1"\n[server]\nworkers = 2',
            "2 workers cannot share limits without Redis",
        ),
        (
            '[upstreams]\nlive = "http://127.0.0.1:1"\n[server]\ntls_certificate = "a.pem"\ntls_key = "b.pem"',
            "server.tls_certificate: 'a.pem' with 'b.pem' cannot be used",
        ),
        ('[upstreams]\nlive = "http://127.0.0.1:1"\n[server]\nlisten = "127.0.0.1"', "is not an address to listen on"),
        ('[upstreams]\nlive = "http://127.0.0.1:1"\n[server]\nlisten = "[1:2]:80"', "(Name or service not known)"),
        ('[upstreams]\nlive = "http://127.0.0.1:1/?query"', "without a query"),
    ],
)
def test_what_cannot_be_served_is_told_at_the_start(tmp_path: Path, settings: str, message: str) -> None:
    (tmp_path / "machpay.toml").write_text(f'database = "sqlite:///machpay.db"\n{settings}\n')
    ended = subprocess.run([PROGRAM, "serve"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    (tmp_path / "machpay.toml").write_text('[upstreams]\nlive = "http://127.0.0.1:1"\n')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [str(PROGRAM), "serve", "--listen", address]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert "cannot be listened on (Address already in use)" in ended.stderr


def test_a_database_that_is_not_there_ends_the_start(tmp_path: Path) -> None:
    database = f"postgresql://127.0.0.1:{free_port()}/machpay"
    (tmp_path / "machpay.toml").write_text(f'database = "{database}"\n[upstreams]\nlive = "http://127.0.0.1:1"\n')
    ended = subprocess.run(
        [PROGRAM, "serve", "--listen", "127.0.0.1:0", "--management", ""],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "The database did not answer" in ended.stderr
    assert "see that it runs and that `database` names it." in ended.stderr
    assert "A worker did not start" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_each_request_is_one_line_of_the_access_log_without_a_secret(tmp_path: Path) -> None:
    with served(tmp_path) as gateway:
        secret, log = gateway.secret(), tmp_path / "access.log"
        assert status(ask(gateway, f"/v1/{secret}?key={secret}", f"Authorization: Bearer {secret}")) == 200
        until(log.exists)
        log.rename(tmp_path / "access.log.1")
        assert status(ask(gateway, "/v1/x")) == 401
        assert status(ask(gateway, "/public/x")) == 200
        until(lambda: log.exists() and log.read_text().count("\n") == 2)
        lines = [json.loads(line) for line in (tmp_path / "access.log.1").read_text().splitlines()]
        lines += [json.loads(line) for line in log.read_text().splitlines()]
        assert [(line["status"], line["outcome"], line["route"]) for line in lines] == [
            (200, "allowed", "* /v1/{rest:path}"),
            (401, "missing_credentials", "* /v1/{rest:path}"),
            (200, "allowed", "* /public/{rest:path}"),
        ]
        assert lines[0]["key"].startswith("key_")
        assert lines[0]["bytes"] == 2
        written = (tmp_path / "access.log.1").read_text() + log.read_text() + gateway.log
        assert secret not in written
