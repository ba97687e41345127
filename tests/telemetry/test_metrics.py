"""What the counts of several workers add up to."""

from collections.abc import Sequence
from functools import reduce
from operator import add

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machpay_gateway.core.usage.counters import BOUNDS, UsageKey, UsageRow
from machpay_gateway.telemetry.metrics import (
    METRICS,
    Counts,
    MetricKind,
    RequestCounts,
    Series,
    Snapshot,
    batch_size_histogram,
    furthest,
    merge_snapshots,
)

LOST: Series = ("machpay_access_log_lost_total", ())
OPEN: Series = ("machpay_connections", ())
SIZE: Series = ("machpay_admission_batch_size", ())


def histogram(first: int) -> list[float]:
    return [first, *[0.0] * (METRICS[SIZE[0]].size - 1)]


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Draw the counts of a worker: whole numbers, which add up in any order."""
    numbers = st.integers(0, 2**40)
    counts: Counts = {}
    for metric in draw(st.lists(st.sampled_from(list(METRICS.values())), max_size=6, unique=True)):
        labels = tuple(draw(st.sampled_from(["a", "b"])) for _ in metric.labels)
        counts[metric.name, labels] = draw(st.lists(numbers, min_size=metric.size, max_size=metric.size))
    return Snapshot(counts, draw(st.booleans()))


@given(st.lists(snapshots(), max_size=4))
def test_counts_are_the_sums_of_all_and_gauges_of_those_that_live(workers: Sequence[Snapshot]) -> None:
    sums = merge_snapshots(workers)
    for series, values in sums.items():
        is_gauge = METRICS[series[0]].kind is MetricKind.GAUGE
        theirs = [it.counts[series] for it in workers if series in it.counts and (it.lives or not is_gauge)]
        assert values == [reduce(METRICS[series[0]].merge, numbers) for numbers in zip(*theirs, strict=True)]
    assert set(sums) == {
        series for it in workers for series in it.counts if it.lives or METRICS[series[0]].kind is not MetricKind.GAUGE
    }


def test_a_gauge_of_which_the_sum_says_nothing_is_that_of_the_worst_worker() -> None:
    assert {name: it.merge for name, it in METRICS.items() if it.merge is not add} == {
        "machpay_clock_skew_seconds": furthest,
        "machpay_certificate_expiry_timestamp_seconds": min,
        "machpay_policy_age_seconds": max,
        "machpay_event_loop_lag_seconds": max,
        "machpay_upstream_server_up": min,
    }
    skew: Series = ("machpay_clock_skew_seconds", ("redis",))
    workers = [Snapshot({skew: [seconds]}, lives=True) for seconds in (0.01, -3600.0, 0.02)]
    assert merge_snapshots(workers) == {skew: [-3600.0]}


@given(st.lists(snapshots(), max_size=4), st.integers(0, 4))
def test_merging_is_associative(workers: Sequence[Snapshot], many: int) -> None:
    ended = [it._replace(lives=False) for it in workers[:many]]
    folded = Snapshot(merge_snapshots(ended), lives=False)
    assert merge_snapshots([folded, *workers[many:]]) == merge_snapshots([*ended, *workers[many:]])


@pytest.mark.parametrize(
    "counts",
    [
        {("machpay_of_another_version", ()): [1.0]},
        {SIZE: [1.0]},  # of a histogram with other buckets
        {("machpay_access_log_lost_total", ("file",)): [1.0]},  # with other labels
    ],
)
def test_unknown_series_are_left_out(counts: Counts) -> None:
    assert merge_snapshots([Snapshot(counts, lives=True), Snapshot({LOST: [2.0]}, lives=True)]) == {LOST: [2.0]}


def test_the_counts_of_a_worker_that_ended_stay_and_its_gauges_do_not() -> None:
    living, ended = {LOST: [1.0], OPEN: [4.0], SIZE: histogram(2)}, {LOST: [2.0], OPEN: [3.0], SIZE: histogram(1)}
    assert merge_snapshots([Snapshot(living, lives=True), Snapshot(ended, lives=False)]) == {
        LOST: [3.0],
        OPEN: [4.0],
        SIZE: histogram(3),
    }


@pytest.mark.parametrize(
    "tier, route, status, labels",
    [
        ("standard", "GET /v1/skills", 204, ("allowed", "GET /v1/skills", "standard", "2xx")),
        ("-", "GET /v1/skills", 503, ("allowed", "GET /v1/skills", "-", "5xx")),
        ("-", "", 0, ("allowed", "-", "-", "-")),  # unlisted, and an application that gave no status
    ],
)
def test_labels_of_requests_are_bounded(tier: str, route: str, status: int, labels: tuple[str, ...]) -> None:
    buckets = (2, *[0] * (len(BOUNDS) - 1), 1)
    requests = RequestCounts()
    for start in (0, 60):
        requests.add(tier, UsageRow(UsageKey("key_1", start, route, "allowed", status), 20.5, buckets))
    assert requests.counts == {
        ("machpay_requests_total", labels): [6],
        ("machpay_request_duration_seconds", (labels[1],)): [4, *[0] * (len(BOUNDS) - 1), 2, 41.0],
    }


def test_batches_fall_into_the_bucket_that_holds_their_size() -> None:
    series = dict(
        zip([*METRICS[SIZE[0]].bounds, "more", "sum"], batch_size_histogram({1: 5, 3: 1, 24: 2, 300: 1}), strict=True)
    )
    assert {bound: count for bound, count in series.items() if count} == {
        1: 5,
        4: 1,
        24: 2,
        "more": 1,
        "sum": 5 + 3 + 48 + 300,
    }


def test_every_label_is_bounded() -> None:
    labels = {label for metric in METRICS.values() for label in metric.labels}
    assert labels == {
        "outcome",
        "policy",
        "route",
        "tier",
        "code",
        "step",
        "mode",
        "result",
        "upstream",
        "server",
        "state",
        "reason",
        "version",
        "against",
        "digest",
        "file",
        "pool",
    }
