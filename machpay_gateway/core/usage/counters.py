"""Usage counters: rows of requests by bucket, route, outcome and status, and their sums.

Pure: it knows neither the recorder that counts nor the store that keeps the rows.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import add
from typing import Literal, NamedTuple

from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.key import ACCOUNT

# Inclusive upper bounds in seconds. A histogram has one count more, for what took longer than the last of them. The
# table has a column for each count, so another bound needs a migration.
BOUNDS: Sequence[float] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
QUANTILES: Mapping[str, float] = {"p50": 0.5, "p95": 0.95, "p99": 0.99}  # reported wherever latencies are
ALLOWED = "allowed"  # the outcome of an allowed request; the outcome of a refusal is its Reason
SHADOW_LIMITED = "shadow_limited"  # of an allowed request that is over limits which are not enforced
PREFLIGHT_OUTCOME = "preflight"  # of a CORS preflight that the gateway answered
ADMITTED_OUTCOMES = frozenset({ALLOWED, SHADOW_LIMITED})
NO_SUBJECT = ""  # of all requests without a known key or grant: unknown callers must not create rows of their own
ACCOUNT_PREFIX = f"{ACCOUNT}_"  # of the subjects that are accounts, which are counted besides their keys
MAX_BUCKETS = 1500  # in one report: a day of minutes, two months of hours
_DAY_SECONDS = 86_400
_LAST_MOMENT = 253_402_300_799.0  # the end of the year 9999, where RFC 3339 ends


@dataclass(frozen=True, slots=True)
class Bucket:
    """A resolution of stored usage, and its retention. Buckets start at multiples of *seconds* since the epoch."""

    name: str
    seconds: int
    retention_seconds: int

    def start_of(self, moment: float) -> int:
        """Return the start of the bucket that contains *moment*, both in seconds since the epoch."""
        return int(moment // self.seconds) * self.seconds


MINUTE = Bucket("minute", 60, 7 * _DAY_SECONDS)
HOUR = Bucket("hour", 3600, 90 * _DAY_SECONDS)
DAY = Bucket("day", _DAY_SECONDS, 730 * _DAY_SECONDS)
BUCKETS: Mapping[str, Bucket] = {bucket.name: bucket for bucket in (MINUTE, HOUR, DAY)}


Dimension = Literal["route", "start"]  # that rows can be summed over


class UsageKey(NamedTuple):
    """What a row counts. Rows are stored in this order."""

    subject: str
    start: int
    route: str
    outcome: str
    status: int


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Requests of one kind in one bucket. *seconds* is the sum of their durations.

    Their number is the sum of the *histogram*: a separate count could differ from it.
    """

    key: UsageKey
    seconds: float
    histogram: tuple[int, ...]

    @property
    def count(self) -> int:
        """The number of requests."""
        return sum(self.histogram)

    def plus(self, other: "UsageRow") -> "UsageRow":
        """Return the sum of both rows."""
        return UsageRow(self.key, self.seconds + other.seconds, tuple(map(add, self.histogram, other.histogram)))


class SecretUse(NamedTuple):
    """When a secret was last used, in seconds since the epoch: its digest, and the key that it belongs to."""

    digest: bytes
    key_id: str
    at: float


