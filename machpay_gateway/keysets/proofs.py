"""Proofs of possession (RFC 9449), each good for once: what was seen is remembered where quotas are counted."""

from collections.abc import Callable

from machpay_gateway.core.admission import Away, Demand, Granted, spent
from machpay_gateway.core.errors import Unavailable
from machpay_gateway.core.oauth.authority import Authority
from machpay_gateway.core.oauth.dpop import Proof, checked_proof
from machpay_gateway.core.ports import Limiter
from machpay_gateway.core.quota import Tier

# A quota of one in the time that a proof is fresh for, before and after now: the second one is over it, on every
# worker and host that shares the limiter.
_ONCE = Tier(rate="1/2 minutes", concurrency=1)


class Proofs:
    """Judges proofs for *authority*'s endpoints and its API."""

    def __init__(self, authority: Authority, limiter: Limiter, *, clock: Callable[[], float]) -> None:
        self._authority = authority
        self._limiter = limiter
        self._clock = clock

    async def at_endpoint(self, values: tuple[bytes, ...], path: str) -> Proof | str:
        """Return the proof in *values* of a POST to the endpoint at *path*, or why it is none."""
        proof = checked_proof(values, method="POST", url=self._authority.url(path), now=self._clock(), token=None)
        return proof if isinstance(proof, str) or await self._is_new(proof) else "proof: seen before"

    async def refusal(self, proof: tuple[bytes, ...], method: str, path: str, token: bytes, key: str) -> str | None:
        """Return why *proof* does not prove *key* for this request and *token*, for the log; None when it does.

        The address is this API's, whatever the request says of where it came to: no header of a stranger's is believed.
        """
        url = self._authority.audience_origin + path
        found = checked_proof(proof, method=method, url=url, now=self._clock(), token=token)
        if isinstance(found, str):
            return found
        if found.key != key:
            return "proof: of another key than the token is bound to"
        return None if await self._is_new(found) else "proof: seen before"

    async def _is_new(self, proof: Proof) -> bool:
        answer = await spent(self._limiter.admit(Demand(f"proof:{proof.name}", 0, _ONCE, 1)))
        if isinstance(answer, Away):
            raise Unavailable(f"whether a proof was seen before: {answer.detail}")
        return isinstance(answer, Granted)
