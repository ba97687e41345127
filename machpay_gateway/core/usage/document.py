"""The use of a key as JSON."""

from typing import Any

from machpay_gateway.core.text import format_moment
from machpay_gateway.core.usage.counters import QUANTILES, UsageReport, UsageSum, sum_of, sums_by_start


def usage_document(report: UsageReport) -> dict[str, Any]:
    """Return the use of a key. Buckets in which there was none are left out."""
    total = sum_of(report.rows)
    return {
        "object": "usage",
        "key_id": report.subject,
        "bucket": report.bucket.name,
        "from": format_moment(report.start),
        "to": format_moment(report.end),
        "data": [{"start": format_moment(start), **_counts(found)} for start, found in sums_by_start(report.rows)],
        "total": {**_counts(total), "routes": dict(total.routes)},
    }


def _counts(found: UsageSum) -> dict[str, Any]:
    quantiles = {name: in_milliseconds(found.quantile_seconds(share)) for name, share in QUANTILES.items()}
    return {
        "requests": found.requests,
        "allowed": found.allowed,
        "refused": found.requests - found.allowed,
        "outcomes": dict(found.outcomes),
        "statuses": {str(status): count for status, count in found.statuses.items()},
        "latency_ms": {"mean": in_milliseconds(found.mean_seconds), **quantiles},
    }


def in_milliseconds(seconds: float | None) -> float | None:
    """Return so many seconds as documents have them."""
    return None if seconds is None else round(seconds * 1000, 3)
