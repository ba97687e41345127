"""The metrics of several workers, as Prometheus asks whichever of them for it."""

import json
import os
import signal
import sqlite3
import threading
import urllib.request
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parsed_text
from prometheus_client.samples import Sample

from machpay_gateway.telemetry.metrics import METRICS
from tests.core.test_masked import SECRETS
from tests.redises.servers import running_server
from tests.serving.processes import Served, served
from tests.serving.test_lifecycle import ask, status, until

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
TEXT = "text/plain;version=0.0.4;q=0.2"
ANYWHERE = "127.0.0.1:0"
ROUTE = "* /v1/{rest:path}"
Sums = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(gateway: Served, accept: str = TEXT) -> tuple[str, str]:
    """Return what Prometheus is told, and as what."""
    scrape = urllib.request.Request(f"{gateway.management}/metrics", headers={"Accept": accept})  # noqa: S310 - of ours
    while True:
        try:
            with urllib.request.urlopen(scrape, timeout=10) as answer:  # noqa: S310 - as above
                return answer.read().decode(), answer.headers["Content-Type"]
        except ConnectionError:  # a worker was killed while it answered
            continue


def samples_of(text: str) -> list[Sample]:
    return [sample for family in parsed_text(text) for sample in family.samples]


def sums(samples: Iterable[Sample]) -> Sums:
    return {(it.name, tuple(sorted(it.labels.items()))): it.value for it in samples}


def value(gateway: Served, name: str, **labels: str) -> float:
    """Return the sum of all samples of this *name* that have these *labels*."""
    samples = samples_of(scraped(gateway)[0])
    return sum(it.value for it in samples if it.name == name and labels.items() <= it.labels.items())


def is_counted_up(name: str) -> bool:
    return name.endswith(("_total", "_count", "_sum", "_bucket"))


class Watch(threading.Thread):
    """Scrapes all the time, and finds whatever has fallen that must not."""

    def __init__(self, gateway: Served) -> None:
        super().__init__()
        self.fallen: list[str] = []
        self.scrapes = 0
        self._gateway = gateway
        self._ended = threading.Event()

    def run(self) -> None:
        before: Sums = {}
        while not self._ended.is_set():
            now = sums(samples_of(scraped(self._gateway)[0]))
            for series, was in before.items():
                if is_counted_up(series[0]) and now.get(series, 0.0) < was:
                    self.fallen.append(f"{series}: {was} -> {now.get(series)}")
            before = now
            self.scrapes += 1

    def end(self) -> None:
        self._ended.set()
        self.join(30)


def test_counts_of_all_workers_add_up_and_never_fall(tmp_path: Path) -> None:
    with (
        running_server() as redis,
        served(tmp_path, settings=f'redis = "{redis.url}"\n[server]\nworkers = 2\n', management=ANYWHERE) as gateway,
    ):
        secret, (first, second) = gateway.secret(), gateway.workers()
        watch = Watch(gateway)
        watch.start()
        scrape = {"allowed": 0, "missing_credentials": 0, "route_not_found": 0}

        def load() -> None:
            for _ in range(40):
                assert status(ask(gateway, "/v1/x", f"Authorization: Bearer {secret}")) == 200
                assert status(ask(gateway, "/v1/x")) == 401
                assert status(ask(gateway, "/elsewhere")) == 404
                scrape.update({outcome: count + 1 for outcome, count in scrape.items()})

        try:
            load()
            until(lambda: value(gateway, "machpay_requests_total") == 120)
            assert value(gateway, "machpay_workers") == 2
            gateway.supervisor.send_signal(signal.SIGHUP)
            until(lambda: "serve with them" in gateway.log)
            load()
            until(lambda: not {first, second} & set(gateway.workers()))
            until(lambda: value(gateway, "machpay_requests_total") == 240)
            for outcome, count in scrape.items():
                assert value(gateway, "machpay_requests_total", outcome=outcome) == count == 80
            allowed = {"outcome": "allowed", "route": ROUTE, "tier": "standard", "code": "2xx"}
            assert value(gateway, "machpay_requests_total", **allowed) == 80
            assert value(gateway, "machpay_requests_total", route="-", tier="-", code="4xx") == 80
            assert value(gateway, "machpay_request_duration_seconds_count", route=ROUTE) == 160
            assert value(gateway, "machpay_step_duration_seconds_count", step="decide") == 240
            assert value(gateway, "machpay_step_duration_seconds_count", step="upstream") == 80
            hits, misses = (value(gateway, "machpay_key_cache_lookups_total", result=it) for it in ("hit", "miss"))
            assert hits + misses == 80
            assert 2 <= misses <= 8  # each of the workers has asked the store
            batches = value(gateway, "machpay_admission_batches_total")
            assert batches == value(gateway, "machpay_admission_batch_size_count")
            assert value(gateway, "machpay_admission_batch_size_sum") >= batches >= 80
            until(lambda: value(gateway, "machpay_workers") == 2)
            until(lambda: value(gateway, "machpay_usage_unstored") == 0)

            os.kill(gateway.workers()[0], signal.SIGKILL)
            until(lambda: "died with status" in gateway.log and value(gateway, "machpay_workers") == 2)
            load()
            until(lambda: value(gateway, "machpay_requests_total") == 360)
        finally:
            watch.end()
        assert watch.fallen == []
        assert watch.scrapes > 20


