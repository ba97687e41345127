"""The plan of a request: every limit that applies to it, by the subjects that it counts against.

A plan is made once for each kind of request (a tier, an owner or none, the limit of a route) and shared by all of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil
from typing import Literal, NamedTuple

from machpay_gateway.core.limits.calendar import DAY_SECONDS
from machpay_gateway.core.limits.rate import CONCURRENCY, Limits, Tier

SubjectKind = Literal["key", "account", "owner", "route", "address"]
Levels = tuple[float, ...]
_PLANS = 4096


class Part(NamedTuple):
    """The *limits* of one subject of a request. Unless *enforced*, they count and refuse nothing.

    *number* tells apart the parts of several routes, all of which apply where a path may be interpreted as each.
    """

    kind: SubjectKind
    limits: Limits
    enforced: bool = True
    number: int = 1

    def name(self, name: str) -> str:
        """Return the policy's name for a limit *name* of this part: `minute`, `account-minute`, `route2-minute`."""
        if self.kind == "key":
            return name
        return f"{self.kind}-{name}" if self.number == 1 else f"{self.kind}{self.number}-{name}"


class LimitPolicy(NamedTuple):
    """One limit of a plan, as callers see it. *window_seconds* is None for a calendar month and for concurrency."""

    name: str
    limit: int
    window_seconds: int | None
    kind: SubjectKind
    is_concurrency: bool = False
    enforced: bool = True
    is_quota: bool = False


