"""What Prometheus makes of a fleet in trouble: promtool evaluates the alerts over the metrics of real faults."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from prometheus_client.samples import Sample

from tests.postgres.fixtures import postgres_server, postgres_url
from tests.redises.servers import running_server
from tests.serving.processes import Served, served
from tests.serving.test_lifecycle import ask, status, until
from tests.serving.test_metrics import ANYWHERE, samples_of, scraped, value
from tests.serving.test_vitals import SITE
from tests.test_monitoring import DEPLOY

__all__ = ["postgres_server", "postgres_url"]

EVERY_SECONDS = 5
SCRAPES = 16
FIRING_WITHIN = 60
TROUBLE = {
    "MachPayAccessLogLosesLines",
    "MachPayClockSkew",
    "MachPayEventLoopLags",
    "MachPayPoliciesDiffer",
    "MachPayWorkersMissing",
}

PROMTOOL = shutil.which("promtool")

Recorded = dict[tuple[str, tuple[tuple[str, str], ...]], list[str]]


@pytest.mark.drill
@pytest.mark.timeout(300)
@pytest.mark.skipif(PROMTOOL is None and "CI" not in os.environ, reason="promtool is not installed")
def test_each_fault_of_a_fleet_fires_its_alert_within_a_minute_and_no_other(
    tmp_path: Path,
    postgres_url: str,
) -> None:
    for name in ("ill", "well"):
        (tmp_path / name).mkdir()
    (tmp_path / "sitecustomize.py").write_text(SITE)
    environ = {"MACHPAY_DATABASE": postgres_url}
    ill_environ = environ | {"PYTHONPATH": str(tmp_path), "MACHPAY_SERVER__ACCESS_LOG": "/dev/full"}
    recorded: Recorded = {}
    with running_server() as redis:
        settings = f'redis = "{redis.url}"\n[server]\nworkers = 2\n'
        other = f"{settings}[tiers.standard]\nrate = '999/minute'\n"
        with (
            served(tmp_path / "ill", settings=other, management=ANYWHERE, environ=ill_environ) as ill,
            served(tmp_path / "well", settings=settings, management=ANYWHERE, environ=environ) as well,
        ):
            worker = lose_a_worker(ill)
            until(lambda: value(ill, "machpay_clock_skew_seconds", against="database"))
            began_at = time.monotonic()
            for number in range(SCRAPES):
                while time.monotonic() < began_at + number * EVERY_SECONDS:
                    for gateway in (ill, well):
                        assert status(ask(gateway)) == 200
                    os.kill(worker, signal.SIGUSR2)  # blocks its event loop for half a second
                    time.sleep(1.0)
                for name, gateway in (("ill:9400", ill), ("well:9400", well)):
                    record(recorded, samples_of(scraped(gateway)[0]), name, number)
    assert firing(recorded, tmp_path) == TROUBLE


def lose_a_worker(gateway: Served) -> int:
    """Kill one of two workers, and let no other one start. Returns the process id of the worker that is left."""
    settings = gateway.folder / "machpay.toml"
    settings.write_text(settings.read_text() + "\nnot_a_setting = 1\n")
    first, second = gateway.workers()
    os.kill(first, signal.SIGKILL)
    until(lambda: "died with status" in gateway.log)
    return second


def record(recorded: Recorded, samples: Iterable[Sample], instance: str, number: int) -> None:
    """Add *samples*, the *number*th of that *instance*; what is missing at a scrape is stale."""
    for sample in samples:
        labels = tuple(sorted({**sample.labels, "job": "machpay", "instance": instance}.items()))
        values = recorded.setdefault((sample.name, labels), [])
        values += ["_"] * (number - len(values))
        values.append(repr(sample.value))


def firing(recorded: Recorded, folder: Path) -> set[str]:
    """Return the alerts that fire within a minute of the first of the *recorded* samples, by promtool's own report."""
    series = [
        {
            "series": f"{name}{{{', '.join(map(pair, labels))}}}",
            "values": " ".join(values),
        }
        for (name, labels), values in recorded.items()
    ]
    names = [rule["alert"] for rule in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]]
    fired = set()
    for name in names:
        expression = f'count(ALERTS{{alertname="{name}", alertstate="firing"}})'
        at = FIRING_WITHIN + (15 if name == "MachPayAccessLogLosesLines" else 0)  # two scrapes until a counter rises
        unit = {
            "rule_files": [str(DEPLOY / "alerts.yml")],
            "evaluation_interval": "15s",
            "tests": [
                {
                    "interval": f"{EVERY_SECONDS}s",
                    "input_series": series,
                    "promql_expr_test": [{"expr": expression, "eval_time": f"{at}s", "exp_samples": []}],
                }
            ],
        }
        (folder / "unit.yml").write_text(yaml.safe_dump(unit))
        command = [PROMTOOL or "promtool", "test", "rules", "unit.yml"]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if run.returncode:
            assert "got:" in run.stdout + run.stderr, run.stdout + run.stderr
            fired.add(name)
    return fired


def pair(label: tuple[str, str]) -> str:
    name, text = label
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'{name}="{escaped}"'
