"""Verifies the gateway's own tokens: access tokens of OAuth clients, and sessions of API keys."""

from collections.abc import Collection, Mapping
from typing import Protocol

from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.jose import session
from machpay_gateway.core.jose.compact import CompactToken
from machpay_gateway.core.jose.ports import KeyPrincipals
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.core.oauth import access_token
from machpay_gateway.core.oauth.grant import Dependencies, Grant
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.keysets.signing import SigningKeys
from machpay_gateway.keysets.verified import VerifiedTokens

VERIFIED_SECONDS = 600.0  # how long a signature is trusted; the grant is checked every time
VERIFIED_TOKENS = 10_000


class Grants(Protocol):
    """The grants that changed. Raises StoreUnavailable."""

    def is_current(self, token: Dependencies, version: int, now: float) -> bool:
        """Tell whether *version* is certainly the latest of the *token*'s grant; does no I/O."""

    async def changed(self, token: Dependencies, version: int) -> Grant | str | None:
        """Return the grant if it changed after *version*, None if not, or the reason, for the log, why it is gone."""

    def forget(self, grant_id: str) -> None:
        """Note that the grant has changed."""

    async def close(self) -> None:
        """Cancel look-ups in progress."""


class OwnTokens:
    """Verifies the sessions that *signing* has signed, and with *oauth_settings* and *grants* the access tokens too."""

    def __init__(
        self,
        signing: SigningKeys,
        *,
        keys: KeyPrincipals,
        tiers: Mapping[str, Tier],
        oauth_settings: OAuthSettings | None,
        grants: Grants | None,
    ) -> None:
        self._signing = signing
        self._keys = keys
        self._tiers = tiers
        self._oauth_settings = oauth_settings
        self._grants = grants
        self._verified = VerifiedTokens(seconds=VERIFIED_SECONDS, size=VERIFIED_TOKENS)
        signing.on_drop(self._forget_signed_by)

    def claims_to_be(self, token: CompactToken) -> bool:
        """Tell whether *token* claims to be the gateway's own; nothing of it is verified yet."""
        iss = token.claims.get("iss")
        return iss == session.ISSUER or (self._oauth_settings is not None and iss == self._oauth_settings.issuer)

    def cached(self, digest: bytes, now: float) -> Principal | None:
        """Return the principal of an access token that was verified recently; does no I/O."""
        principal = self._verified.cached(digest, now)
        if principal is None or self._grants is None:
            return None
        account, client = principal.account_id or "", principal.client_id or ""
        token = Dependencies(principal.subject, client, principal.id, account)
        return principal if self._grants.is_current(token, principal.version, now) else None

    def holds(self, digest: bytes) -> bool:
        """Tell whether a token with this *digest* was verified recently, even if it has expired since."""
        return self._verified.holds(digest)

    def forget(self, subject: str) -> None:
        """Note that the grant *subject* has changed."""
        if self._grants is not None:
            self._grants.forget(subject)

    async def verify(self, token: CompactToken, digest: bytes, now: float) -> Principal | str:
        """Return the principal of *token*, or the reason, for the log, why it is refused.

        Raises StoreUnavailable.
        """
        # By `typ` first: a token of one kind must never be taken for another, whoever signed it (RFC 8725 §3.12).
        if token.type == session.TYPE:
            return await self._session(token, digest, now)
        if token.type == access_token.TYPE and self._oauth_settings is not None and self._grants is not None:
            return await self._access(token, digest, now, self._oauth_settings, self._grants)
        return "typ is not one of ours"

    async def close(self) -> None:
        """Cancel look-ups in progress."""
        await self._signing.close()
        if self._grants is not None:
            await self._grants.close()

    async def _session(self, token: CompactToken, digest: bytes, now: float) -> Principal | str:
        presented = session.parse_session(token.claims, digest, now, kid=token.kid)
        if isinstance(presented, str):
            return presented
        if not await self._signing.has_signed(token):
            return "wrong signature"
        return await self._keys.find(presented) or "the session's key is gone"

    async def _access(
        self, token: CompactToken, digest: bytes, now: float, oauth_settings: OAuthSettings, grants: Grants
    ) -> Principal | str:
        verified = self._verified.cached(digest, now)
        if verified is None:
            if refusal := access_token.access_token_error(token.claims, oauth_settings, now):
                return refusal
            if not await self._signing.has_signed(token):
                return "wrong signature"
        version = int(str(token.claims["ver"])) if verified is None else verified.version
        grant, client, user, account = (str(token.claims[name]) for name in ("gid", "client_id", "sub", "acct"))
        changed = await grants.changed(Dependencies(grant, client, user, account), version)
        if isinstance(changed, str):
            return changed
        if verified is not None and changed is None:
            return verified
        principal = access_token.access_principal(token.claims, self._tiers, changed)
        if isinstance(principal, str):
            self._verified.forget(digest)
        elif self._signing.verifies(token.kid):  # the key may have been dropped since the signature was verified
            self._verified.remember(digest, principal, now, kid=token.kid)
        return principal

    def _forget_signed_by(self, kids: Collection[str]) -> None:
        self._verified.forget_signed_by(kids)
        self._keys.forget_signed_by(kids)