class PolicyLevel(NamedTuple):
    """What is *left* of a policy, and in how many seconds the next unit frees; 0 when none is taken, or for slots."""

    policy: LimitPolicy
    left: int
    resets_in: float


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The limits of one request. The first part is that of its own subject; the others belong to further subjects.

    What is left of a plan is a flat tuple of *levels*, part by part: for each rate and each quota the units left and
    the seconds until the next one frees, then the slots left, if the concurrency is limited.
    """

    parts: tuple[Part, ...]
    policies: tuple[LimitPolicy, ...] = field(init=False, repr=False)
    policy_field: tuple[bytes, bytes] = field(init=False, repr=False)  # RateLimit-Policy, the same in every response
    left_format: bytes = field(init=False, repr=False)  # RateLimit, to be formatted with `shown_levels`
    shown_levels: tuple[tuple[int, bool], ...] = field(init=False, repr=False)  # where in levels, and if in seconds
    is_simple: bool = field(init=False, repr=False)  # one enforced part of one rate and concurrency, as most tiers are
    limit: int = field(init=False, repr=False)  # of a simple plan; below too
    concurrency: int = field(init=False, repr=False)
    has_quotas: bool = field(init=False, repr=False)
    is_enforced: bool = field(init=False, repr=False)  # in all parts
    longest_seconds: int = field(init=False, repr=False)  # the longest window

    def __post_init__(self) -> None:
        policies = tuple(_policies(self.parts))
        shown = [policy for policy in policies if policy.enforced]
        own = self.parts[0].limits
        values: dict[str, object] = {
            "policies": policies,
            "policy_field": (b"ratelimit-policy", ", ".join(map(_describe, shown)).encode()),
            "left_format": ", ".join(
                f'"{policy.name}";r=%d' if policy.is_concurrency else f'"{policy.name}";r=%d;t=%d' for policy in shown
            ).encode(),
            "shown_levels": tuple(_shown_levels(policies)),
            "is_simple": len(self.parts) == 1 and self.parts[0].enforced and len(policies) == 2 and _has_both(own),  # noqa: PLR2004 - a rate and slots
            "limit": own.rates[0].limit if own.rates else 0,
            "concurrency": own.concurrency or 0,
            "has_quotas": any(part.limits.quotas for part in self.parts),
            "is_enforced": all(part.enforced for part in self.parts),
            "longest_seconds": max(
                (rate.window_seconds for part in self.parts for rate in part.limits.rates), default=0
            ),
        }
        for attribute, value in values.items():
            object.__setattr__(self, attribute, value)

    def levels(self, levels: Levels) -> Iterator[PolicyLevel]:
        """Yield what is left of each policy."""
        at = 0
        for policy in self.policies:
            if policy.is_concurrency:
                yield PolicyLevel(policy, int(levels[at]), 0.0)
                at += 1
            else:
                yield PolicyLevel(policy, int(levels[at]), levels[at + 1])
                at += 2

    def before(self, levels: Levels, requests: int, cost: int, *, shadow: int) -> Levels:
        """Return *levels* as they were before the last *requests* of *cost* were admitted.

        *shadow* of them took of the limits that are not enforced, too.
        """
        if not requests:
            return levels
        earlier = list(levels)
        at = 0
        for policy in self.policies:
            earlier[at] += (requests if policy.enforced else shadow) * (1 if policy.is_concurrency else cost)
            at += 1 if policy.is_concurrency else 2
        return tuple(earlier)

    def header(self, levels: Levels) -> bytes:
        """Return the value of RateLimit; of the enforced policies alone, since callers need not heed the others."""
        values = tuple(map(ceil, levels))
        if not self.is_enforced or min(values) <= 0:  # seldom: else a third of the time
            values = tuple((values[at] or 1) if is_time else max(0, values[at]) for at, is_time in self.shown_levels)
        return self.left_format % values

    def violated(self, levels: Levels, cost: int, *, enforced: bool = True) -> tuple[str, ...]:
        """Return the names of the policies whose *levels*, not clamped to 0, have no room for *cost*.

        They are those that are *enforced*, or those that are not.
        """
        return tuple(
            policy.name
            for policy, left, _ in self.levels(levels)
            if policy.enforced is enforced and left < (1 if policy.is_concurrency else cost)
        )

    def local_share(self, workers: int) -> "Plan":
        """Return the plan of each of *workers* while they share no counters."""
        return _local_share(self, workers)


@lru_cache(_PLANS)
def plan_of(parts: tuple[Part, ...]) -> Plan:
    """Return the one plan with these *parts*: equal requests share it, so limiters compare it by identity."""
    return Plan(parts)


def tier_plan(tier: Tier) -> Plan:
    """Return the plan of one subject with the limits of *tier*."""
    return plan_of((Part("key", tier.limits, tier.enforce),))


@lru_cache(_PLANS)
def _local_share(plan: Plan, workers: int) -> Plan:
    return Plan(tuple(part._replace(limits=part.limits.local_share(workers)) for part in plan.parts))


def _has_both(limits: Limits) -> bool:
    return len(limits.rates) == 1 and limits.concurrency is not None


def _policies(parts: Sequence[Part]) -> Iterator[LimitPolicy]:
    for part in parts:
        kind, limits, enforced, _ = part
        for limit, seconds, name in limits.rates:
            yield LimitPolicy(part.name(name), limit, seconds, kind, enforced=enforced)
        for limit, unit in limits.quotas:
            seconds_of = DAY_SECONDS if unit == "day" else None
            yield LimitPolicy(part.name(unit), limit, seconds_of, kind, enforced=enforced, is_quota=True)
        if limits.concurrency is not None:
            yield LimitPolicy(part.name(CONCURRENCY), limits.concurrency, None, kind, True, enforced)  # noqa: FBT003 - is_concurrency


def _shown_levels(policies: Sequence[LimitPolicy]) -> Iterator[tuple[int, bool]]:
    at = 0
    for policy in policies:
        for is_time in (False,) if policy.is_concurrency else (False, True):
            if policy.enforced:
                yield at, is_time
            at += 1


def _describe(policy: LimitPolicy) -> str:
    # draft-ietf-httpapi-ratelimit-headers-11 §3: `w` is optional, and a calendar month has no length of its own.
    window = "" if policy.window_seconds is None else f";w={policy.window_seconds}"
    unit = ';qu="concurrent-requests"' if policy.is_concurrency else ""
    return f'"{policy.name}";q={policy.limit}{window}{unit}'
