"""Verifies DPoP proofs (RFC 9449), each of which can be used once: the limiter records the used ones."""

from collections.abc import Callable

from machpay_gateway.core.decision.credential import Proof
from machpay_gateway.core.errors import Unavailable
from machpay_gateway.core.limits.admission import AdmissionRequest, Admitted, LimiterUnavailable, take_and_release
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.limits.ports import Limiter
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.core.oauth.dpop import verify_proof
from machpay_gateway.core.oauth.settings import OAuthSettings

# A limit of one use within the time that a proof is fresh, before and after now: the second use exceeds it, on every
# worker and host that shares the limiter.
_ONCE = Tier(rate="1/2 minutes", concurrency=1)


class Proofs:
    """Verifies proofs for the endpoints of *oauth_settings* and its API."""

    def __init__(self, oauth_settings: OAuthSettings, limiter: Limiter, *, clock: Callable[[], float]) -> None:
        self._oauth_settings = oauth_settings
        self._limiter = limiter
        self._clock = clock

    def at_endpoint(self, values: tuple[bytes, ...], path: str) -> Proof | str:
        """Return the proof in *values* for a POST to the endpoint at *path*, or the reason why there is none."""
        return verify_proof(values, method="POST", url=self._oauth_settings.url(path), now=self._clock(), token=None)

    def at_api(self, values: tuple[bytes, ...], method: str, path: str, token: bytes, key: str) -> Proof | str:
        """Return the proof by *key* in *values* for this request and *token*, or the reason why there is none.

        The URL is built from the configured audience: the Host header is under the attacker's control.
        """
        url = self._oauth_settings.audience_origin + path
        proof = verify_proof(values, method=method, url=url, now=self._clock(), token=token)
        if isinstance(proof, Proof) and proof.key != key:
            return "proof: of another key than the token is bound to"
        return proof

    async def is_first_use(self, proof: Proof) -> bool:
        """Record *proof* and tell whether this is its first use. Raises Unavailable.

        Call it when nothing else can refuse the request: an attacker could fill the memory with proofs.
        """
        answer = await take_and_release(
            self._limiter.admit(AdmissionRequest(f"proof:{proof.name}", 0, tier_plan(_ONCE), 1))
        )
        if isinstance(answer, LimiterUnavailable):
            raise Unavailable(f"whether a proof was seen before: {answer.detail}")
        return isinstance(answer, Admitted)
