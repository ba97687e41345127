"""The metrics, and how the counts of several workers add up.

This module must not learn where counts are stored, nor the format they are exposed in. The value of a series is a list
of numbers, so that merging is addition: one number for a counter or gauge; for a histogram, the count of each bucket
and then the sum.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from operator import add
from typing import NamedTuple

from machpay_gateway.core.usage.counters import BOUNDS as REQUEST_BOUNDS
from machpay_gateway.core.usage.counters import UsageRow
from machpay_gateway.telemetry.steps import BOUNDS as STEP_BOUNDS

NONE = "-"  # the value of a label that does not apply: no listed route, no tier, no status
BATCH_BOUNDS = (1, 2, 4, 8, 16, 24, 32, 64, 128, 256)

Series = tuple[str, tuple[str, ...]]  # a metric's name, and the values of its labels
Counts = dict[Series, list[float]]


class MetricKind(Enum):
    """The type of a metric, as Prometheus names it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


Merge = Callable[[float, float], float]


def furthest(one: float, other: float) -> float:
    """Return the number that is further from 0."""
    return max(one, other, key=abs)


class Metric(NamedTuple):
    """One metric. *bounds* are the inclusive upper bounds of a histogram's buckets.

    *merge* returns the value of two workers together, from the value of each: the sum, unless that says nothing.
    """

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()
    bounds: Sequence[float] = ()
    merge: Merge = add

    @property
    def size(self) -> int:
        """How many numbers a series of it has."""
        return len(self.bounds) + 2 if self.kind is MetricKind.HISTOGRAM else 1


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "machpay_requests_total",
            MetricKind.COUNTER,
            "Requests that have ended, by what became of them.",
            ("outcome", "route", "tier", "code"),
        ),
        Metric(
            "machpay_policy_violations_total",
            MetricKind.COUNTER,
            "Requests over a limit, refused or only counted, by each policy that had no room for them.",
            ("policy", "outcome", "route", "tier"),
        ),
        Metric(
            "machpay_unknown_tier_requests_total",
            MetricKind.COUNTER,
            "Requests of callers whose tier, or whose account's, is not configured.",
            ("tier",),
        ),
        Metric(
            "machpay_request_duration_seconds",
            MetricKind.HISTOGRAM,
            "From a request's head to the end of its answer.",
            ("route",),
            REQUEST_BOUNDS,
        ),
        Metric(
            "machpay_step_duration_seconds",
            MetricKind.HISTOGRAM,
            "What the steps of requests took: decide, of it admission (the wait for Redis), and upstream.",
            ("step",),
            STEP_BOUNDS,
        ),
        Metric(
            "machpay_admission_batches_total",
            MetricKind.COUNTER,
            "Calls to Redis, to decide on requests and to give slots back.",
        ),
        Metric(
            "machpay_admission_batch_size",
            MetricKind.HISTOGRAM,
            "How many callers one call to Redis was about.",
            bounds=BATCH_BOUNDS,
        ),
        Metric("machpay_limiter_degraded", MetricKind.GAUGE, "Workers that decide on limits without Redis now."),
        Metric(
            "machpay_degraded_decisions_total",
            MetricKind.COUNTER,
            "Decisions on limits that were made without Redis, by on_limiter_failure.",
            ("mode",),
        ),
        Metric(
            "machpay_shed_requests_total",
            MetricKind.COUNTER,
            "Requests of accounts that flooded an overloaded worker, which were refused at once.",
        ),
        Metric(
            "machpay_restored_records_total",
            MetricKind.COUNTER,
            "Records that the database has in an older version than Redis, because a backup was restored.",
        ),
        Metric(
            "machpay_key_cache_lookups_total",
            MetricKind.COUNTER,
            "Keys and sessions that were presented: a hit was known, for a miss the key store was asked.",
            ("result",),
        ),
        Metric(
            "machpay_key_cache_entries", MetricKind.GAUGE, "Secrets in the key cache, with those known to be nobody's."
        ),
        Metric(
            "machpay_upstream_connections",
            MetricKind.GAUGE,
            "Connections to upstreams: busy with a request, or idle.",
            ("upstream", "state"),
        ),
        Metric(
            "machpay_upstream_connections_opened_total",
            MetricKind.COUNTER,
            "Connections to upstreams that were opened.",
            ("upstream",),
        ),
        Metric(
            "machpay_upstream_errors_total",
            MetricKind.COUNTER,
            "Times that an upstream's server failed: connect, timeout, lost or malformed.",
            ("upstream", "reason"),
        ),
        Metric(
            "machpay_upstream_retries_total",
            MetricKind.COUNTER,
            "Requests that were sent to another server because of the status of a response.",
            ("upstream",),
        ),
        Metric(
            "machpay_upstream_server_up",
            MetricKind.GAUGE,
            "Whether an upstream's server gets requests: 0 while health checks or errors keep others preferred.",
            ("upstream", "server"),
            merge=min,
        ),
        Metric("machpay_connections", MetricKind.GAUGE, "Connections of callers."),
        Metric(
            "machpay_requests_in_flight", MetricKind.GAUGE, "Requests that are being decided on, carried or answered."
        ),
        Metric("machpay_workers", MetricKind.GAUGE, "Workers that live."),
        Metric("machpay_workers_wanted", MetricKind.GAUGE, "Workers that the settings ask for."),
        Metric(
            "machpay_worker_snapshots_unreadable",
            MetricKind.GAUGE,
            "Files with what workers count that cannot be read.",
        ),
        Metric(
            "machpay_usage_unstored", MetricKind.GAUGE, "Requests that are counted and not yet in the stored usage."
        ),
        Metric(
            "machpay_forwarding_ignored_total",
            MetricKind.COUNTER,
            "Requests whose forwarding header was ignored, because their peer is not a trusted proxy.",
        ),
        Metric("machpay_access_log_lost_total", MetricKind.COUNTER, "Lines that are not in the access log."),
        Metric(
            "machpay_certificate_expiry_timestamp_seconds",
            MetricKind.GAUGE,
            "When a certificate for callers expires, in seconds since the epoch, by its file.",
            ("file",),
            merge=min,
        ),
        Metric(
            "machpay_certificates_stale",
            MetricKind.GAUGE,
            "Workers that serve earlier certificates, because the new files cannot be used.",
        ),
        Metric(
            "machpay_clock_skew_seconds",
            MetricKind.GAUGE,
            "How far the clock of the worker that is furthest off is ahead of that of redis or the database.",
            ("against",),
            merge=furthest,
        ),
        Metric(
            "machpay_policy_info",
            MetricKind.GAUGE,
            "Workers that serve by the policy with this digest: routes, tiers and all other settings that decide.",
            ("digest",),
        ),
        Metric(
            "machpay_policy_age_seconds",
            MetricKind.GAUGE,
            "How long ago the worker with the oldest policy has loaded it.",
            merge=max,
        ),
        Metric(
            "machpay_event_loop_lag_seconds",
            MetricKind.GAUGE,
            "How late the latest worker's event loop was to run a timer, at most, in the last 15 s.",
            merge=max,
        ),
        Metric(
            "machpay_database_pool_in_use",
            MetricKind.GAUGE,
            "Connections to the database that are in use.",
            ("pool",),
        ),
        Metric(
            "machpay_database_pool_size", MetricKind.GAUGE, "Connections to the database that may be open.", ("pool",)
        ),
        Metric(
            "machpay_database_pool_waiting",
            MetricKind.GAUGE,
            "Queries that wait for a connection to the database.",
            ("pool",),
        ),
        Metric("process_cpu_seconds_total", MetricKind.COUNTER, "Processor time of all workers, user and system."),
        Metric("process_resident_memory_bytes", MetricKind.GAUGE, "Resident memory of all workers."),
        Metric("process_open_fds", MetricKind.GAUGE, "Open file descriptors of all workers."),
        Metric(
            "machpay_build_info", MetricKind.GAUGE, "The version that is installed where this was asked.", ("version",)
        ),
    )
}


