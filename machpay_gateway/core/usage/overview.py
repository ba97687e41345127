"""An overview of usage: over time with empty buckets included, by route and by outcome.

It knows nothing of how pages render it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from machpay_gateway.core.usage.counters import (
    DAY,
    HOUR,
    MINUTE,
    Bucket,
    UsageRow,
    UsageSum,
    sum_of,
    sums_by_start,
)
from machpay_gateway.core.usage.outcome import Outcome, OutcomeGroup


@dataclass(frozen=True, slots=True)
class OverviewPeriod:
    """A period up to now, in a whole number of *bucket*s."""

    name: str
    label: str
    seconds: int
    bucket: Bucket

    def span(self, now: float) -> tuple[int, int]:
        """Return the start of its first bucket and the end of its last one, which contains *now*."""
        end = self.bucket.start_of(now) + self.bucket.seconds
        return end - self.seconds, end


# A day has hours: 1,440 minutes do not fit on a screen, and reading them takes sixty times as long.
PERIODS: Mapping[str, OverviewPeriod] = {
    period.name: period
    for period in (
        OverviewPeriod("hour", "Last hour", HOUR.seconds, MINUTE),
        OverviewPeriod("day", "Last day", DAY.seconds, HOUR),
        OverviewPeriod("week", "Last 7 days", 7 * DAY.seconds, HOUR),
        OverviewPeriod("month", "Last 30 days", 30 * DAY.seconds, DAY),
    )
}


@dataclass(frozen=True, slots=True)
class Point:
    """The bucket that begins at *start*: its sum, and the number of requests in each group."""

    start: int
    total: UsageSum
    groups: Mapping[OutcomeGroup, int]


@dataclass(frozen=True, slots=True)
class BusiestMinute:
    """The minute with the most requests, which begins at *start*, and the units of a limit *taken* in it."""

    start: int
    requests: int
    taken: int


@dataclass(frozen=True, slots=True)
class Overview:
    """The usage in the buckets of a *period* from *start* up to *end*. The last bucket is not over.

    *routes* and *outcomes* begin with the most frequent. *busiest* is None without stored minutes, or when it was not
    queried.
    """

    period: OverviewPeriod
    start: int
    end: int
    total: UsageSum
    points: Sequence[Point]
    routes: Sequence[tuple[str, UsageSum]]
    outcomes: Sequence[tuple[Outcome, int]]
    busiest: BusiestMinute | None


def build_overview(
    period: OverviewPeriod,
    start: int,
    end: int,
    *,
    over_time: Sequence[UsageRow],
    by_route: Sequence[UsageRow],
    busiest: BusiestMinute | None,
) -> Overview:
    """Return the overview of the rows *over_time*, summed over routes, and *by_route*, summed over time."""
    return Overview(
        period,
        start,
        end,
        sum_of(over_time),
        count_by_bucket(over_time, period.bucket, start, end),
        sum_by_route(by_route),
        count_outcomes(by_route),
        busiest,
    )


def count_by_bucket(rows: Sequence[UsageRow], bucket: Bucket, start: int, end: int) -> list[Point]:
    """Return a point for each *bucket* from *start* up to *end*, with and without requests."""
    sums = dict(sums_by_start(rows))
    groups: Counter[tuple[int, OutcomeGroup]] = Counter()
    for row in rows:
        groups[row.key.start, Outcome.of(row.key.outcome, row.key.status).group] += row.count
    empty = sum_of(())
    return [
        Point(each, sums.get(each, empty), {group: groups[each, group] for group in OutcomeGroup})
        for each in range(start, end, bucket.seconds)
    ]


def sum_by_route(rows: Iterable[UsageRow]) -> list[tuple[str, UsageSum]]:
    """Return the sum of each route, the most frequent first."""
    in_order = sorted(rows, key=lambda row: row.key.route)
    sums = [(route, sum_of(group)) for route, group in groupby(in_order, key=lambda row: row.key.route)]
    return sorted(sums, key=lambda each: -each[1].requests)


def count_outcomes(rows: Iterable[UsageRow]) -> list[tuple[Outcome, int]]:
    """Return the number of requests of each outcome, the most frequent first."""
    counts: Counter[tuple[str, int]] = Counter()
    for row in rows:
        counts[row.key.outcome, row.key.status] += row.count
    in_order = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return [(Outcome.of(*kind), count) for kind, count in in_order]


def count_groups(points: Iterable[Point]) -> Mapping[OutcomeGroup, int]:
    """Return the number of requests of each group in all *points*."""
    counts: Counter[OutcomeGroup] = Counter()
    for point in points:
        counts.update(point.groups)
    return {group: counts[group] for group in OutcomeGroup}
