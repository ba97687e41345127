"""The cap on working keys: how many an account may have in an environment, by its tier."""

from collections.abc import Mapping
from dataclasses import dataclass

from machpay_gateway.core.errors import KeyLimitReached
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.core.limits.tier_names import describe_tier


@dataclass(frozen=True, slots=True)
class KeyCap:
    """The cap by the configured *tiers*. An account's *tier* is the one in the environment of the key."""

    tiers: Mapping[str, Tier]

    def max_keys(self, tier: str) -> int | None:
        """Return how many working keys an account of *tier* may have, None for any number.

        For a tier that is not configured, it is the least that a configured one allows.
        """
        if tier in self.tiers:
            return self.tiers[tier].max_keys
        return min((each.max_keys for each in self.tiers.values() if each.max_keys is not None), default=None)

    def check(self, environment: str, tier: str, others: int) -> None:
        """Raise KeyLimitReached unless an account of *tier* may have one working key more than *others*."""
        allowed = self.max_keys(tier)
        if allowed is None or others < allowed:
            return
        keys = f"{others} working {environment} key{'' if others == 1 else 's'}"
        raise KeyLimitReached(
            f"The account has {keys}, and its tier {describe_tier(tier, self.tiers)} allows {allowed}: "
            "revoke a key, or ask for a higher tier."
        )
