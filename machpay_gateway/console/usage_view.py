"""Usage as people read it: cells of tables, sentences, and the numbers that charts are drawn from.

A page and the scripts that keep it up to date show the same, because both are given these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from machpay_gateway.console.formatting import count, milliseconds, moment
from machpay_gateway.core.decision.problem import TYPE_BASE
from machpay_gateway.core.limits.admission import STALE, LimiterUnavailable, Remaining, Stale
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.core.text import format_moment
from machpay_gateway.core.usage.counters import BOUNDS, MINUTE, QUANTILES, UsageSum
from machpay_gateway.core.usage.document import in_milliseconds
from machpay_gateway.core.usage.outcome import Outcome, OutcomeGroup
from machpay_gateway.core.usage.overview import BusiestMinute, Overview, Point, groups_of

_MOST_ROUTES = 20
_SMALLEST_SHARE = 0.001  # that is told by its number
_UNKNOWN = "not known right now"


@dataclass(frozen=True, slots=True)
class Cell:
    """What a cell says, and where it leads, or which moment it is, if it does or is."""

    text: str
    href: str = ""
    datetime: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """The head of a column."""

    name: str
    is_number: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose rows begin with what they are about."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Meter:
    """A *value* between 0 and *most*."""

    value: int
    most: int


@dataclass(frozen=True, slots=True)
class LimitMeters:
    """What a key may do, and what it has left of that; *standing* is why that is not known when it is not."""

    tier: Tier
    standing: Remaining | Stale | LimiterUnavailable

    @property
    def meters(self) -> Mapping[str, Meter | None]:
        """How much is left of the window, and how many slots are in use; None for what is not known."""
        if not isinstance(self.standing, Remaining):
            return {"left": None, "slots": None}
        tier = self.standing.tier
        return {
            "left": Meter(self.standing.left, tier.limit),
            "slots": Meter(tier.concurrency - self.standing.slots_left, tier.concurrency),
        }

    @property
    def told(self) -> Mapping[str, str]:
        """The same in words."""
        if not isinstance(self.standing, Remaining):
            why = "the key was changed just now" if self.standing is STALE else "the limiter does not answer"
            return dict.fromkeys(("left", "slots"), f"{_UNKNOWN}: {why}")
        left, slots = self.meters["left"], self.meters["slots"]
        assert left is not None  # noqa: S101 - both are known together
        assert slots is not None  # noqa: S101 - as above
        window = self.standing.tier.policy_name.replace("-", " ")
        these = "these" if " " in window else "this"
        return {
            "left": f"{count(left.value)} of {count(left.most)} left in {these} {window}",
            "slots": f"{count(slots.value)} of {count(slots.most)} in use",
        }


def told_of(overview: Overview, limits: LimitMeters | None) -> Mapping[str, str]:
    """Return what the page says in its text, by name."""
    total = overview.total
    return {
        "requests": count(total.requests),
        "refused": f"{_share(total.requests - total.allowed, total.requests)} "
        f"({count(total.requests - total.allowed)})",
        **{name: latency(total.quantile_seconds(share)) for name, share in QUANTILES.items()},
        **{str(group): count(found) for group, found in groups_of(overview.points).items()},
        "busiest": _busiest(overview.busiest, None if limits is None else limits.tier),
        **({} if limits is None else limits.told),
    }


def tables_of(overview: Overview) -> Mapping[str, Table]:
    """Return the tables of the page, by name."""
    requests = overview.total.requests
    routes, kinds = ("Route", "Requests", "Share", "Refused", "p95"), [str(group) for group in OutcomeGroup]
    return {
        "routes": Table(
            [Column(name, is_number=name != "Route") for name in routes],
            [_route_row(route, found, requests) for route, found in overview.routes[:_MOST_ROUTES]],
        ),
        "outcomes": Table(
            [
                Column("Code", is_number=False),
                Column("Status"),
                Column("Requests"),
                Column("Share"),
                Column("Kind", is_number=False),
                Column("What it means", is_number=False),
            ],
            [_outcome_row(outcome, found, requests) for outcome, found in overview.outcomes],
        ),
        "buckets": Table(
            [Column("From (UTC)", is_number=False), *map(Column, ("Requests", *kinds, *QUANTILES))],
            [_bucket_row(point, is_newest=not at) for at, point in enumerate(reversed(overview.points))],
        ),
    }


def document_of(overview: Overview, limits: LimitMeters | None) -> Mapping[str, object]:
    """Return what scripts bring the page up to date by: moments in seconds since the epoch, latencies in ms."""
    points, total = overview.points, overview.total
    return {
        "start": overview.start,
        "end": overview.end,
        "bucket_seconds": overview.period.bucket.seconds,
        "requests": total.requests,
        "allowed": total.allowed,
        "starts": [point.start for point in points],
        "groups": {str(group): [point.groups[group] for point in points] for group in OutcomeGroup},
        "latency_ms": {
            name: [in_milliseconds(point.total.quantile_seconds(share)) for point in points]
            for name, share in QUANTILES.items()
        },
        "told": told_of(overview, limits),
        "meters": {} if limits is None else limits.meters,
        "tables": {name: table.rows for name, table in tables_of(overview).items()},
    }


def latency(seconds: float | None) -> str:
    """Return how long that is; past the last bound of a histogram nothing more is known."""
    if seconds is not None and seconds >= BOUNDS[-1]:
        return f"{BOUNDS[-1]:.0f} s or more"
    return milliseconds(seconds)


def _busiest(busiest: BusiestMinute | None, tier: Tier | None) -> str:
    if busiest is None:
        return "none"
    told = f"{count(busiest.requests)} at {moment(busiest.start)}"
    if tier is None:
        return told
    window = tier.policy_name.replace("-", " ")
    limit = f"the limit of {count(tier.limit)} {'in' if ' ' in window else 'a'} {window}"
    if tier.window_seconds != MINUTE.seconds:
        return f"{told}; {limit} is for another length of time"
    return f"{told}, which took {_share(busiest.taken, tier.limit)} of {limit}"


def _route_row(route: str, found: UsageSum, requests: int) -> list[Cell]:
    cells = (
        route or "no route",
        count(found.requests),
        _share(found.requests, requests),
        _share(found.requests - found.allowed, found.requests),
        latency(found.quantile_seconds(QUANTILES["p95"])),
    )
    return [Cell(text) for text in cells]


def _outcome_row(outcome: Outcome, found: int, requests: int) -> list[Cell]:
    return [
        Cell(outcome.name, href="" if outcome.reason is None else f"{TYPE_BASE}{outcome.reason}"),
        Cell(str(outcome.status or "none")),
        Cell(count(found)),
        Cell(_share(found, requests)),
        Cell(str(outcome.group)),
        Cell(outcome.told),
    ]


def _bucket_row(point: Point, *, is_newest: bool) -> list[Cell]:
    begin = moment(point.start).removesuffix(" UTC")
    return [
        Cell(f"{begin}, so far" if is_newest else begin, datetime=format_moment(point.start)),
        Cell(count(point.total.requests)),
        *(Cell(count(point.groups[group])) for group in OutcomeGroup),
        *(Cell(latency(point.total.quantile_seconds(share))) for share in QUANTILES.values()),
    ]


def _share(part: int, whole: int) -> str:
    if not whole:
        return "–"
    share = part / whole
    return "under 0.1 %" if 0 < share < _SMALLEST_SHARE else f"{100 * share:,.1f} %"
