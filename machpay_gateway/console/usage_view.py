"""Usage as people read it: texts, table cells, and the numbers of charts.

The page and the JSON that its script updates it with are made of the same values, so that they cannot differ.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from machpay_gateway.console.formatting import format_count, format_milliseconds, format_minute
from machpay_gateway.core.brand import Brand
from machpay_gateway.core.limits.admission import STALE, LimiterUnavailable, Remaining, Stale
from machpay_gateway.core.limits.plan import LimitPolicy, Plan
from machpay_gateway.core.text import format_moment
from machpay_gateway.core.usage.counters import BOUNDS, MINUTE, QUANTILES, UsageSum
from machpay_gateway.core.usage.document import in_milliseconds
from machpay_gateway.core.usage.outcome import Outcome, OutcomeGroup
from machpay_gateway.core.usage.overview import BusiestMinute, Overview, Point, count_groups

_MAX_ROUTES = 20
_MIN_SHARE = 0.001  # a smaller share is not shown as a number
_UNKNOWN = "unavailable"


@dataclass(frozen=True, slots=True)
class TableCell:
    """The text of a cell, with a link or a time if it has one."""

    text: str
    href: str = ""
    datetime: str = ""


@dataclass(frozen=True, slots=True)
class TableColumn:
    """The header of a column."""

    name: str
    is_number: bool = True


@dataclass(frozen=True, slots=True)
class UsageTable:
    """A table. The first cell of each row is its header."""

    columns: Sequence[TableColumn]
    rows: Sequence[Sequence[TableCell]]


@dataclass(frozen=True, slots=True)
class Meter:
    """A *value* between 0 and *most*."""

    value: int
    most: int


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """The limits of a key, and what is *remaining* of them, or why that is unknown."""

    plan: Plan
    remaining: Remaining | Stale | LimiterUnavailable

    @property
    def labels(self) -> Mapping[str, str]:
        """What each meter is of, by its name."""
        windows = Counter(policy.kind for policy in self.plan.policies if _is_rate(policy))
        return {
            _meter_name(policy): _describe_policy(policy, is_one_of_several=windows[policy.kind] > 1)
            for policy in self.plan.policies
        }

    @property
    def meters(self) -> Mapping[str, Meter | None]:
        """What is left of each rate and quota, and the slots in use; None where that is unknown."""
        if not isinstance(self.remaining, Remaining):
            return dict.fromkeys(map(_meter_name, self.plan.policies))
        return {
            _meter_name(policy): Meter(policy.limit - left if policy.is_concurrency else max(0, left), policy.limit)
            for policy, left, _ in self.remaining.plan.levels(self.remaining.levels)
        }

    @property
    def texts(self) -> Mapping[str, str]:
        """The meters in words."""
        if not isinstance(self.remaining, Remaining):
            reason = "the key has just been changed" if self.remaining is STALE else "the limiter is not responding"
            return dict.fromkeys(self.meters, f"{_UNKNOWN}: {reason}")
        return {
            name: _describe_meter(meter, policy)
            for (name, meter), policy in zip(self.meters.items(), self.remaining.plan.policies, strict=True)
            if meter is not None
        }


def _meter_name(policy: LimitPolicy) -> str:
    return f"limit-{policy.name}"


def _is_rate(policy: LimitPolicy) -> bool:
    return not policy.is_concurrency and not policy.is_quota


def _window(policy: LimitPolicy) -> str:
    return policy.name.removeprefix(f"{policy.kind}-").replace("-", " ")


def _describe_policy(policy: LimitPolicy, *, is_one_of_several: bool) -> str:
    """Return the label of a meter: `Rate limit now`, `Rate limit per second now`, `Account: quota this month`."""
    if policy.is_concurrency:
        what = "concurrent requests now"
    elif policy.is_quota:
        what = f"quota this {_window(policy)}"
    else:
        what = f"rate limit per {_window(policy)} now" if is_one_of_several else "rate limit now"
    owner = "" if policy.kind == "key" else f"{policy.kind}: "
    shadow = "" if policy.enforced else " (not enforced)"
    return f"{owner}{what}{shadow}".capitalize()


def _describe_meter(meter: Meter, policy: LimitPolicy) -> str:
    of = f"{format_count(meter.value)} of {format_count(meter.most)}"
    if policy.is_concurrency:
        return f"{of} in use"
    window = _window(policy)
    return f"{of} left in {'these' if ' ' in window else 'this'} {window}"


def usage_texts(overview: Overview, limits: KeyLimits | None) -> Mapping[str, str]:
    """Return the texts of the page by name."""
    total = overview.total
    refused = total.requests - total.allowed
    return {
        "requests": format_count(total.requests),
        "refused": f"{_format_share(refused, total.requests)} ({format_count(refused)})",
        **{name: format_latency(total.quantile_seconds(share)) for name, share in QUANTILES.items()},
        **{str(group): format_count(count) for group, count in count_groups(overview.points).items()},
        "busiest": _describe_busiest(overview.busiest, None if limits is None else limits.plan),
        **({} if limits is None else limits.texts),
    }


def usage_tables(overview: Overview, brand: Brand) -> Mapping[str, UsageTable]:
    """Return the tables of the page by name."""
    requests = overview.total.requests
    routes, groups = ("Route", "Requests", "Share", "Refused", "p95"), [str(group) for group in OutcomeGroup]
    return {
        "routes": UsageTable(
            [TableColumn(name, is_number=name != "Route") for name in routes],
            [_route_row(route, usage, requests) for route, usage in overview.routes[:_MAX_ROUTES]],
        ),
        "outcomes": UsageTable(
            [
                TableColumn("Code", is_number=False),
                TableColumn("Status"),
                TableColumn("Requests"),
                TableColumn("Share"),
                TableColumn("Kind", is_number=False),
                TableColumn("Description", is_number=False),
            ],
            [_outcome_row(outcome, count, requests, brand) for outcome, count in overview.outcomes],
        ),
        "buckets": UsageTable(
            [TableColumn("From (UTC)", is_number=False), *map(TableColumn, ("Requests", *groups, *QUANTILES))],
            [_bucket_row(point, is_newest=not at) for at, point in enumerate(reversed(overview.points))],
        ),
    }


def usage_json(overview: Overview, limits: KeyLimits | None, brand: Brand) -> Mapping[str, object]:
    """Return what scripts update the page with: times in seconds since the epoch, latencies in milliseconds."""
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
        "told": usage_texts(overview, limits),
        "meters": {} if limits is None else limits.meters,
        "tables": {name: table.rows for name, table in usage_tables(overview, brand).items()},
    }


def format_latency(seconds: float | None) -> str:
    """Return a quantile of latency. A histogram does not resolve anything past its last bound."""
    if seconds is not None and seconds >= BOUNDS[-1]:
        return f"{BOUNDS[-1]:.0f} s or more"
    return format_milliseconds(seconds)


def _describe_busiest(busiest: BusiestMinute | None, plan: Plan | None) -> str:
    if busiest is None:
        return "none"
    text = f"{format_count(busiest.requests)} at {format_minute(busiest.start)}"
    rates = () if plan is None else plan.parts[0].limits.rates
    if not rates:
        return text
    rate = next((rate for rate in rates if rate.window_seconds == MINUTE.seconds), rates[0])
    window = rate.name.replace("-", " ")
    limit = f"the limit of {format_count(rate.limit)} {'in' if ' ' in window else 'per'} {window}"
    if rate.window_seconds != MINUTE.seconds:
        return f"{text} ({limit} does not compare to a minute)"
    return f"{text}, {_format_share(busiest.taken, rate.limit)} of {limit}"


def _route_row(route: str, usage: UsageSum, requests: int) -> list[TableCell]:
    cells = (
        route or "no route",
        format_count(usage.requests),
        _format_share(usage.requests, requests),
        _format_share(usage.requests - usage.allowed, usage.requests),
        format_latency(usage.quantile_seconds(QUANTILES["p95"])),
    )
    return [TableCell(text) for text in cells]


def _outcome_row(outcome: Outcome, count: int, requests: int, brand: Brand) -> list[TableCell]:
    return [
        TableCell(outcome.name, href="" if outcome.reason is None else brand.problem_type(outcome.reason)),
        TableCell(str(outcome.status or "none")),
        TableCell(format_count(count)),
        TableCell(_format_share(count, requests)),
        TableCell(str(outcome.group)),
        TableCell(outcome.description),
    ]


def _bucket_row(point: Point, *, is_newest: bool) -> list[TableCell]:
    start = format_minute(point.start).removesuffix(" UTC")
    return [
        TableCell(f"{start}, so far" if is_newest else start, datetime=format_moment(point.start)),
        TableCell(format_count(point.total.requests)),
        *(TableCell(format_count(point.groups[group])) for group in OutcomeGroup),
        *(TableCell(format_latency(point.total.quantile_seconds(share))) for share in QUANTILES.values()),
    ]


def _format_share(part: int, whole: int) -> str:
    if not whole:
        return "–"
    share = part / whole
    return "under 0.1%" if 0 < share < _MIN_SHARE else f"{100 * share:,.1f}%"
