"""What is left of the limits of a key, for commands of operators.

A command is a process of its own. It sees what Redis and the database hold: without Redis, rates and slots are counted
in the memory of the process that serves, and a command knows the quotas alone.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from machpay_gateway.core.decision.principal import key_principal
from machpay_gateway.core.decision.request_limits import request_of
from machpay_gateway.core.keys.key import KeyRecord, KeyStatus
from machpay_gateway.core.limits.admission import STALE, Remaining
from machpay_gateway.core.limits.plan import LimitPolicy, PolicyLevel
from machpay_gateway.core.usage.document import policy_document
from machpay_gateway.gateway import Gateway

_WITHOUT_REDIS = (
    "without Redis, rates and concurrency are counted in the process that serves, which whoami and the Console ask"
)
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


@dataclass(frozen=True, slots=True)
class LimitLevel:
    """What is left of a *policy*; None where this process cannot know."""

    policy: LimitPolicy
    level: PolicyLevel | None

    @property
    def share(self) -> float | None:
        """The share that is left of it, from 0 to 1; None where it is not known."""
        return None if self.level is None else max(0, self.level.left) / self.policy.limit

    def document(self) -> dict[str, Any]:
        """Return it as whoami does, with null for what is not known."""
        if self.level is not None:
            return dict(policy_document(self.level))
        unknown = dict(policy_document(PolicyLevel(self.policy, 0, 0.0)))
        return unknown | {"remaining": None, "reset_seconds": None}

    def row(self) -> tuple[str, ...]:
        """Return it as a row of policy, limit, what is left of it, and until when."""
        name = self.policy.name if self.policy.enforced else f"{self.policy.name} (not enforced)"
        if self.level is None:
            return name, f"{self.policy.limit:,}", "unknown", "-"
        resets = "-" if self.policy.is_concurrency else _duration(self.level.resets_in)
        return name, f"{self.policy.limit:,}", f"{max(0, self.level.left):,}", resets


@dataclass(frozen=True, slots=True)
class KeyLevels:
    """The limits of a key. *mistake* is why some of them are not known, None when all are.

    *is_stale* is whether that is a change of the key since it was read.
    """

    limits: Sequence[LimitLevel]
    mistake: str | None = None
    is_stale: bool = False

    @property
    def is_known(self) -> bool:
        """Whether anything is known to be left."""
        return any(limit.level is not None for limit in self.limits)

    @property
    def tightest(self) -> LimitLevel | None:
        """The enforced limit with the least share left; None when none is known."""
        shares = [(limit.share, limit) for limit in self.limits if limit.share is not None and limit.policy.enforced]
        return min(shares, key=lambda each: each[0])[1] if shares else None


async def read_levels(gateway: Gateway, key: KeyRecord) -> KeyLevels:
    """Return what is left of the limits of *key*, without taking any; of a key that does not work, nothing is."""
    if key.status(time.time()) is not KeyStatus.ACTIVE:
        return KeyLevels(())
    request = request_of(key_principal(key, key.secrets[0], gateway.policy.tiers), None, None)
    answer = await gateway.limiter.remaining(request)
    if not isinstance(answer, Remaining):
        is_stale = answer is STALE
        mistake = "the key has just been changed" if is_stale else "the limiter is not responding"
        return KeyLevels([LimitLevel(policy, None) for policy in request.plan.policies], mistake, is_stale)
    is_shared = gateway.settings.redis is not None
    limits = [
        LimitLevel(level.policy, level if is_shared or level.policy.is_quota else None)
        for level in answer.plan.levels(answer.levels)
    ]
    return KeyLevels(limits, None if is_shared else _WITHOUT_REDIS)


def _duration(seconds: float) -> str:
    """Return *seconds* in the largest unit that leaves a number above 1: `12 s`, `90 min`, `12 days`."""
    for unit, name in ((_DAY, "days"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds > 2 * unit:
            return f"{ceil(seconds / unit)} {name}"
    return f"{max(1, ceil(seconds))} s"
