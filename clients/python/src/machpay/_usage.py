"""The usage of a key, as returned by the API."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from machpay._parsing import ObjectParser, counts, items, mapping, moment, number, optional_text, text, whole
from machpay._response import Response
from machpay._result import Result
from machpay._types import UsageBucket


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long requests took, in milliseconds; None if there were none. All values but the mean are estimates."""

    mean: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageCounts:
    """Requests by outcome and status. A total has no *start*, and a bucket no *routes*."""

    start: dt.datetime | None = None
    requests: int = 0
    allowed: int = 0
    refused: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict, hash=False)
    statuses: Mapping[str, int] = field(default_factory=dict, hash=False)
    routes: Mapping[str, int] = field(default_factory=dict, hash=False)
    latency_ms: Latency = field(default_factory=Latency)
    extra: Mapping[str, object] = field(default_factory=dict, repr=False, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage(Result):
    """The usage of a key from *start* to *end*. *data* has the buckets with requests, oldest first."""

    key_id: str
    bucket: UsageBucket | None = None
    start: dt.datetime | None = None
    end: dt.datetime | None = None
    data: tuple[UsageCounts, ...] = ()
    total: UsageCounts = field(default_factory=UsageCounts)


def usage_from(members: Mapping[str, object], response: Response) -> Usage:
    """Return the usage in *response*."""
    parser = ObjectParser(members)
    parser.optional("object", text, "usage")
    return Usage(
        key_id=parser.required("key_id", text),
        bucket=cast("UsageBucket | None", parser.optional("bucket", optional_text, None)),
        start=parser.optional("from", moment, None),
        end=parser.optional("to", moment, None),
        data=parser.optional("data", _buckets, ()),
        total=parser.optional("total", _counts, UsageCounts()),
        extra=parser.rest(),
        response=response,
    )


def _buckets(value: object) -> tuple[UsageCounts, ...]:
    return tuple(_counts(item) for item in items(value))


def _counts(value: object) -> UsageCounts:
    parser = ObjectParser(mapping(value))
    return UsageCounts(
        start=parser.optional("start", moment, None),
        requests=parser.optional("requests", whole, 0),
        allowed=parser.optional("allowed", whole, 0),
        refused=parser.optional("refused", whole, 0),
        outcomes=parser.optional("outcomes", counts, {}),
        statuses=parser.optional("statuses", counts, {}),
        routes=parser.optional("routes", counts, {}),
        latency_ms=parser.optional("latency_ms", _latency, Latency()),
        extra=parser.rest(),
    )


def _latency(value: object) -> Latency:
    parser = ObjectParser(mapping(value))
    return Latency(**{name: parser.optional(name, number, None) for name in ("mean", "p50", "p95", "p99")})
