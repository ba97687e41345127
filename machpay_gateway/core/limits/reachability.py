"""Limits that can never be reached, because another one is below them: what a price list hardly means."""

from collections.abc import Iterator, Mapping
from itertools import permutations
from math import ceil

from machpay_gateway.core.limits.calendar import DAY_SECONDS
from machpay_gateway.core.limits.rate import Limits, Quota, Rate, Tier, describe_limit

_LONGEST_MONTH_SECONDS = 31 * DAY_SECONDS


def unreachable_limits(tiers: Mapping[str, Tier]) -> Iterator[str]:
    """Yield a sentence for each limit of *tiers* that another one of the same tier never lets anybody reach."""
    for name, tier in tiers.items():
        shared = {"account": tier.account_limits, "owner": tier.owner_limits}
        for place, limits in {"": tier.limits, **shared}.items():
            if limits is not None:
                yield from _within(f"tiers.{name}{place and '.'}{place}", limits)
        for place, limits in shared.items():
            if limits is not None:
                yield from _of_keys(name, place, tier.limits, limits)


def _within(place: str, limits: Limits) -> Iterator[str]:
    for limit, other in permutations(limits.counted, 2):
        if (most := _most(other, limit)) < limit.limit:
            reason = f"{describe_limit(other)} admits {most} in that time"
            yield f"{place}: {describe_limit(limit)} can never be reached, since {reason}"


def _of_keys(tier: str, place: str, keys: Limits, shared: Limits) -> Iterator[str]:
    """Yield the limits of one key that are above those that all keys share."""
    for limit in keys.counted:
        for other in shared.counted:
            if _seconds(other) == _seconds(limit) and other.limit < limit.limit:
                reason = f"{place} allows {describe_limit(other)} to all keys together"
                yield f"tiers.{tier}: {describe_limit(limit)} can never be reached, since {reason}"
    if keys.concurrency is not None and shared.concurrency is not None and shared.concurrency < keys.concurrency:
        reason = f"{place} allows {shared.concurrency} to all keys together"
        yield f"tiers.{tier}: concurrency {keys.concurrency} can never be reached, since {reason}"


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
