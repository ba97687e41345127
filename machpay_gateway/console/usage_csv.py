"""Usage as lines of a file: one for each route, outcome and status in each bucket."""

from collections.abc import Iterator, Sequence
from itertools import groupby, islice

from machpay_gateway.console.csv_files import as_csv
from machpay_gateway.core.text import format_moment
from machpay_gateway.core.usage.counters import QUANTILES, Bucket, UsageRow, quantile_seconds
from machpay_gateway.core.usage.outcome import Outcome

HEAD = (
    "bucket_start",
    "bucket_seconds",
    "route",
    "outcome",
    "status",
    "group",
    "requests",
    "mean_ms",
    *(f"{name}_ms" for name in QUANTILES),
)
_AT_ONCE = 2000  # lines, some 40 ms of work


def usage_lines(rows: Sequence[UsageRow], bucket: Bucket) -> Iterator[str]:
    """Yield the head and a line for each of *rows* by *bucket*, some thousand at a time."""
    yield as_csv([HEAD])
    in_order = groupby(rows, key=lambda row: row.key.start)
    lines = (_line(row, format_moment(start), bucket.seconds) for start, found in in_order for row in found)
    while some := list(islice(lines, _AT_ONCE)):
        yield as_csv(some)


def _line(row: UsageRow, start: str, bucket_seconds: int) -> Sequence[object]:
    _, _, route, outcome, status = row.key
    requests = row.count
    quantiles = (quantile_seconds(row.histogram, requests, share) for share in QUANTILES.values())
    return (
        start,
        bucket_seconds,
        route,
        outcome,
        status,
        str(Outcome.of(outcome, status).group),
        requests,
        *map(_milliseconds, (row.seconds / requests if requests else None, *quantiles)),
    )


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.3f}"
