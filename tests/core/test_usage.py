"""What counted decisions add up to."""

import pytest

from machpay_gateway.core.errors import InputError
from machpay_gateway.core.usage.counters import (
    BOUNDS,
    DAY,
    HOUR,
    MAX_BUCKETS,
    MINUTE,
    UsageKey,
    UsageReport,
    UsageRow,
    merge_rows,
    parse_period,
    sum_of,
)
from machpay_gateway.core.usage.document import usage_document

MIDNIGHT = 1_699_920_000


def row(start: int = MIDNIGHT, *, route: str = "GET /a", outcome: str = "allowed", **latencies: int) -> UsageRow:
    """Return a row with so many requests at or below each bound: `le_5ms=3`."""
    histogram = [0] * (len(BOUNDS) + 1)
    for name, count in latencies.items():
        bound = float(name.removeprefix("le_").removesuffix("ms")) / 1000 if name != "slower" else None
        histogram[len(BOUNDS) if bound is None else BOUNDS.index(bound)] = count
    status = 200 if outcome == "allowed" else 429
    return UsageRow(UsageKey("key_1", start, route, outcome, status), 0.25, tuple(histogram))


def test_a_longer_bucket_holds_what_the_shorter_ones_do() -> None:
    minutes = [row(MIDNIGHT + 60 * number, le_5ms=2) for number in range(180)]
    hours = merge_rows(minutes, HOUR)
    assert [(each.key.start, each.count, each.seconds) for each in hours] == [
        (MIDNIGHT + 3600 * number, 120, 15.0) for number in range(3)
    ]
    assert [each.count for each in merge_rows(hours, DAY)] == [360]


def test_rows_of_different_kinds_stay_apart() -> None:
    rows = [row(le_5ms=1), row(outcome="rate_limited", le_1ms=1), row(route="GET /b", le_5ms=1), row(le_10ms=1)]
    assert sorted((each.key.route, each.key.outcome, each.count) for each in merge_rows(rows, DAY)) == [
        ("GET /a", "allowed", 2),
        ("GET /a", "rate_limited", 1),
        ("GET /b", "allowed", 1),
    ]


def test_a_sum_tells_each_kind_by_its_name() -> None:
    found = sum_of([row(le_5ms=3), row(outcome="rate_limited", le_1ms=1), row(route="GET /b", le_5ms=1)])
    assert (found.requests, found.allowed, found.mean_seconds) == (5, 4, 0.15)
    assert found.outcomes == {"allowed": 4, "rate_limited": 1}
    assert found.statuses == {200: 4, 429: 1}
    assert found.routes == {"GET /a": 4, "GET /b": 1}


@pytest.mark.parametrize(
    "latencies, share, expected",
    [
        ({"le_5ms": 100}, 0.5, 0.00375),  # in the middle of its bucket, from 2.5 to 5 ms
        ({"le_5ms": 100}, 1.0, 0.005),
        ({"le_1ms": 90, "le_1000ms": 10}, 0.5, 0.001 * 50 / 90),
        ({"le_1ms": 90, "le_1000ms": 10}, 0.95, 0.75),
        ({"le_1ms": 1}, 0.99, 0.00099),
        ({"slower": 5}, 0.5, 10.0),  # all that is known is that it was more
        ({}, 0.5, None),
    ],
)
def test_a_quantile_is_told_within_its_bucket(latencies: dict[str, int], share: float, expected: float | None) -> None:
    found = sum_of([row(**latencies)]).quantile_seconds(share)  # type: ignore[arg-type] # latencies only
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    "start, end, bucket, expected",
    [
        (MIDNIGHT + 61, MIDNIGHT + 119, "minute", (MINUTE, MIDNIGHT + 60, MIDNIGHT + 120)),  # whole buckets
        (MIDNIGHT, MIDNIGHT + 3600, "hour", (HOUR, MIDNIGHT, MIDNIGHT + 3600)),
        (MIDNIGHT + 1, MIDNIGHT + 86_401, "day", (DAY, MIDNIGHT, MIDNIGHT + 2 * 86_400)),
        (MIDNIGHT, MIDNIGHT + 60 * MAX_BUCKETS, "minute", (MINUTE, MIDNIGHT, MIDNIGHT + 60 * MAX_BUCKETS)),
    ],
)
def test_a_period_is_whole_buckets(start: float, end: float, bucket: str, expected: tuple[object, int, int]) -> None:
    assert parse_period(start, end, bucket) == expected


@pytest.mark.parametrize(
    "start, end, bucket, told",
    [
        (MIDNIGHT, MIDNIGHT + 1, "week", "use minute, hour, day"),
        (MIDNIGHT, MIDNIGHT, "hour", "the earlier first"),
        (MIDNIGHT + 1, MIDNIGHT, "hour", "the earlier first"),
        (-1, MIDNIGHT, "hour", "after 1970"),
        (float("nan"), MIDNIGHT, "hour", "after 1970"),
        (MIDNIGHT, float("inf"), "day", "the earlier first"),
        (
            MIDNIGHT,
            MIDNIGHT + 60 * MAX_BUCKETS + 1,
            "minute",
            "1,501 buckets of a minute are too many: use at most 1,500",
        ),
    ],
)
def test_a_period_that_cannot_be_reported_on_is_told(start: float, end: float, bucket: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        parse_period(start, end, bucket)


def test_a_document_tells_each_bucket_and_all_of_them() -> None:
    rows = [row(le_5ms=1), row(MIDNIGHT + 7200, outcome="rate_limited", le_1ms=3)]
    document = usage_document(UsageReport("key_1", HOUR, MIDNIGHT, MIDNIGHT + 10_800, rows))
    assert [(each["start"], each["requests"]) for each in document["data"]] == [
        ("2023-11-14T00:00:00Z", 1),
        ("2023-11-14T02:00:00Z", 3),
    ]
    assert (document["from"], document["to"]) == ("2023-11-14T00:00:00Z", "2023-11-14T03:00:00Z")
    total = document["total"]
    assert (total["requests"], total["allowed"], total["refused"]) == (4, 1, 3)
    assert (total["statuses"], total["routes"]) == ({"200": 1, "429": 3}, {"GET /a": 4})
    assert total["latency_ms"] == {"mean": 125.0, "p50": 0.667, "p95": 4.5, "p99": 4.9}


def test_a_document_of_nothing_has_no_latency() -> None:
    document = usage_document(UsageReport("key_1", HOUR, MIDNIGHT, MIDNIGHT + 3600, []))
    assert document["data"] == []
    assert document["total"]["latency_ms"] == {"mean": None, "p50": None, "p95": None, "p99": None}