@pytest.mark.parametrize(
    "accept, media_type",
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        (TEXT, "text/plain; version=0.0.4; charset=utf-8"),
        (
            f"{OPENMETRICS};q=0.8,{TEXT}",
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores",
        ),
    ],
)
def test_both_formats_tell_every_metric_and_no_secret_or_id(gateway: Served, accept: str, media_type: str) -> None:
    text, content_type = scraped(gateway, accept)
    assert content_type == media_type
    families = list((parsed_openmetrics if accept.startswith(OPENMETRICS) else parsed_text)(text))
    assert {f"{it.name}_total" if it.type == "counter" else it.name for it in families} == set(METRICS)
    for family in families:
        metric = METRICS.get(family.name) or METRICS[f"{family.name}_total"]
        assert (family.type, family.documentation) == (metric.kind.value, metric.help)
        assert all(set(it.labels) - {"le"} == set(metric.labels) for it in family.samples)
    pairs = [pair for family in families for it in family.samples for pair in it.labels.items()]
    labels = " ".join(value for name, value in pairs if name != "server")  # addresses in the settings
    for unbounded in ("127.0.0.1", "key_", "acct_", "http:", *(secret[3:] for secret in SECRETS.values())):
        assert unbounded not in labels


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterable[Served]:
    with served(tmp_path_factory.mktemp("metrics"), management=ANYWHERE) as it:
        own = it.secret()
        for secret in (*SECRETS.values(), own):
            ask(it, f"/v1/{secret}", f"Authorization: Bearer {secret}", f"X-Key: {secret}")
            ask(it, f"/{secret}", f"User-Agent: {secret}")
            ask(it, f"/public/{secret}?{secret}", f"Cookie: {secret}")
        assert value(it, "machpay_upstream_errors_total") == 0
        yield it


def test_limits_are_counted_by_policy_on_every_way_in(tmp_path: Path) -> None:
    tiers = """
[tiers.tiny]
rate = "2/minute"
concurrency = 5
account = { rate = "2/minute" }
[tiers.trial]
rate = "1/minute"
concurrency = 5
enforce = false
"""
    routes = """
[[routes]]
match = "GET /sign-up"
public = true
limit = { rate = "1/minute", by = "address" }
"""
    with served(tmp_path, settings=tiers, routes=routes, management=ANYWHERE) as gateway:
        tiny, trial = (f"Authorization: Bearer {gateway.secret(tier=tier)}" for tier in ("tiny", "trial"))
        assert [status(ask(gateway, "/v1/x", tiny)) for _ in range(3)] == [200, 200, 429]
        assert [status(ask(gateway, "/v1/x", trial)) for _ in range(4)] == [200] * 4
        assert [status(ask(gateway, "/sign-up")) for _ in range(2)] == [200, 429]
        name = "machpay_policy_violations_total"
        of_v1 = {"route": "* /v1/{rest:path}"}
        for policy in ("minute", "account-minute"):
            assert value(gateway, name, policy=policy, outcome="rate_limited", tier="tiny", **of_v1) == 1
        assert value(gateway, name, policy="minute", outcome="shadow_limited", tier="trial", **of_v1) == 3
        assert value(gateway, name, policy="route-minute", outcome="rate_limited", route="GET /sign-up", tier="-") == 1
        assert value(gateway, name) == 6
    lines = [json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()]
    violated = [(line["outcome"], line.get("violated_policies")) for line in lines]
    assert violated == [
        *[("allowed", None)] * 2,
        ("rate_limited", ["minute", "account-minute"]),
        ("allowed", None),
        *[("shadow_limited", ["minute"])] * 3,
        ("allowed", None),
        ("rate_limited", ["route-minute"]),
    ]


