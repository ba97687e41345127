"""How the group of processes ends, when and however it is told to."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.drills.clients import is_free
from tests.redises.servers import running_server
from tests.serving.processes import PROGRAM, served
from tests.serving.test_lifecycle import PATIENCE_SECONDS, status, until

SLOW = b"GET /public/slow?1 HTTP/1.1\r\nHost: a\r\n\r\n"
READY_AT_ONCE = b"GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n"


def test_an_interrupt_at_the_terminal_answers_what_is_in_flight_and_closes_what_is_quiet(tmp_path: Path) -> None:
    with served(tmp_path) as gateway:
        address = ("127.0.0.1", gateway.port)
        with socket.create_connection(address) as slow, socket.create_connection(address) as quiet:
            quiet.sendall(READY_AT_ONCE)
            assert status(quiet.recv(65536)) == 200
            slow.sendall(SLOW)
            time.sleep(0.3)  # until it is under way
            os.killpg(gateway.supervisor.pid, signal.SIGINT)
            assert status(slow.recv(65536)) == 200
            quiet.settimeout(PATIENCE_SECONDS)
            assert quiet.recv(1) == b""
        assert gateway.supervisor.wait(PATIENCE_SECONDS) == 0


def test_what_takes_longer_than_a_drain_may_is_broken_off_where_the_control_plane_is_alone(tmp_path: Path) -> None:
    settings = '[server]\ncontrol_plane = "only"\ndrain_seconds = 0.5'
    with served(tmp_path, settings=settings) as gateway:
        secret = gateway.secret(scopes=["keys:manage"]).encode()
        with socket.create_connection(("127.0.0.1", gateway.port)) as unfinished:
            unfinished.sendall(
                b"POST /v1/keys HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\nExpect: 100-continue\r\n"
                b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n" % secret
            )
            unfinished.settimeout(PATIENCE_SECONDS)
            assert status(unfinished.recv(65536)) == 100  # its body is waited for
            gateway.supervisor.terminate()
            unfinished.settimeout(4)  # uvicorn itself would wait for 5 s
            while unfinished.recv(65536):
                pass
        assert gateway.supervisor.wait(PATIENCE_SECONDS) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_during_the_start_ends_it_at_once_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "machpay.toml").write_text('[upstreams]\nlive = "http://127.0.0.1:1"\n')
    (tmp_path / "tmp").mkdir()
    with subprocess.Popen(
        [PROGRAM, "serve", "--listen", "127.0.0.1:0", "--management", ""],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as gateway:
        children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children")
        until(children.read_text)
        os.killpg(gateway.pid, number)
        output, errors = gateway.communicate(timeout=PATIENCE_SECONDS)

    assert (gateway.returncode, output, errors) == (0, b"", b"")
    assert not list((tmp_path / "tmp").iterdir())


def test_a_stop_while_workers_are_replaced_is_no_fault_of_the_settings(tmp_path: Path) -> None:
    with served(tmp_path) as gateway:
        gateway.supervisor.send_signal(signal.SIGHUP)
        until(lambda: len(gateway.workers()) == 2)
        gateway.supervisor.terminate()
        assert gateway.supervisor.wait(PATIENCE_SECONDS) == 0
        assert "ERROR" not in gateway.log


def test_operators_see_that_it_drains_and_its_slots_are_free_at_once(tmp_path: Path) -> None:
    with (
        running_server() as redis,
        served(tmp_path, settings=f'redis = "{redis.url}"', management="127.0.0.1:0") as gateway,
    ):
        with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
            key_id, secret = gateway.key()
            connection.sendall(
                b"GET /v1/slow?1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n\r\n" % secret.encode()
            )
            until(lambda: not is_free(redis, key_id))
            gateway.supervisor.terminate()
            readiness: list[tuple[int, dict[str, str]]] = []

            def drains() -> bool:
                readiness.append(ready(f"{gateway.management}/readyz"))
                return readiness[-1][0] == 503

            until(drains)
            checks = readiness[-1][1]
            assert checks.pop("serving").startswith("draining: ")
            assert set(checks.values()) == {"ok"}
            assert status(connection.recv(65536)) == 200
        assert gateway.supervisor.wait(PATIENCE_SECONDS) == 0
        assert is_free(redis, key_id)


def ready(url: str) -> tuple[int, dict[str, str]]:
    """Return the status that operators are answered with, and what was found."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310 - our own
            return answer.status, json.loads(answer.read())["checks"]
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.loads(exc.read())["checks"]
