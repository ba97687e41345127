"""Usage as lines of CSV: one for each route, outcome and status in each bucket."""

from collections.abc import Iterator, Sequence
from itertools import groupby, islice

from machpay_gateway.console.csv_files import format_csv
from machpay_gateway.core.text import format_moment
from machpay_gateway.core.usage.counters import QUANTILES, Bucket, UsageRow, quantile_seconds
from machpay_gateway.core.usage.outcome import Outcome

HEADER = (
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
_CHUNK_LINES = 2000  # some 40 ms of work


def usage_lines(rows: Sequence[UsageRow], bucket: Bucket) -> Iterator[str]:
    """Yield the header, then a line for each of *rows*, in chunks of some thousand lines."""
    yield format_csv([HEADER])
    by_start = groupby(rows, key=lambda row: row.key.start)
    lines = (_line(row, format_moment(start), bucket.seconds) for start, group in by_start for row in group)
    while chunk := list(islice(lines, _CHUNK_LINES)):
        yield format_csv(chunk)


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
        *map(_format_milliseconds, (row.seconds / requests if requests else None, *quantiles)),
    )


def _format_milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.3f}"
