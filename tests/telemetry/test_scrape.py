"""What happened between two looks at /metrics."""

import pytest

from machpay_gateway.telemetry.exposition import exposition
from machpay_gateway.telemetry.metrics import METRICS, Counts
from machpay_gateway.telemetry.scrape import LatencyQuantiles, Scrape, interval_between, parse_scrape

REQUESTS, DURATIONS = "machpay_requests_total", "machpay_request_duration_seconds"
BOUNDS = METRICS[DURATIONS].bounds


def reading(at: float, *counted: tuple[str, str, int, int], **gauges: float) -> Scrape:
    """Return what was told *at* a moment; *counted* is (outcome, route, requests, in which bucket)."""
    counts: Counts = {("machpay_build_info", ("1",)): [1.0]}
    counts |= {(f"machpay_{name}", ()): [value] for name, value in gauges.items()}
    for outcome, route, requests, bucket in counted:
        counts[REQUESTS, (outcome, route, "standard", "2xx")] = [requests]
        durations = counts.setdefault((DURATIONS, (route,)), [0.0] * (len(BOUNDS) + 2))
        durations[bucket] += requests
    return parse_scrape(exposition(counts, "")[0].decode(), at)


def test_rates_are_those_between_two_scrapes() -> None:
    before = reading(10.0, ("allowed", "GET /a", 100, 0))
    after = reading(
        12.0,
        ("allowed", "GET /a", 140, 0),
        ("rate_limited", "GET /a", 10, 0),
        ("allowed", "GET /b", 150, 3),
        requests_in_flight=3,
        connections=7,
        workers=2,
        workers_wanted=4,
        limiter_degraded=1,
        event_loop_lag_seconds=0.125,
    )
    seen = interval_between(before, after)
    assert (seen.seconds, seen.per_second) == (2.0, 100.0)
    assert list(seen.outcomes.items()) == [("allowed", 95.0), ("rate_limited", 5.0)]
    assert [(flow.name, flow.per_second) for flow in seen.routes] == [("GET /b", 75.0), ("GET /a", 25.0)]
    assert (seen.in_flight, seen.connections, seen.workers, seen.wanted, seen.degraded) == (3, 7, 2, 4, 1)
    assert seen.loop_lag_seconds == 0.125
    assert list(seen.routes[1].latency) == [pytest.approx(share * BOUNDS[0]) for share in (0.5, 0.95, 0.99)]
    assert seen.latency.p95 is not None
    assert BOUNDS[2] < seen.latency.p95 < BOUNDS[3]


def test_servers_that_are_out_are_those_of_the_last_scrape() -> None:
    def served(at: float, *up: float) -> Scrape:
        counts: Counts = {("machpay_build_info", ("1",)): [1.0]}
        counts |= {("machpay_upstream_server_up", ("live", f"http://{n}:1")): [value] for n, value in enumerate(up)}
        return parse_scrape(exposition(counts, "")[0].decode(), at)

    assert interval_between(served(0.0, 0, 1), served(1.0, 1, 0)).servers_out == [("live", "http://1:1")]
    assert interval_between(served(0.0, 0, 0), served(1.0, 1, 1)).servers_out == []


def test_a_duration_above_the_last_bound_is_at_least_the_bound() -> None:
    seen = interval_between(reading(0.0), reading(1.0, ("allowed", "GET /a", 1, len(BOUNDS))))
    assert seen.latency == LatencyQuantiles(BOUNDS[-1], BOUNDS[-1], BOUNDS[-1])


def test_a_counter_reset_gives_no_negative_rate() -> None:
    seen = interval_between(reading(0.0, ("allowed", "GET /a", 500, 0)), reading(1.0, ("allowed", "GET /a", 4, 0)))
    assert seen.per_second == 4.0


def test_equal_scrapes_have_no_rates() -> None:
    same = reading(0.0, ("allowed", "GET /a", 5, 0))
    seen = interval_between(same, same)
    assert (seen.per_second, seen.outcomes, seen.routes, seen.steps) == (0.0, {}, [], [])
    assert seen.latency == LatencyQuantiles(None, None, None)


@pytest.mark.parametrize("text", ["", "<html>", "up 1\n", 'machpay_requests_total{route="a} 1'])
def test_metrics_of_another_program_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_scrape(text, 0.0)


def test_processor_time_is_a_rate_and_memory_is_that_of_now() -> None:
    def used(at: float, cpu: float, memory: float) -> Scrape:
        counts: Counts = {("machpay_build_info", ("1",)): [1.0], ("process_cpu_seconds_total", ()): [cpu]}
        counts["process_resident_memory_bytes", ()] = [memory]
        return parse_scrape(exposition(counts, "")[0].decode(), at)

    seen = interval_between(used(10.0, 7.0, 1e6), used(14.0, 12.0, 2e6))
    assert (seen.processors, seen.memory_bytes) == (1.25, 2_000_000)
