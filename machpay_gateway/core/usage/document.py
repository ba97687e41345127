"""The usage of a key, and what is left of its limits, as JSON documents, declared as in `core.keys.document`."""

from typing import Annotated, Literal

from typing_extensions import TypedDict

from machpay_gateway.core.decision.problem import whole_seconds
from machpay_gateway.core.json_schema import Count, JsonSchema, Timestamp
from machpay_gateway.core.limits.plan import PolicyLevel
from machpay_gateway.core.text import format_moment
from machpay_gateway.core.usage.counters import BUCKETS, QUANTILES, UsageReport, UsageSum, sum_of, sums_by_start


class LatencyMillisecondsDocument(TypedDict):
    """How long requests took, in milliseconds; null if there were none. All values but the mean are estimates."""

    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None


class CountsDocument(TypedDict):
    """Requests by outcome and status, and their latency."""

    requests: Count
    allowed: Count
    refused: Count
    outcomes: Annotated[dict[str, Count], JsonSchema(description="`allowed`, or the code of the refusal.")]
    statuses: dict[str, Count]
    latency_ms: LatencyMillisecondsDocument


class UsageBucketDocument(CountsDocument):
    """The requests of one bucket."""

    start: Timestamp


class UsageTotalDocument(CountsDocument):
    """The requests of all buckets."""

    routes: dict[str, Count]


UsageDocument = TypedDict(  # called as a function, because `from` is a keyword of Python
    "UsageDocument",
    {
        "object": Literal["usage"],
        "key_id": str,
        "bucket": Annotated[str, JsonSchema(enum=list(BUCKETS))],
        "from": Timestamp,
        "to": Timestamp,
        "data": list[UsageBucketDocument],
        "total": UsageTotalDocument,
    },
)
UsageDocument.__doc__ = "The usage of a key. Buckets without requests are left out."


class PolicyDocument(TypedDict):
    """A limit that applies to the caller, and what is left of it."""

    policy: Annotated[str, JsonSchema(description="Its name in RateLimit-Policy, as in minute or account-month.")]
    limit: Count
    window_seconds: Annotated[int | None, JsonSchema(minimum=1, description="null for months and concurrency.")]
    remaining: Count
    reset_seconds: Annotated[int | None, JsonSchema(minimum=1, description="Until a unit frees; null for concurrency.")]
    enforced: bool


def policy_document(level: PolicyLevel) -> PolicyDocument:
    """Return what is left of a policy."""
    policy, left, resets_in = level
    return {
        "policy": policy.name,
        "limit": policy.limit,
        "window_seconds": policy.window_seconds,
        "remaining": max(0, left),
        "reset_seconds": None if policy.is_concurrency else whole_seconds(resets_in),
        "enforced": policy.enforced,
    }


def usage_document(report: UsageReport) -> UsageDocument:
    """Return the usage of a key. Buckets without requests are left out."""
    total = sum_of(report.rows)
    return {
        "object": "usage",
        "key_id": report.subject,
        "bucket": report.bucket.name,
        "from": format_moment(report.start),
        "to": format_moment(report.end),
        "data": [{"start": format_moment(start), **_counts(bucket)} for start, bucket in sums_by_start(report.rows)],
        "total": {**_counts(total), "routes": dict(total.routes)},
    }


def _counts(total: UsageSum) -> CountsDocument:
    def quantile(name: str) -> float | None:
        return in_milliseconds(total.quantile_seconds(QUANTILES[name]))

    return {
        "requests": total.requests,
        "allowed": total.allowed,
        "refused": total.requests - total.allowed,
        "outcomes": dict(total.outcomes),
        "statuses": {str(status): count for status, count in total.statuses.items()},
        "latency_ms": {
            "mean": in_milliseconds(total.mean_seconds),
            "p50": quantile("p50"),
            "p95": quantile("p95"),
            "p99": quantile("p99"),
        },
    }


def in_milliseconds(seconds: float | None) -> float | None:
    """Return *seconds* in milliseconds, rounded as in documents."""
    return None if seconds is None else round(seconds * 1000, 3)
