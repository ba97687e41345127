"""Requests of callers whose tier is not configured: counted by tier, and logged once a minute for each.

Such an account or key gets no more than every configured tier allows, so nobody may notice but its callers.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator

from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.text import quote_value
from machpay_gateway.log_throttle import LogThrottle

logger = logging.getLogger("machpay_gateway")

_UNKNOWN = (
    "Tier %s is not configured, so its requests get the least that the configured tiers allow; the latest are of %s of "
    "account %s. Define the tier, or run `machpay-gateway accounts set-tier` or `machpay-gateway keys update --tier`."
)


class UnknownTiers:
    """Counts requests by tiers that are not among the *configured* ones. Mutable."""

    def __init__(self, configured: Collection[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        """Count nothing yet. *clock* is in seconds of a monotonic clock."""
        self.configured = frozenset(configured) | {""}  # the tier of an account that a caller does not have
        self.counts: dict[str, int] = {}
        self._throttle = LogThrottle(logger, clock=clock)

    def add(self, caller: Principal, requests: int) -> None:
        """Count *requests* of a *caller* who has such a tier, or whose account has."""
        for tier in self._tiers_of(caller):
            self.counts[tier] = self.counts.get(tier, 0) + requests
            account = caller.account_id or "none"
            self._throttle.log(logging.WARNING, _UNKNOWN, quote_value(tier), caller.subject, account, kind=tier)

    def _tiers_of(self, caller: Principal) -> Iterator[str]:
        yield from sorted({caller.tier, caller.account_tier} - self.configured)
