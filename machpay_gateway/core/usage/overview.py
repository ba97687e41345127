"""What usage looks like to people: over time with the empty buckets in it, by route and by outcome.

It must not learn how that is drawn or written.
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
    """How far back to look, and by which *bucket*, a whole number of which it is."""

    name: str
    told: str
    seconds: int
    bucket: Bucket

    def span(self, now: float) -> tuple[int, int]:
        """Return the start of its first bucket and the end of its last one, which *now* falls into."""
        end = self.bucket.start_of(now) + self.bucket.seconds
        return end - self.seconds, end


# A day by the hour: by the minute it is more than a screen has room for, and sixty times as much to read.
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
    """One bucket, which begins at *start*: all of it, and how many requests of each group."""

    start: int
    total: UsageSum
    groups: Mapping[OutcomeGroup, int]


@dataclass(frozen=True, slots=True)
class BusiestMinute:
    """The minute with the most requests, which begins at *start*, and how much of a limit was *taken* in it."""

    start: int
    requests: int
    taken: int


@dataclass(frozen=True, slots=True)
class Overview:
    """The usage in the buckets of a *period* from *start* up to *end*, of which the last goes on.

    *routes* and *outcomes* have the most frequent first; *busiest* is None where no minute is known,
    or none was looked for.
    """

    period: OverviewPeriod
    start: int
    end: int
    total: UsageSum
    points: Sequence[Point]
    routes: Sequence[tuple[str, UsageSum]]
    outcomes: Sequence[tuple[Outcome, int]]
    busiest: BusiestMinute | None


def overview_of(
    period: OverviewPeriod,
    start: int,
    end: int,
    *,
    over_time: Sequence[UsageRow],
    by_route: Sequence[UsageRow],
    busiest: BusiestMinute | None,
) -> Overview:
    """Return what the rows add up to: those *over_time*, of all routes, and those *by_route*, of all buckets."""
    return Overview(
        period,
        start,
        end,
        sum_of(over_time),
        points_of(over_time, period.bucket, start, end),
        routes_of(by_route),
        outcomes_of(by_route),
        busiest,
    )


def points_of(rows: Sequence[UsageRow], bucket: Bucket, start: int, end: int) -> list[Point]:
    """Return a point for each *bucket* from *start* up to *end*, with and without requests."""
    sums = dict(sums_by_start(rows))
    groups: Counter[tuple[int, OutcomeGroup]] = Counter()
    for row in rows:
        groups[row.key.start, Outcome.of(row.key.outcome, row.key.status).group] += row.count
    nothing = sum_of(())
    return [
        Point(each, sums.get(each, nothing), {group: groups[each, group] for group in OutcomeGroup})
        for each in range(start, end, bucket.seconds)
    ]


def routes_of(rows: Iterable[UsageRow]) -> list[tuple[str, UsageSum]]:
    """Return what came for each route."""
    in_order = sorted(rows, key=lambda row: row.key.route)
    found = [(route, sum_of(of_route)) for route, of_route in groupby(in_order, key=lambda row: row.key.route)]
    return sorted(found, key=lambda each: -each[1].requests)


def outcomes_of(rows: Iterable[UsageRow]) -> list[tuple[Outcome, int]]:
    """Return how often there was each outcome."""
    found: Counter[tuple[str, int]] = Counter()
    for row in rows:
        found[row.key.outcome, row.key.status] += row.count
    in_order = sorted(found.items(), key=lambda each: (-each[1], each[0]))
    return [(Outcome.of(*kind), count) for kind, count in in_order]


def groups_of(points: Iterable[Point]) -> Mapping[OutcomeGroup, int]:
    """Return how many requests of each group the *points* have together."""
    found: Counter[OutcomeGroup] = Counter()
    for point in points:
        found.update(point.groups)
    return {group: found[group] for group in OutcomeGroup}
