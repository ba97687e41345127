"""The tiers of drills in several shapes: by one limit, or as the tightest of four. What is promised is the same."""

from collections.abc import Callable

import pytest

from machpay_gateway import Tier

Shape = Callable[[Tier], Tier]
_PLENTY = 10**9


def alone(tier: Tier) -> Tier:
    """Return *tier* as it is: one window of a key, and its slots."""
    return tier


def tightest_of_four(tier: Tier) -> Tier:
    """Return *tier* beside an hour and a month of the key, and a minute of its account, which nobody reaches."""
    others = {"rate": f"{_PLENTY}/minute", "concurrency": 10**5}
    return Tier([str(tier.rate), f"{_PLENTY}/hour"], tier.concurrency, quota=f"{_PLENTY}/month", account=others)


def tightest_by_account(tier: Tier) -> Tier:
    """Return a tier with the limits of *tier* for an account, beside two windows and a month of the key."""
    limits = {"rate": tier.rate, "concurrency": tier.concurrency}
    return Tier([f"{_PLENTY}/minute", f"{_PLENTY}/hour"], 10**5, quota=f"{_PLENTY}/month", account=limits)


in_every_shape = pytest.mark.parametrize("shape", [alone, tightest_of_four], ids=["one limit", "four limits"])
