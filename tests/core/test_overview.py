"""Usage as it is looked at: nothing is left out because nothing came, and the most frequent is first."""

import pytest

from machpay_gateway.core.usage.counters import BOUNDS, HOUR, UsageKey, UsageRow, sum_of
from machpay_gateway.core.usage.outcome import Outcome, OutcomeGroup
from machpay_gateway.core.usage.overview import PERIODS, BusiestMinute, build_overview

NOON = 1_699_920_000 + 12 * 3600


def row(start: int = NOON, *, route: str = "", outcome: str = "allowed", status: int = 200, count: int = 1) -> UsageRow:
    histogram = (0, count, *(0,) * (len(BOUNDS) - 1))
    return UsageRow(UsageKey("key_1", start, route, outcome, status), 0.002 * count, histogram)


def test_every_bucket_has_a_point_and_every_point_every_group() -> None:
    over_time = [
        row(NOON, count=3),
        row(NOON, outcome="rate_limited", status=429),
        row(NOON + 2 * HOUR.seconds, status=503, count=2),
        row(NOON + 2 * HOUR.seconds, outcome="unavailable", status=503),
    ]
    overview = build_overview(
        PERIODS["day"],
        NOON,
        NOON + 3 * HOUR.seconds,
        over_time=over_time,
        by_route=[],
        busiest=BusiestMinute(NOON, 4, 3),
    )
    nothing = dict.fromkeys(OutcomeGroup, 0)
    assert [(point.start - NOON, point.groups) for point in overview.points] == [
        (0, nothing | {OutcomeGroup.ADMITTED: 3, OutcomeGroup.RATE_LIMITED: 1}),
        (3600, nothing),
        (7200, nothing | {OutcomeGroup.ERROR: 3}),
    ]
    assert [point.total.requests for point in overview.points] == [4, 0, 3]
    assert overview.points[1].total == sum_of([])
    assert overview.points[1].total.quantile_seconds(0.5) is None
    assert (overview.total.requests, overview.total.allowed) == (7, 5)


@pytest.mark.parametrize(
    "name, now, start, end",
    [
        ("day", NOON + 1800.5, NOON - 23 * 3600, NOON + 3600),
        ("day", NOON, NOON - 23 * 3600, NOON + 3600),  # the hour that begins just now
        ("hour", NOON - 0.5, NOON - 3600, NOON),
        ("month", NOON, NOON - 12 * 3600 - 29 * 86_400, NOON + 12 * 3600),
    ],
)
def test_a_period_is_as_long_as_it_says_with_the_bucket_that_goes_on(
    name: str, now: float, start: int, end: int
) -> None:
    assert PERIODS[name].span(now) == (start, end)
    assert end - start == PERIODS[name].seconds


def test_the_most_frequent_is_first_and_what_is_as_frequent_goes_by_name() -> None:
    by_route = [
        row(route="GET /b", count=2),
        row(route="GET /a", count=1),
        row(route="GET /a", outcome="rate_limited", status=429, count=1),
        row(route="GET /c", outcome="rate_limited", status=429, count=8),
    ]
    overview = build_overview(PERIODS["day"], NOON, NOON, over_time=[], by_route=by_route, busiest=None)
    assert [(route, found.requests, found.allowed) for route, found in overview.routes] == [
        ("GET /c", 8, 0),
        ("GET /a", 2, 1),
        ("GET /b", 2, 2),
    ]
    assert overview.outcomes == [(Outcome.of("rate_limited", 429), 9), (Outcome.of("allowed", 200), 3)]
