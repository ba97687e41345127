"""What the group of processes says on stderr when its lines are JSON."""

import json
import signal
import time
from datetime import datetime
from pathlib import Path

from tests.serving.processes import served
from tests.serving.test_lifecycle import ask, status, until


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
