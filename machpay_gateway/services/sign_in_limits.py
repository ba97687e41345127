"""How often a password may be tried, so that guessing is hopeless and strangers cannot lock a user out.

All is counted by address block, as one IPv6 /64 has more addresses than can be counted. A known browser has a budget
that nobody else can spend (`core.accounts.device`). Everybody else shares 20 tries of an e-mail in any hour:

| tries an hour | whose |
| --- | --- |
| 6 | address blocks that the user signed in from within 90 days |
| 8 | the first two tries of any block within an hour: one each 7.5 minutes |
| 6 | further tries of a block, of which it has 6 in all |

Whoever tries fast has no first tries left, so a block that the user comes to for the first time finds room again after
minutes. A thousand blocks that try twice an hour each cannot be told from a thousand new places of the user: against
those a known browser gives a new one its own budget.
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
    """A try of the password of *email*, from an address *block* or a known browser (*device*)."""

    email: str
    block: str
    device: str | None = None
    is_familiar: bool = False


class SignInLimits:
    """Counts tries in *limiter*, over all workers. A refused try stores nothing that its block has not paid for.

    Raises Unavailable while nothing is counted (`on_limiter_failure` is deny or allow): what holds for requests then is
    for the operator to choose, but a password that may be guessed without end is none.
    """

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    async def wait_seconds(self, attempt: SignInAttempt) -> float | None:
        """Count *attempt*; return how long nobody may try like this, None when this one may be made."""
        if attempt.device is not None and await self._try(f"device:{attempt.device}", _OF_DEVICE) is None:
            return None
        if (refused := await self._try(f"block:{attempt.block}", _OF_BLOCK)) is not None:
            return refused
        email = sha256(attempt.email.encode(errors="replace")).hexdigest()[:32]
        if attempt.is_familiar and await self._try(f"{email}:familiar", _FAMILIAR) is None:
            return None
        return await self._wait_of_stranger(email, attempt.block)

    async def wait_to_confirm(self, session: str) -> float | None:
        """Count a try of the password by who sits before a *session*, as `wait_seconds` does: it uses up no other's."""
        return await self._try(f"confirm:{session}", _OF_CONFIRMING)

    async def _wait_of_stranger(self, email: str, block: str) -> float | None:
        answer = await self._count(f"{email}:{block}", _OF_EMAIL_FROM_BLOCK)
        if isinstance(answer, Exceeded):
            return answer.wait_seconds
        is_early = answer.tier.limit - answer.left <= _FIRST_TRIES
        if is_early and await self._try(f"{email}:first", _FIRST) is None:
            return None
        return await self._try(f"{email}:further", _FURTHER)

    async def _try(self, subject: str, tier: Tier) -> float | None:
        answer = await self._count(subject, tier)
        return answer.wait_seconds if isinstance(answer, Exceeded) else None

    async def _count(self, subject: str, tier: Tier) -> Admitted | Exceeded:
        answer = await take_and_release(self._limiter.admit(AdmissionRequest(f"sign-in:{subject}", 0, tier, 1)))
        outage = self._limiter.outage
        if not isinstance(answer, Admitted | Exceeded) or (outage is not None and outage.mode == "allow"):
            detail = answer.detail if isinstance(answer, LimiterUnavailable) else "every try would be admitted"
            raise Unavailable(f"counting sign-ins: {detail}")
        return answer
