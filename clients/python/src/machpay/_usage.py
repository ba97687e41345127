"""What a key was used for, as the API tells of it."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

from machpay._reading import Members, counts, items, mapping, moment, number, optional_text, text, whole
from machpay._received import Received
from machpay._response import Response


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long requests took, in milliseconds; None where there were none. All but the mean are estimates."""

    mean: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageCounts:
    """Requests, and what became of them. Of a total *start* is None, and of a bucket *routes* is empty."""

    start: dt.datetime | None = None
    requests: int = 0
    allowed: int = 0
    refused: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    statuses: Mapping[str, int] = field(default_factory=dict)
    routes: Mapping[str, int] = field(default_factory=dict)
    latency_ms: Latency = field(default_factory=Latency)
    extra: Mapping[str, object] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage(Received):
    """The use of a key from *start* to *end*. *data* has the buckets in which there was any, oldest first."""

    key_id: str
    bucket: str | None = None
    start: dt.datetime | None = None
    end: dt.datetime | None = None
    data: tuple[UsageCounts, ...] = ()
    total: UsageCounts = field(default_factory=UsageCounts)


def usage_from(members: Mapping[str, object], response: Response) -> Usage:
    """Return the usage that *response* tells of."""
    of = Members(members)
    of.optional("object", text, "usage")
    return Usage(
        key_id=of.required("key_id", text),
        bucket=of.optional("bucket", optional_text, None),
        start=of.optional("from", moment, None),
        end=of.optional("to", moment, None),
        data=of.optional("data", _buckets, ()),
        total=of.optional("total", _counts, UsageCounts()),
        extra=of.rest(),
        response=response,
    )


def _buckets(value: object) -> tuple[UsageCounts, ...]:
    return tuple(_counts(item) for item in items(value))


def _counts(value: object) -> UsageCounts:
    of = Members(mapping(value))
    return UsageCounts(
        start=of.optional("start", moment, None),
        requests=of.optional("requests", whole, 0),
        allowed=of.optional("allowed", whole, 0),
        refused=of.optional("refused", whole, 0),
        outcomes=of.optional("outcomes", counts, {}),
        statuses=of.optional("statuses", counts, {}),
        routes=of.optional("routes", counts, {}),
        latency_ms=of.optional("latency_ms", _latency, Latency()),
        extra=of.rest(),
    )


def _latency(value: object) -> Latency:
    of = Members(mapping(value))
    return Latency(**{name: of.optional(name, number, None) for name in ("mean", "p50", "p95", "p99")})
