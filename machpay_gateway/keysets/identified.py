"""Credentials that the application identifies, beside the tokens that the gateway verifies by itself."""

from collections.abc import Mapping

from machpay_gateway.core.decision.credential import CustomCredential, SignedToken
from machpay_gateway.core.decision.hooks import IdentifyHook, cache_seconds, principal_of
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.errors import Unavailable
from machpay_gateway.core.jose.ports import TokenVerifier
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.hooks import FailureLog, hook_name, is_async, within_seconds
from machpay_gateway.keysets.verified import VerifiedTokens
from machpay_gateway.singleflight import SingleFlight

_CACHED = 10_000  # credentials
_NOBODY = "the application does not know it"


class IdentifiedCredentials:
    """Verifies tokens by *tokens*, and has *hook* identify what is none of theirs.

    A result is cached if the hook says so. Concurrent requests with one credential share a call. Raises Unavailable
    when the hook fails.
    """

    def __init__(self, hook: IdentifyHook, tokens: TokenVerifier, tiers: Mapping[str, Tier]) -> None:
        self._hook = hook
        self._is_async = is_async(hook)
        self._tokens = tokens
        self._tiers = tiers
        self._seconds = cache_seconds(hook)
        self._identified = VerifiedTokens(seconds=self._seconds, size=_CACHED)
        self._calls = SingleFlight(self._call, failed=FailureLog(hook).add)

    def cached(self, digest: bytes, now: float) -> Principal | None:
        """Return the principal of a credential that was identified or verified recently; does no I/O."""
        return self._tokens.cached(digest, now) or self._identified.cached(digest, now)

    def holds(self, digest: bytes) -> bool:
        """Tell whether a credential with this *digest* was identified or verified recently."""
        return self._tokens.holds(digest) or self._identified.holds(digest)

    def may_verify(self, token: SignedToken) -> bool:  # noqa: ARG002 - of the protocol
        """Return True: a token of an issuer that is not trusted may be one of the application's."""
        return True

    async def verify(self, token: SignedToken, now: float) -> Principal | str:
        """Return the principal of *token*, or the reason, for the log, why it is refused."""
        if self._tokens.may_verify(token):
            return await self._tokens.verify(token, now)
        return await self.identify(CustomCredential(token.token.decode("ascii"), token.digest), now)

    async def identify(self, credential: CustomCredential, now: float) -> Principal | str:
        """Return the principal of *credential*, or the reason, for the log, why there is none."""
        try:
            principal = await self._calls.join(credential.text)
        except Unavailable:
            raise
        except Exception as exc:
            raise Unavailable(f"the hook {hook_name(self._hook)} failed: {type(exc).__name__}") from exc
        if principal is None:
            return _NOBODY
        if self._seconds:
            self._identified.remember(credential.digest, principal, now)
        return principal

    def forget(self, subject: str) -> None:
        """Invalidate what is cached of *subject*: an identity does not change within its seconds."""
        self._tokens.forget(subject)

    async def close(self) -> None:
        """Cancel calls and fetches in progress."""
        await self._calls.close()
        await self._tokens.close()

    async def _call(self, text: str) -> Principal | None:
        identity = await within_seconds(self._hook, text) if self._is_async else self._hook(text)
        return None if identity is None else principal_of(identity, self._tiers)
