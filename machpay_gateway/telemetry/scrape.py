"""Scrapes of `/metrics`, and the rates between two of them, for `machpay-gateway top`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from machpay_gateway.core.usage.counters import QUANTILES, quantile_seconds

Labels = tuple[tuple[str, str], ...]
_REQUESTS, _DURATIONS = "machpay_requests_total", "machpay_request_duration_seconds_bucket"
_STEPS = "machpay_step_duration_seconds_bucket"
_NO_GATEWAY = "these are not the metrics of a gateway"


class Scrape(NamedTuple):
    """All samples *at* a moment, in seconds of a monotonic clock, by name and labels."""

    at: float
    samples: Mapping[str, Mapping[Labels, float]]

    def total(self, name: str) -> int:
        """Return the sum of the samples of that *name*."""
        return int(self.sum_of(name))

    def sum_of(self, name: str) -> float:
        """Return that sum with its fraction."""
        return sum(self.samples.get(name, {}).values())


class LatencyQuantiles(NamedTuple):
    """Quantiles in seconds; None if there were no requests."""

    p50: float | None
    p95: float | None
    p99: float | None


class Flow(NamedTuple):
    """The rate and the latency of the requests of one route, or of one step."""

    name: str
    per_second: float
    latency: LatencyQuantiles


@dataclass(frozen=True, slots=True)
class Interval:
    """The rates over *seconds*; *outcomes* are per second. *degraded* workers decide without Redis.

    *wanted* is the number of workers that should run. *processors* is how many the workers have used on average.
    *servers_out* are the servers of upstreams for which others are preferred, each after its upstream's name.
    """

    seconds: float
    per_second: float
    outcomes: Mapping[str, float]
    latency: LatencyQuantiles
    routes: Sequence[Flow]
    steps: Sequence[Flow]
    in_flight: int
    connections: int
    workers: int
    wanted: int
    degraded: int
    processors: float
    memory_bytes: int
    loop_lag_seconds: float
    servers_out: Sequence[tuple[str, str]]


def parse_scrape(text: str, at: float) -> Scrape:
    """Return the samples in *text*, in Prometheus' format. Raises ValueError if they are not of a gateway."""
    samples: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    if "machpay_build_info" not in samples:
        raise ValueError(_NO_GATEWAY)
    return Scrape(at, samples)


def interval_between(before: Scrape, after: Scrape) -> Interval:
    """Return the rates between the scrapes *before* and *after*."""
    seconds = max(after.at - before.at, 1e-9)
    requests = _increases(before, after, _REQUESTS)
    outcomes = _sums_by(requests, "outcome")
    of_routes = _sums_by(requests, "route")
    durations, steps = _increases(before, after, _DURATIONS), _increases(before, after, _STEPS)
    buckets_of_steps = {name: _buckets(steps, ("step", name)) for name in _sums_by(steps, "step")}
    return Interval(
        seconds,
        sum(outcomes.values()) / seconds,
        {name: count / seconds for name, count in _by_count(outcomes)},
        _latency(_buckets(durations)),
        [
            Flow(name, count / seconds, _latency(_buckets(durations, ("route", name))))
            for name, count in _by_count(of_routes)
        ],
        [
            Flow(name, buckets[-1][1] / seconds, _latency(buckets))
            for name, buckets in buckets_of_steps.items()
            if buckets and buckets[-1][1]
        ],
        after.total("machpay_requests_in_flight"),
        after.total("machpay_connections"),
        after.total("machpay_workers"),
        after.total("machpay_workers_wanted"),
        after.total("machpay_limiter_degraded"),
        sum(_increases(before, after, "process_cpu_seconds_total").values()) / seconds,
        after.total("process_resident_memory_bytes"),
        after.sum_of("machpay_event_loop_lag_seconds"),
        [
            (dict(labels)["upstream"], dict(labels)["server"])
            for labels, is_up in after.samples.get("machpay_upstream_server_up", {}).items()
            if not is_up
        ],
    )


def _increases(before: Scrape, after: Scrape, name: str) -> dict[Labels, float]:
    """Return the increase of each counter of that *name*; a counter that decreased was reset to 0."""
    earlier = before.samples.get(name, {})
    increases = {}
    for labels, value in after.samples.get(name, {}).items():
        increase = value - earlier.get(labels, 0.0)
        increases[labels] = value if increase < 0 else increase
    return increases


def _sums_by(counts: Mapping[Labels, float], label: str) -> dict[str, float]:
    sums: dict[str, float] = {}
    for labels, count in counts.items():
        value = dict(labels)[label]
        sums[value] = sums.get(value, 0.0) + count
    return sums


def _by_count(counts: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(((name, count) for name, count in counts.items() if count), key=lambda each: (-each[1], each[0]))


def _buckets(counts: Mapping[Labels, float], chosen: tuple[str, str] | None = None) -> list[tuple[float, float]]:
    """Return (upper bound, cumulative count) over all series, or over those with the label *chosen*."""
    sums: dict[float, float] = {}
    for labels, count in counts.items():
        if chosen is None or chosen in labels:
            bound = float(dict(labels)["le"])
            sums[bound] = sums.get(bound, 0.0) + count
    return sorted(sums.items())


def _latency(buckets: Sequence[tuple[float, float]]) -> LatencyQuantiles:
    """Return the quantiles of cumulative *buckets*."""
    if not buckets:
        return LatencyQuantiles(None, None, None)
    counts = [count - below for below, count in pairwise([0.0, *(count for _, count in buckets)])]
    bounds = [bound for bound, _ in buckets if bound != float("inf")]
    return LatencyQuantiles(*(quantile_seconds(counts, buckets[-1][1], share, bounds) for share in QUANTILES.values()))
