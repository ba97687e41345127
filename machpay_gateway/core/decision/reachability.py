"""Limits that can never be reached, because another one is below them: what a price list hardly means."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import permutations
from math import ceil

from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.limits.calendar import DAY_SECONDS
from machpay_gateway.core.limits.rate import AnonymousLimits, Limits, Quota, Rate, Tier, describe_limit

_LONGEST_MONTH_SECONDS = 31 * DAY_SECONDS


def unreachable_limits(tiers: Mapping[str, Tier]) -> Iterator[str]:
    """Yield a sentence for each limit of *tiers* that another one of the same tier never lets anybody reach.

    Those of owners bound no key: one without an owner has none of them.
    """
    for name, tier in tiers.items():
        account, owner = tier.account_limits, tier.owner_limits
        for place, limits in {"": tier.limits, ".account": account, ".owner": owner}.items():
            if limits is not None:
                yield from _within(f"tiers.{name}{place}", limits)
        for place, limits in {"": tier.limits, ".owner": owner}.items():
            if limits is not None and account is not None:
                yield from _above(f"tiers.{name}{place}", limits, account, "account allows {} to all keys together")


def unreachable_route_limits(
    routes: Iterable[Route], tiers: Mapping[str, Tier], anonymous: AnonymousLimits | None
) -> Iterator[str]:
    """Yield a sentence for each limit beside those of *tiers* that no caller reaches."""
    if anonymous is not None:
        yield from _within("anonymous", anonymous.limits)
    for route in routes:
        for match, limit in route.limits:
            place = f"Route {match!r}: limit"
            yield from _within(place, limit.limits)
            if route.public and anonymous is not None and anonymous.enforce:
                yield from _above(place, limit.limits, anonymous.limits, "[anonymous] allows {} to an address")
            if limit.by == "key":
                yield from _above_every(place, limit.limits, tiers.values())


def _within(place: str, limits: Limits) -> Iterator[str]:
    for limit, other in permutations(limits.counted, 2):
        if (most := _most(other, limit)) < limit.limit:
            reason = f"{describe_limit(other)} admits {most} in that time"
            yield f"{place}: {describe_limit(limit)} can never be reached, since {reason}"


def _above(place: str, limits: Limits, bounds: Limits, reason: str) -> Iterator[str]:
    """Yield the *limits* that are above one of *bounds*, which hold at the same time for *reason*."""
    for limit in limits.counted:
        for other in bounds.counted:
            if _most(other, limit) < limit.limit:
                most = reason.format(describe_limit(other))
                yield f"{place}: {describe_limit(limit)} can never be reached, since {most}"
    if limits.concurrency is not None and bounds.concurrency is not None and bounds.concurrency < limits.concurrency:
        most = reason.format(bounds.concurrency)
        yield f"{place}: concurrency {limits.concurrency} can never be reached, since {most}"


def _above_every(place: str, limits: Limits, tiers: Collection[Tier]) -> Iterator[str]:
    """Yield the *limits* by key that every one of *tiers* is below."""
    if not all(tier.enforce for tier in tiers):
        return
    reason = "every tier allows less to a key"
    for limit in limits.counted:
        if all(any(_most(other, limit) < limit.limit for other in tier.limits.counted) for tier in tiers):
            yield f"{place}: {describe_limit(limit)} can never be reached, since {reason}"
    if limits.concurrency is not None and all(tier.concurrency < limits.concurrency for tier in tiers):
        yield f"{place}: concurrency {limits.concurrency} can never be reached, since {reason}"


def _most(limit: Rate | Quota, other: Rate | Quota) -> int:
    """Return the units that *limit* admits at most in the time of the *other* one."""
    periods = ceil(_seconds(other) / _seconds(limit))
    if isinstance(limit, Quota) and isinstance(other, Rate):
        periods += 1  # a day or a month may end within a window; days do not end within others, nor months
    return limit.limit * periods


def _seconds(limit: Rate | Quota) -> int:
    if isinstance(limit, Rate):
        return limit.window_seconds
    return DAY_SECONDS if limit.name == "day" else _LONGEST_MONTH_SECONDS
