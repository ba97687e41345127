"""What is counted of decisions: how it is kept, and what it adds up to.

It must not learn who counts, nor where it is kept: rows go in, sums come out.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import add
from typing import Literal, NamedTuple

from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.key import ACCOUNT

# Upper bounds in seconds, each inclusive; a histogram has one count more, of what took longer than all of them. They
# are the table's columns: another bound is another migration.
BOUNDS: Sequence[float] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
QUANTILES: Mapping[str, float] = {"p50": 0.5, "p95": 0.95, "p99": 0.99}  # that are told wherever latencies are
ALLOWED = "allowed"  # the outcome of a decision that is no refusal; a refusal's is its Reason
NOBODY = ""  # the subject of whoever is not a key: strangers cannot make rows of their own
OF_ACCOUNTS = f"{ACCOUNT}_"  # what a subject begins with that is a whole account, counted beside its keys
MAX_BUCKETS = 1500  # in one answer: a day of minutes, two months of hours
_DAY_SECONDS = 86_400
_LAST_MOMENT = 253_402_300_799.0  # the end of the year 9999, where RFC 3339 ends


@dataclass(frozen=True, slots=True)
class Bucket:
    """A length of time that usage is kept by, and how long it is kept so. It starts where its length divides time."""

    name: str
    seconds: int
    kept_seconds: int

    def start_of(self, moment: float) -> int:
        """Return the start of the bucket that *moment* falls into; both are in seconds since the epoch."""
        return int(moment // self.seconds) * self.seconds


MINUTE = Bucket("minute", 60, 7 * _DAY_SECONDS)
HOUR = Bucket("hour", 3600, 90 * _DAY_SECONDS)
DAY = Bucket("day", _DAY_SECONDS, 730 * _DAY_SECONDS)
BUCKETS: Mapping[str, Bucket] = {bucket.name: bucket for bucket in (MINUTE, HOUR, DAY)}


Dimension = Literal["route", "start"]  # that rows can be added up over


class UsageKey(NamedTuple):
    """What a row counts, in the order that rows are written in."""

    subject: str
    start: int
    route: str
    outcome: str
    status: int


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Decisions of one kind in one bucket. *seconds* is what all of them took together.

    Their number is the sum of the *histogram*, and nothing of its own that could differ from it.
    """

    key: UsageKey
    seconds: float
    histogram: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many decisions they are."""
        return sum(self.histogram)

    def plus(self, other: "UsageRow") -> "UsageRow":
        """Return the row that counts what both do."""
        histogram = tuple(map(add, self.histogram, other.histogram))
        return replace(self, seconds=self.seconds + other.seconds, histogram=histogram)


class SecretUse(NamedTuple):
    """When a secret was last presented, in seconds since the epoch: by its digest, with the key that it is of."""

    digest: bytes
    key_id: str
    at: float


@dataclass(frozen=True, slots=True)
class UsageBatch:
    """What is stored at once: rows of minutes, the secrets that were used, and of each subject whose *accounts* it is.

    An account is a subject too: its rows are the sums over its keys and apps, so that they are read in one look
    however many of those there are.
    """

    rows: Sequence[UsageRow]
    uses: Sequence[SecretUse]
    accounts: Mapping[str, str] = field(default_factory=dict)

    @property
    def all_rows(self) -> Sequence[UsageRow]:
        """Those of subjects, and one for each that goes into the sums of its account; of a kind there may be many."""
        owned = [row for row in self.rows if row.key.subject in self.accounts]
        return [
            *self.rows,
            *(replace(row, key=row.key._replace(subject=self.accounts[row.key.subject])) for row in owned),
        ]


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The rows of a key, an app or an account in the *bucket*s from *start* up to *end*."""

    subject: str
    bucket: Bucket
    start: int
    end: int
    rows: Sequence[UsageRow]