@dataclass(frozen=True, slots=True)
class UsageBatch:
    """What is stored in one transaction: rows of minutes, the last use of secrets, and the account of each subject.

    Accounts are subjects too, whose rows are the sums over their keys and grants. So one query reads the usage of an
    account, however many keys it has.
    """

    rows: Sequence[UsageRow]
    uses: Sequence[SecretUse]
    accounts: Mapping[str, str] = field(default_factory=dict)

    @property
    def all_rows(self) -> Sequence[UsageRow]:
        """The rows of keys and grants, and their copies for the accounts. Several may have the same key."""
        owners = ((row, self.accounts.get(row.key.subject)) for row in self.rows)
        of_accounts = (
            UsageRow(row.key._replace(subject=owner), row.seconds, row.histogram) for row, owner in owners if owner
        )
        return [*self.rows, *of_accounts]


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The rows of a key, a grant or an account in the *bucket*s from *start* up to *end*."""

    subject: str
    bucket: Bucket
    start: int
    end: int
    rows: Sequence[UsageRow]


@dataclass(frozen=True, slots=True)
class UsageSum:
    """The sum of some rows: requests, in total and of each kind, and their durations."""

    requests: int
    seconds: float
    histogram: tuple[int, ...]
    outcomes: Mapping[str, int]
    statuses: Mapping[int, int]
    routes: Mapping[str, int]

    @property
    def allowed(self) -> int:
        """The number of allowed requests, whatever the application responded."""
        return sum(self.outcomes.get(outcome, 0) for outcome in ADMITTED_OUTCOMES)

    @property
    def mean_seconds(self) -> float | None:
        """The mean duration; None without requests."""
        return self.seconds / self.requests if self.requests else None

    def quantile_seconds(self, share: float) -> float | None:
        """Return an estimate of the quantile *share* of durations; None without requests.

        Durations are interpolated linearly between two bounds. Past the last bound, that bound is returned.
        """
        return quantile_seconds(self.histogram, self.requests, share)


def quantile_seconds(
    histogram: Sequence[float], requests: float, share: float, bounds: Sequence[float] = BOUNDS
) -> float | None:
    """Return `UsageSum.quantile_seconds` for the *histogram* of so many *requests* with these upper *bounds*."""
    if not requests:
        return None
    rank, total, lower = share * requests, 0.0, 0.0
    for count, upper in zip(histogram, bounds, strict=False):
        total += count
        if count and total >= rank:
            return upper - (upper - lower) * (total - rank) / count
        lower = upper
    return bounds[-1]


def merge_rows(rows: Iterable[UsageRow], bucket: Bucket) -> list[UsageRow]:
    """Return *rows* summed into the longer *bucket*, in order and one for each key."""
    return _merged(
        rows, lambda key: UsageKey(key.subject, bucket.start_of(key.start), key.route, key.outcome, key.status)
    )


def sum_over(rows: Iterable[UsageRow], dimension: Dimension, start: int) -> list[UsageRow]:
    """Return *rows* summed over routes, or over time as if all were in the bucket at *start*; one for each key."""
    if dimension == "route":
        return _merged(rows, lambda key: key._replace(route=""))
    return _merged(rows, lambda key: key._replace(start=start))


def _merged(rows: Iterable[UsageRow], key_for: Callable[[UsageKey], UsageKey]) -> list[UsageRow]:
    sums: dict[UsageKey, UsageRow] = {}
    for row in rows:
        key = key_for(row.key)
        total = sums.get(key)
        sums[key] = UsageRow(key, row.seconds, row.histogram) if total is None else total.plus(row)
    return [sums[key] for key in sorted(sums)]


def sum_of(rows: Iterable[UsageRow]) -> UsageSum:
    """Return the sum of *rows*. The counts by kind are sorted by name."""
    seconds, histogram = 0.0, (0,) * (len(BOUNDS) + 1)
    outcomes: dict[str, int] = {}
    statuses: dict[int, int] = {}
    routes: dict[str, int] = {}
    for row in rows:
        count = row.count
        seconds += row.seconds
        histogram = tuple(map(add, histogram, row.histogram))
        outcomes[row.key.outcome] = outcomes.get(row.key.outcome, 0) + count
        statuses[row.key.status] = statuses.get(row.key.status, 0) + count
        routes[row.key.route] = routes.get(row.key.route, 0) + count
    by_name = [dict(sorted(counts.items())) for counts in (outcomes, routes)]
    return UsageSum(sum(histogram), seconds, histogram, by_name[0], dict(sorted(statuses.items())), by_name[1])


def units_taken(rows: Iterable[UsageRow], costs: Mapping[str, int]) -> int:
    """Return the units of a limit that *rows* took: allowed requests by the *costs* of their routes, 1 by default."""
    return sum(row.count * costs.get(row.key.route, 1) for row in rows if row.key.outcome in ADMITTED_OUTCOMES)


def sums_by_start(rows: Iterable[UsageRow]) -> Iterator[tuple[int, UsageSum]]:
    """Yield the start and the sum of each bucket with *rows*, oldest first."""
    in_order = sorted(rows, key=lambda row: row.key.start)
    for start, group in groupby(in_order, key=lambda row: row.key.start):
        yield start, sum_of(group)


def parse_period(start: float, end: float, bucket_name: str) -> tuple[Bucket, int, int]:
    """Return the bucket of that name, and the range from *start* up to *end* widened to whole buckets.

    Times are in seconds since the epoch. Raises InputError.
    """
    bucket = BUCKETS.get(bucket_name)
    if bucket is None:
        raise InputError(f"Invalid bucket {bucket_name!r}: use {', '.join(BUCKETS)}.")
    if not 0 <= start < end <= _LAST_MOMENT:  # also refuses NaN
        raise InputError(f"Invalid time range from {start} to {end}: use times after 1970, the earlier first.")
    first, last = bucket.start_of(start), -bucket.start_of(-end)
    count = (last - first) // bucket.seconds
    if count > MAX_BUCKETS:
        raise InputError(
            f"{count:,} buckets of a {bucket.name} are too many: use at most {MAX_BUCKETS:,}, or a longer bucket."
        )
    return bucket, first, last
