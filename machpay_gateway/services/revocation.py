"""Revocation (RFC 7009) and introspection (RFC 7662) of tokens, and revocation of grants."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from machpay_gateway.core.accounts.management import ManagementAction, authorize
from machpay_gateway.core.decision.credential import SignedToken
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.jose.compact import parse_compact
from machpay_gateway.core.keys.audit import APPLICATION, Actor, Change
from machpay_gateway.core.keys.key import is_id, secret_digest
from machpay_gateway.core.oauth.access_token import TYPE
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.grant import Grant, StoredRefreshToken
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, digest_of
from machpay_gateway.core.oauth.ports import OAuthStore
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.services.optimistic_locking import Invalidate

_REVOKED = "revoked"
_INACTIVE: Mapping[str, Any] = {"active": False}


class AccessTokenVerifier(Protocol):
    """Verifies access tokens. Raises StoreUnavailable."""

    async def verify(self, token: SignedToken, now: float) -> Principal | str:
        """Return the principal of *token*, or the reason for its refusal, for the log."""


class Revocation:
    """Revokes tokens and grants, lists grants, and introspects tokens.

    *invalidate* is called with each grant that changed.
    """

    def __init__(
        self,
        store: OAuthStore,
        *,
        issuer: str,
        verifier: AccessTokenVerifier,
        clock: Callable[[], float],
        invalidate: Invalidate,
    ) -> None:
        self._store = store
        self._issuer = issuer
        self._verifier = verifier
        self._clock = clock
        self._invalidate = invalidate

    async def revoke_token(self, client: OAuthClient, token: str, actor: Actor) -> None:
        """Revoke an access token or refresh token if it was issued to the client (RFC 7009 §2.1).

        All tokens of its family are revoked. For a token from the client credentials grant type, the client's own
        grant is revoked.
        """
        digest = digest_of(OpaqueTokenKind.REFRESH_TOKEN, token)
        stored = None if digest is None else await self._store.refresh_token(digest)
        if stored is not None:
            if stored.family.client_id == client.id:
                await self.revoke_family(stored.family.id, stored.grant, actor, _REVOKED)
            return
        principal = await self._verify_access_token(client, token)
        if principal is None:
            return
        grant = await self._store.grant(principal.subject, self._clock())
        family_id = principal.claims.get("fam")
        if grant is not None and isinstance(family_id, str):
            await self.revoke_family(family_id, grant, actor, _REVOKED)
        elif grant is not None:
            await self.revoke_grant(None, grant, actor=actor)

    async def introspect(self, client: OAuthClient, token: str) -> Mapping[str, Any]:
        """Return the introspection response: `active` is true for valid tokens of *client* only."""
        digest = digest_of(OpaqueTokenKind.REFRESH_TOKEN, token)
        if digest is not None:
            stored = await self._store.refresh_token(digest)
            return _INACTIVE if stored is None else self._describe_refresh_token(client, stored)
        principal = await self._verify_access_token(client, token)
        if principal is None:
            return _INACTIVE
        claims = principal.claims
        copied = {name: claims[name] for name in ("sub", "aud", "iss", "exp", "iat", "jti", "cnf") if name in claims}
        token_type = "DPoP" if "cnf" in claims else "Bearer"
        return {
            "active": True,
            "scope": str(principal.scopes),
            "client_id": client.id,
            "token_type": token_type,
            **copied,
        }

    async def list(
        self,
        account_id: str | None,
        *,
        client_id: str | None = None,
        environment: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[Grant]:
        """Return at most *limit* grants of the account, newest first, starting after the grant id *after*.

        They include the grants of its users and the own grants of its clients.
        """
        if not all(is_id(value) for value in (client_id, after) if value is not None):
            return []
        return await self._store.grants(
            account_id, client_id=client_id, environment=environment, after=after, limit=limit
        )

    async def get(self, account_id: str | None, grant_id: str) -> Grant | None:
        """Return the grant with its current status, or None when there is none. Ended grants are included."""
        grant = await self._store.grant(grant_id, self._clock()) if is_id(grant_id) else None
        return grant if grant is not None and account_id in (None, grant.account_id) else None

    async def revoke_grant(self, account_id: str | None, grant: Grant, *, actor: Actor = APPLICATION) -> bool:
        """Revoke *grant* and all of its tokens. Returns False when it has already ended.

        Raises NotPermitted when *actor* may not revoke it.
        """
        if authorize(actor, ManagementAction.END, grant) is None:
            return False
        before, after = {"alive": True}, {"alive": False}
        change = Change(self._clock(), actor, "grant.revoke", grant.account_id, grant.id, before, after)
        version = await self._store.revoke_grant(account_id, grant.id, change)
        if version is None:
            return False
        await self._invalidate([version])
        return True

    async def revoke_family(self, family_id: str, grant: Grant, actor: Actor, reason: str) -> None:
        """Revoke all tokens of a family, unless it has already ended. *reason* is for the audit log."""
        before, after = {"family": family_id}, {"family": None, "reason": reason}
        change = Change(self._clock(), actor, "grant.end_family", grant.account_id, grant.id, before, after)
        if (version := await self._store.revoke_family(family_id, change)) is not None:
            await self._invalidate([version])

    async def _verify_access_token(self, client: OAuthClient, token: str) -> Principal | None:
        """Return the principal of *token*, or None unless it is a valid access token of the client."""
        raw = token.encode(errors="replace")
        compact = parse_compact(raw)
        if isinstance(compact, str) or compact.type != TYPE:
            return None
        principal = await self._verifier.verify(SignedToken(raw, secret_digest(raw)), self._clock())
        if not isinstance(principal, Principal) or principal.kind != "oauth" or principal.client_id != client.id:
            return None
        return principal

    def _describe_refresh_token(self, client: OAuthClient, stored: StoredRefreshToken) -> Mapping[str, Any]:
        token, family, grant = stored.token, stored.family, stored.grant
        expires_at = min(token.expires_at, family.expires_at)
        is_active = token.used_at is None and family.ended_at is None and grant.is_alive and self._clock() < expires_at
        if family.client_id != client.id or not is_active:
            return _INACTIVE
        return {
            "active": True,
            "scope": str(Scopes(family.scopes.names & grant.scopes.names)),
            "client_id": client.id,
            "sub": grant.user_id or grant.client_id,
            "aud": family.resources[0] if len(family.resources) == 1 else list(family.resources),
            "iss": self._issuer,
            "exp": int(expires_at),
            "iat": int(token.created_at),
            "token_type": "refresh_token",
        }