def test_a_tier_that_is_no_longer_configured_is_logged_and_counted(tmp_path: Path) -> None:
    with served(tmp_path, management=ANYWHERE) as gateway:
        key_id, secret = gateway.key()
        other = gateway.secret(tier="enterprise")
        with closing(sqlite3.connect(tmp_path / "machpay.db")) as database:
            database.execute("UPDATE accounts SET tier = 'basic' WHERE tier = 'standard'")
            (account_id,) = database.execute("SELECT id FROM accounts WHERE tier = 'basic'").fetchone()
            database.commit()
        for _ in range(3):
            assert status(ask(gateway, "/v1/x", f"Authorization: Bearer {other}")) == 200
        assert value(gateway, "machpay_unknown_tier_requests_total") == 0
        for _ in range(3):
            assert status(ask(gateway, "/v1/x", f"Authorization: Bearer {secret}")) == 200
        assert value(gateway, "machpay_unknown_tier_requests_total", tier="basic") == 3
        for _ in range(3):
            assert status(ask(gateway, "/v1/x", f"Authorization: Bearer {secret}")) == 200
        assert value(gateway, "machpay_unknown_tier_requests_total") == 6
    (line,) = [line for line in gateway.log.splitlines() if "is not configured" in line]
    assert 'WARNING machpay_gateway: Tier "basic" is not configured' in line
    assert f"of {key_id} of account {account_id}" in line
    assert secret not in gateway.log


def test_what_is_open_now_is_told(gateway: Served) -> None:
    assert value(gateway, "machpay_upstream_connections_opened_total", upstream="live") >= 1
    assert value(gateway, "machpay_connections") == value(gateway, "machpay_requests_in_flight") == 0
    assert value(gateway, "machpay_limiter_degraded") == 0
    slow = threading.Thread(target=ask, args=(gateway, "/public/slow?1"))
    slow.start()
    until(lambda: value(gateway, "machpay_requests_in_flight") == 1)
    assert value(gateway, "machpay_upstream_connections", upstream="live", state="busy") == 1
    assert value(gateway, "machpay_connections") == 1
    slow.join(30)
    until(lambda: value(gateway, "machpay_requests_in_flight") == 0)


def test_an_upstream_that_breaks_off_is_counted(gateway: Served) -> None:
    before = value(gateway, "machpay_upstream_errors_total", upstream="live", reason="lost")
    ask(gateway, "/public/reset")
    assert value(gateway, "machpay_upstream_errors_total", upstream="live", reason="lost") == before + 1


def test_limits_without_redis_are_told(tmp_path: Path) -> None:
    with running_server() as redis, served(tmp_path, settings=f'redis = "{redis.url}"', management=ANYWHERE) as gateway:
        secret = gateway.secret()
        assert status(ask(gateway, "/v1/x", f"Authorization: Bearer {secret}")) == 200
        redis.kill()
        until(lambda: value(gateway, "machpay_limiter_degraded") == 1)
        before = value(gateway, "machpay_degraded_decisions_total", mode="local")
        assert status(ask(gateway, "/v1/x", f"Authorization: Bearer {secret}")) == 200
        assert value(gateway, "machpay_degraded_decisions_total", mode="local") == before + 1