@dataclass(frozen=True, slots=True)
class UsageSum:
    """What some rows add up to: how many requests, how many of each kind, and how long they took."""

    requests: int
    seconds: float
    histogram: tuple[int, ...]
    outcomes: Mapping[str, int]
    statuses: Mapping[int, int]
    routes: Mapping[str, int]

    @property
    def allowed(self) -> int:
        """How many were let through, whatever the application answered."""
        return self.outcomes.get(ALLOWED, 0)

    @property
    def mean_seconds(self) -> float | None:
        """What a request took on average; None without one."""
        return self.seconds / self.requests if self.requests else None

    def quantile_seconds(self, share: float) -> float | None:
        """Return about how long the quickest *share* of requests took at most; None without one.

        Within a bound requests are taken to be spread evenly; of those past the last bound nothing more is known.
        """
        return quantile_seconds(self.histogram, self.requests, share)


def quantile_seconds(
    histogram: Sequence[float], requests: float, share: float, bounds: Sequence[float] = BOUNDS
) -> float | None:
    """Return what `UsageSum.quantile_seconds` does, of the *histogram* of so many *requests* by its upper *bounds*."""
    if not requests:
        return None
    wanted, total, lower = share * requests, 0.0, 0.0
    for count, upper in zip(histogram, bounds, strict=False):
        total += count
        if count and total >= wanted:
            return upper - (upper - lower) * (total - wanted) / count
        lower = upper
    return bounds[-1]


def merged(rows: Iterable[UsageRow], bucket: Bucket) -> list[UsageRow]:
    """Return *rows* by the longer *bucket*, one of a kind, in order."""
    return _merged(rows, lambda key: key._replace(start=bucket.start_of(key.start)))


def summed_over(rows: Iterable[UsageRow], dimension: Dimension, start: int) -> list[UsageRow]:
    """Return *rows* without their routes, or as if all of them were of the bucket at *start*, one of a kind."""
    if dimension == "route":
        return _merged(rows, lambda key: key._replace(route=""))
    return _merged(rows, lambda key: key._replace(start=start))


def _merged(rows: Iterable[UsageRow], key_for: Callable[[UsageKey], UsageKey]) -> list[UsageRow]:
    found: dict[UsageKey, UsageRow] = {}
    for row in rows:
        key = key_for(row.key)
        known = found.get(key)
        found[key] = replace(row, key=key) if known is None else known.plus(row)
    return [row for _, row in sorted(found.items())]


def sum_of(rows: Iterable[UsageRow]) -> UsageSum:
    """Return what *rows* add up to. The counts of each kind are sorted by its name."""
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


def taken_by(rows: Iterable[UsageRow], costs: Mapping[str, int]) -> int:
    """Return how much of a limit *rows* have taken: what was let through, by the *costs* of routes, 1 if unknown."""
    return sum(row.count * costs.get(row.key.route, 1) for row in rows if row.key.outcome == ALLOWED)


def sums_by_start(rows: Iterable[UsageRow]) -> Iterator[tuple[int, UsageSum]]:
    """Yield the start and the sum of each bucket that has *rows*, oldest first."""
    in_order = sorted(rows, key=lambda row: row.key.start)
    for start, found in groupby(in_order, key=lambda row: row.key.start):
        yield start, sum_of(found)


def checked_period(start: float, end: float, bucket_name: str) -> tuple[Bucket, int, int]:
    """Return the bucket of that name and the whole buckets from *start* up to *end*, seconds since the epoch.

    Raises InputError.
    """
    bucket = BUCKETS.get(bucket_name)
    if bucket is None:
        raise InputError(f"There is no bucket {bucket_name!r}: use {', '.join(BUCKETS)}.")
    if not 0 <= start < end <= _LAST_MOMENT:  # NaN is not either
        raise InputError(f"From {start} to {end} is no time to report on: use moments after 1970, the earlier first.")
    first, last = bucket.start_of(start), -bucket.start_of(-end)
    count = (last - first) // bucket.seconds
    if count > MAX_BUCKETS:
        raise InputError(
            f"{count:,} buckets of a {bucket.name} are too many: use at most {MAX_BUCKETS:,}, or a longer bucket."
        )
    return bucket, first, last
