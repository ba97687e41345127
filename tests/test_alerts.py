"""Alerts fire in time when something is wrong, and not before: promtool evaluates the shipped rules."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.test_monitoring import DEPLOY, RULES

EVERY_SECONDS = 15  # as prometheus.yml scrapes and evaluates
HEALTHY, FAULTY = 40, 80  # samples before and after something goes wrong
FAULT_AT = HEALTHY * EVERY_SECONDS
HOST = 'job="machpay", instance="a:9400"'
OTHER_HOST = 'job="machpay", instance="b:9400"'

PROMTOOL = shutil.which("promtool")

pytestmark = pytest.mark.skipif(PROMTOOL is None and "CI" not in os.environ, reason="promtool is not installed")


def gauge(healthy: float, faulty: float) -> str:
    """Return the samples of a gauge that changes when something goes wrong."""
    return " ".join(map(str, [healthy] * HEALTHY + [faulty] * FAULTY))


def counter(healthy: float, faulty: float) -> str:
    """Return the samples of a counter by its increases per second, before and after something goes wrong."""
    increases = [healthy] * HEALTHY + [faulty] * FAULTY
    return " ".join(f"{sum(increases[:number]) * EVERY_SECONDS:g}" for number in range(len(increases)))


def until_fault() -> str:
    """Return the samples of a series that ends when something goes wrong."""
    return " ".join(["1"] * HEALTHY + ["stale"] + ["_"] * (FAULTY - 1))


def since_fault() -> str:
    """Return the samples of a series that begins when something goes wrong."""
    return " ".join(["_"] * HEALTHY + ["1"] * FAULTY)


class Case(NamedTuple):
    """Series of one alert, and within how many seconds it must fire once they show that something is wrong."""

    alert: str
    series: Mapping[str, str]
    fires_within: int


def requests(**labels: str) -> str:
    return f"machpay_requests_total{{{HOST}, " + ", ".join(f'{name}="{it}"' for name, it in labels.items()) + "}"


def slow(metric: str, labels: str = "") -> Mapping[str, str]:
    """Return the buckets of a histogram whose every second request becomes slow."""
    return {
        f'{metric}_bucket{{{HOST}{labels}, le="0.05"}}': counter(10, 5),
        f'{metric}_bucket{{{HOST}{labels}, le="+Inf"}}': counter(10, 10),
        f'{metric}_bucket{{{HOST}{labels}, le="10.0"}}': counter(10, 10),
    }


CASES = [
    Case("MachPayDown", {f"up{{{HOST}}}": gauge(1, 0)}, 135),
    Case("MachPayNoWorkers", {f"machpay_workers{{{HOST}}}": until_fault()}, 135),
    Case(
        "MachPayWorkersMissing",
        {f"machpay_workers{{{HOST}}}": gauge(4, 3), f"machpay_workers_wanted{{{HOST}}}": gauge(4, 4)},
        60,
    ),
    Case(
        "MachPayUpstreamServerOut",
        {f'machpay_upstream_server_up{{{HOST}, upstream="live", server="http://b:1"}}': gauge(1, 0)},
        90,
    ),
    Case(
        "MachPayUpstreamFails",
        {
            requests(outcome="allowed", code="2xx"): counter(10, 5),
            requests(outcome="allowed", code="5xx"): counter(0, 5),
        },
        360,
    ),
    Case(
        "MachPayUnavailable",
        {requests(outcome="allowed"): counter(10, 0), requests(outcome="unavailable"): counter(0, 10)},
        180,
    ),
    Case("MachPayLimiterDegraded", {f"machpay_limiter_degraded{{{HOST}}}": gauge(0, 1)}, 135),
    Case(
        "MachPayUsageUnstored",
        {f"machpay_usage_unstored{{{HOST}}}": gauge(0, 9000), requests(outcome="allowed"): counter(10, 10)},
        330,
    ),
    Case("MachPayManyInvalidCredentials", {requests(outcome="invalid_credentials"): counter(1, 50)}, 690),
    Case(
        "MachPayPlanRefusesMany",
        {
            requests(outcome="allowed", tier="pro"): counter(10, 0),
            requests(outcome="rate_limited", tier="pro"): counter(0, 10),
            f'machpay_policy_violations_total{{{HOST}, policy="account-month", tier="pro"}}': counter(0, 10),
        },
        1140,
    ),
    Case("MachPayUnknownTier", {f'machpay_unknown_tier_requests_total{{{HOST}, tier="old"}}': counter(0, 1)}, 330),
    Case("MachPaySlow", slow("machpay_request_duration_seconds"), 640),
    Case("MachPayDecisionsSlow", slow("machpay_step_duration_seconds", ', step="decide"'), 640),
    Case("MachPayClockSkew", {f'machpay_clock_skew_seconds{{{HOST}, against="redis"}}': gauge(0.001, -3600)}, 60),
    Case(
        "MachPayPoliciesDiffer",
        {
            f'machpay_policy_info{{{HOST}, digest="0a"}}': gauge(2, 2),
            f'machpay_policy_info{{{OTHER_HOST}, digest="0a"}}': until_fault(),
            f'machpay_policy_info{{{OTHER_HOST}, digest="0b"}}': since_fault(),
        },
        60,
    ),
    Case("MachPayEventLoopLags", {f"machpay_event_loop_lag_seconds{{{HOST}}}": gauge(0.002, 1.5)}, 60),
    Case(
        "MachPayProcessorBusy",
        {f"process_cpu_seconds_total{{{HOST}}}": counter(0.4, 2), f"machpay_workers{{{HOST}}}": gauge(2, 2)},
        60,
    ),
    Case(
        "MachPayMemoryHigh",
        {f"process_resident_memory_bytes{{{HOST}}}": gauge(2e8, 5e9), f"machpay_workers{{{HOST}}}": gauge(2, 2)},
        60,
    ),
    Case("MachPayDatabasePoolSaturated", {f'machpay_database_pool_waiting{{{HOST}, pool="server"}}': gauge(0, 20)}, 60),
    Case("MachPayAccessLogLosesLines", {f"machpay_access_log_lost_total{{{HOST}}}": counter(0, 5)}, 90),
    Case(
        "MachPayCertificateExpires",
        {f'machpay_certificate_expiry_timestamp_seconds{{{HOST}, file="a.pem"}}': gauge(1e9, 1e5)},
        330,
    ),
    Case("MachPayCertificatesStale", {f"machpay_certificates_stale{{{HOST}}}": gauge(0, 1)}, 150),
    Case("MachPayCountsUnreadable", {f"machpay_worker_snapshots_unreadable{{{HOST}}}": gauge(0, 1)}, 330),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_in_time_and_not_before(case: Case, tmp_path: Path) -> None:
    moments = {"0": 0, "healthy": FAULT_AT - EVERY_SECONDS, "faulty": FAULT_AT + case.fires_within}
    firing = f'count(ALERTS{{alertname="{case.alert}", alertstate="firing"}})'
    expected = {"0": [], "healthy": [], "faulty": [{"labels": "{}", "value": 1}]}
    unit = {
        "rule_files": [str(DEPLOY / "alerts.yml")],
        "evaluation_interval": f"{EVERY_SECONDS}s",
        "tests": [
            {
                "interval": f"{EVERY_SECONDS}s",
                "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
                "promql_expr_test": [
                    {"expr": firing, "eval_time": f"{at}s", "exp_samples": expected[name]}
                    for name, at in moments.items()
                ],
            }
        ],
    }
    (tmp_path / "unit.yml").write_text(yaml.safe_dump(unit))
    command = [PROMTOOL or "promtool", "test", "rules", "unit.yml"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_alert_is_tested() -> None:
    assert {case.alert for case in CASES} == set(RULES)
