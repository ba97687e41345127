"""Limits on sign-in attempts: guessing passwords is hopeless, and attackers cannot lock a user out.

Attempts are counted by address block, since one IPv6 /64 has more addresses than can be counted. A known browser has a
limit of its own that nobody else can use up (`core.accounts.device`). All others share 20 attempts an hour for an
email:

| attempts an hour | for |
| --- | --- |
| 6 | address blocks that the user signed in from within 90 days |
| 8 | the first two attempts of any block within an hour: one each 7.5 minutes |
| 6 | further attempts of a block, which has 6 in all |

A fast attacker has no first attempts left, so a user in a new block can sign in within minutes. A thousand blocks with
two attempts an hour each look like the user in a thousand new blocks. Against those, a known browser can lend its limit
to a new one (a sign-in pass).
"""

from dataclasses import dataclass
from hashlib import sha256

from machpay_gateway.core.errors import Unavailable
from machpay_gateway.core.limits.admission import (
    AdmissionRequest,
    Admitted,
    Exceeded,
    LimiterUnavailable,
    take_and_release,
)
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.limits.ports import Limiter
from machpay_gateway.core.limits.rate import Tier

_OF_DEVICE = Tier(rate="10/5 minutes", concurrency=4)
_OF_CONFIRMING = Tier(rate="10/5 minutes", concurrency=4)
_OF_BLOCK = Tier(rate="60/5 minutes", concurrency=16)  # it may have many people behind it
_OF_EMAIL_FROM_BLOCK = Tier(rate="6/hour", concurrency=6)
_FAMILIAR = Tier(rate="6/hour", concurrency=6)
_FIRST = Tier(rate="1/450 seconds", concurrency=8)
_FURTHER = Tier(rate="6/hour", concurrency=6)
_FIRST_TRIES = 2


@dataclass(frozen=True, slots=True)
class SignInAttempt:
    """An attempt at the password of *email*, from an address *block* or a known browser (*device*)."""

    email: str
    block: str
    device: str | None = None
    is_familiar: bool = False


class SignInLimits:
    """Counts attempts in *limiter*, over all workers. A refused attempt adds counters for its own block only.

    Raises Unavailable while nothing is counted (`on_limiter_failure` is deny or allow): operators may choose to admit
    requests then, but not unlimited guesses of passwords.
    """

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    async def wait_seconds(self, attempt: SignInAttempt) -> float | None:
        """Count *attempt*; return the seconds to wait when it is over a limit, None when it may be made."""
        if attempt.device is not None and await self._try(f"device:{attempt.device}", _OF_DEVICE) is None:
            return None
        if (refused := await self._try(f"block:{attempt.block}", _OF_BLOCK)) is not None:
            return refused
        email = sha256(attempt.email.encode(errors="replace")).hexdigest()[:32]
        if attempt.is_familiar and await self._try(f"{email}:familiar", _FAMILIAR) is None:
            return None
        return await self._wait_of_unknown(email, attempt.block)

    async def wait_to_confirm(self, session: str) -> float | None:
        """Count a password check in a signed-in *session*, as `wait_seconds` does, under a limit of its own."""
        return await self._try(f"confirm:{session}", _OF_CONFIRMING)

    async def _wait_of_unknown(self, email: str, block: str) -> float | None:
        answer = await self._count(f"{email}:{block}", _OF_EMAIL_FROM_BLOCK)
        if isinstance(answer, Exceeded):
            return answer.wait_seconds
        is_early = answer.plan.limit - answer.levels[0] <= _FIRST_TRIES
        if is_early and await self._try(f"{email}:first", _FIRST) is None:
            return None
        return await self._try(f"{email}:further", _FURTHER)

    async def _try(self, subject: str, tier: Tier) -> float | None:
        answer = await self._count(subject, tier)
        return answer.wait_seconds if isinstance(answer, Exceeded) else None

    async def _count(self, subject: str, tier: Tier) -> Admitted | Exceeded:
        answer = await take_and_release(
            self._limiter.admit(AdmissionRequest(f"sign-in:{subject}", 0, tier_plan(tier), 1))
        )
        outage = self._limiter.outage
        if not isinstance(answer, Admitted | Exceeded) or (outage is not None and outage.mode == "allow"):
            detail = answer.detail if isinstance(answer, LimiterUnavailable) else "every attempt would be admitted"
            raise Unavailable(f"counting sign-ins: {detail}")
        return answer
