"""What the group of processes says on stderr when its lines are JSON."""

import json
import signal
import socket
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest

from tests.serving.processes import served
from tests.serving.test_control_plane import tls_settings
from tests.serving.test_lifecycle import ask, status, until
from tests.serving.test_metrics import ANYWHERE, value


def test_every_line_is_json_of_the_supervisor_and_of_its_workers(tmp_path: Path) -> None:
    environ = {"MACHPAY_SERVER__LOG_FORMAT": "json"}
    with served(tmp_path, environ=environ) as gateway:
        secret = gateway.secret()
        assert status(ask(gateway, f"/v1/{secret}")) == 401
        until(lambda: "refused" in gateway.log)
        (worker,) = gateway.workers()
        gateway.supervisor.send_signal(signal.SIGHUP)
        until(lambda: "are reloaded" in gateway.log)
        log = gateway.log
    lines = [json.loads(line) for line in log.splitlines()]
    (refused,) = [line for line in lines if "refused" in line["message"]]
    assert secret not in log
    assert abs(time.time() - _seconds(refused["time"])) < 60
    members = {name: refused[name] for name in ("level", "logger", "worker", "reason", "method", "path", "address")}
    assert members == {
        "level": "info",
        "logger": "machpay_gateway",
        "worker": worker,
        "reason": "missing_credentials",
        "method": "GET",
        "path": "/v1/sk_live_…",
        "address": "127.0.0.1",
    }
    (reloaded,) = [line for line in lines if "are reloaded" in line["message"]]
    assert "worker" not in reloaded


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def refused(log: str) -> list[str]:
    return [line for line in log.splitlines() if " refused: " in line]


def test_what_strangers_send_costs_one_line_a_minute_for_each_reason(tmp_path: Path) -> None:
    with served(tmp_path) as gateway:
        _, secret = gateway.key()
        for _ in range(200):
            assert status(ask(gateway, "/v1/x")) == 401
            assert status(ask(gateway, "/nowhere")) == 404
            assert status(ask(gateway, "//")) == 400
        access_log = tmp_path / "access.log"  # made with the first lines
        until(lambda: access_log.exists() and access_log.read_text().count("\n") == 600)
        assert len(refused(gateway.log)) == 3
        for _ in range(20):
            assert status(ask(gateway, "/v1/%2e", f"Authorization: Bearer {secret}")) == 400
        assert len(refused(gateway.log)) <= 4
        assert len(gateway.log) < 5000


@pytest.mark.parametrize("level, lines", [("debug", 5), ("info", 1), ("warning", 0), ("error", 0)])
def test_the_level_decides_which_lines_are_written(tmp_path: Path, level: str, lines: int) -> None:
    with served(tmp_path, environ={"MACHPAY_SERVER__LOG_LEVEL": level}) as gateway:
        for _ in range(5):
            assert status(ask(gateway, "/v1/x")) == 401
        until((tmp_path / "access.log").exists)
        assert len(refused(gateway.log)) == lines
        assert ("MachPay is open" in gateway.log) is (level in {"debug", "info"})
        for other in ("aiosqlite", "asyncio", "sqlalchemy"):
            assert other not in gateway.log


def test_a_level_in_the_file_holds_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    with served(tmp_path, settings='[server]\nlog_level = "warning"') as gateway:
        assert status(ask(gateway, "/v1/x")) == 401
        assert gateway.log == ""
        (tmp_path / "machpay.toml").write_text((tmp_path / "machpay.toml").read_text().replace('"warning"', '"loud"'))
        gateway.supervisor.send_signal(signal.SIGHUP)
        until(lambda: "log_level 'loud' is not one of debug, info, warning, error" in gateway.log)


def test_a_full_disk_costs_one_line_a_minute_and_the_lost_records_are_counted(tmp_path: Path) -> None:
    environ = {"MACHPAY_SERVER__ACCESS_LOG": "/dev/full"}
    with served(tmp_path, management=ANYWHERE, environ=environ) as gateway:
        for _ in range(4):  # flushes
            for _ in range(5):
                assert status(ask(gateway)) == 200
            time.sleep(0.3)  # longer than between two flushes
        until(lambda: value(gateway, "machpay_access_log_lost_total") == 20)
        (line,) = [line for line in gateway.log.splitlines() if "access log" in line]
        assert "missing from the access log: it cannot be written ([Errno 28] No space left on device)." in line
        assert "Traceback" not in gateway.log


@pytest.mark.parametrize("control_plane", ["on", "only"])
@pytest.mark.parametrize("is_encrypted", [False, True])
def test_bytes_that_are_no_requests_cost_no_line_each(
    tmp_path: Path, control_plane: str, *, is_encrypted: bool
) -> None:
    server = tls_settings(tmp_path)[1] if is_encrypted else "[server]"
    with served(tmp_path, settings=f'{server}\ncontrol_plane = "{control_plane}"') as gateway:
        for number in range(50):
            with socket.create_connection(("127.0.0.1", gateway.port)) as stranger:
                stranger.sendall((b"\x16\x03\x01\x02\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"X" * 9)[number % 3])
                stranger.shutdown(socket.SHUT_WR)
                with suppress(ConnectionError):
                    while stranger.recv(65536):
                        pass
        assert gateway.log.count("\n") < 10
