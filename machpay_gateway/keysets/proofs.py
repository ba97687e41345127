"""Proofs of possession (RFC 9449), each good for once: what was seen is remembered where quotas are counted."""

from collections.abc import Callable

from machpay_gateway.core.decision.credential import Proof
from machpay_gateway.core.errors import Unavailable
from machpay_gateway.core.limits.admission import AdmissionRequest, Admitted, LimiterUnavailable, take_and_release
from machpay_gateway.core.limits.ports import Limiter
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.core.oauth.dpop import verify_proof
from machpay_gateway.core.oauth.settings import OAuthSettings

# A quota of one in the time that a proof is fresh for, before and after now: the second one is over it, on every
# worker and host that shares the limiter.
_ONCE = Tier(rate="1/2 minutes", concurrency=1)


class Proofs:
    """Judges proofs for *oauth_settings*'s endpoints and its API."""

    def __init__(self, oauth_settings: OAuthSettings, limiter: Limiter, *, clock: Callable[[], float]) -> None:
        self._oauth_settings = oauth_settings
        self._limiter = limiter
        self._clock = clock

    def at_endpoint(self, values: tuple[bytes, ...], path: str) -> Proof | str:
        """Return the proof in *values* of a POST to the endpoint at *path*, used before or not, or why it is none."""
        return verify_proof(values, method="POST", url=self._oauth_settings.url(path), now=self._clock(), token=None)

    def at_api(self, values: tuple[bytes, ...], method: str, path: str, token: bytes, key: str) -> Proof | str:
        """Return the proof of *key* in *values* for this request and *token*, used before or not, or why it is none.

        The address is this API's, whatever the request says of where it came to: no header of a stranger's is believed.
        """
        url = self._oauth_settings.audience_origin + path
        found = verify_proof(values, method=method, url=url, now=self._clock(), token=token)
        if isinstance(found, Proof) and found.key != key:
            return "proof: of another key than the token is bound to"
        return found

    async def is_first_use(self, proof: Proof) -> bool:
        """Remember *proof* and tell whether it is used for the first time. Raises Unavailable.

        Ask when nothing else can refuse the request: whoever makes proofs could fill the memory with them.
        """
        answer = await take_and_release(self._limiter.admit(AdmissionRequest(f"proof:{proof.name}", 0, _ONCE, 1)))
        if isinstance(answer, LimiterUnavailable):
            raise Unavailable(f"whether a proof was seen before: {answer.detail}")
        return isinstance(answer, Admitted)