class RequestCounts:
    """Counts of requests. They are added once a second, all requests with the same labels together."""

    def __init__(self) -> None:
        """Start with nothing counted."""
        self.counts: Counts = {}

    def add(self, tier: str, row: UsageRow, policies: Iterable[str] = ()) -> None:
        """Count the requests of *row*, by callers of that *tier*, each of which violated all of *policies*."""
        key = row.key
        route = key.route or NONE
        code = f"{key.status // 100}xx" if key.status else NONE
        _count(self.counts, ("machpay_requests_total", (key.outcome, route, tier, code)), [row.count])
        _count(self.counts, ("machpay_request_duration_seconds", (route,)), [*row.histogram, row.seconds])
        for policy in policies:
            _count(self.counts, ("machpay_policy_violations_total", (policy, key.outcome, route, tier)), [row.count])


class Snapshot(NamedTuple):
    """The counts of one worker, and whether it *lives*: the gauges of an ended worker do not count."""

    counts: Mapping[Series, Sequence[float]]
    lives: bool


def merge_snapshots(snapshots: Iterable[Snapshot]) -> Counts:
    """Return the sums of counters and histograms over all workers, and gauges over living ones, merged as each asks.

    Series that are unknown here are left out: a worker of another version may have them.
    """
    counts: Counts = {}
    for snapshot in snapshots:
        for series, values in snapshot.counts.items():
            metric = METRICS.get(series[0])
            if metric is None or len(values) != metric.size or len(series[1]) != len(metric.labels):
                continue
            if snapshot.lives or metric.kind is not MetricKind.GAUGE:
                _count(counts, series, values, metric.merge)
    return counts


def batch_size_histogram(batches: Mapping[int, int]) -> list[float]:
    """Return the histogram of *batches*, which holds the number of batches of each size."""
    series = [0.0] * (len(BATCH_BOUNDS) + 2)
    for size, count in batches.items():
        series[bisect_left(BATCH_BOUNDS, size)] += count
        series[-1] += size * count
    return series


def _count(counts: Counts, series: Series, values: Sequence[float], merge: Merge = add) -> None:
    total = counts.get(series)
    counts[series] = list(values) if total is None else list(map(merge, total, values))
