"""The use cases on consent: what users have allowed OAuth clients, and the authorization codes that say so."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from machpay_gateway.core.accounts.user import User
from machpay_gateway.core.brand import MACHPAY, Brand
from machpay_gateway.core.keys.audit import Actor, Change
from machpay_gateway.core.keys.key import ENTROPY_BYTES, mint_id, secret_digest
from machpay_gateway.core.keys.ports import ChangedRecord
from machpay_gateway.core.oauth.authorization_request import AuthorizationRequest
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.grant import CODE_SECONDS, AuthorizationCode, Grant
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, mint
from machpay_gateway.core.oauth.ports import OAuthStore
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.services.optimistic_locking import Invalidate, update_record


class Consents:
    """Creates and extends grants.

    *invalidate* is called with the grant after each change is stored.
    """

    def __init__(
        self,
        store: OAuthStore,
        *,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        invalidate: Invalidate,
        brand: Brand = MACHPAY,
    ) -> None:
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._brand = brand
        self._invalidate = invalidate

    async def is_given(self, request: AuthorizationRequest, user: User) -> bool:
        """Tell whether *user* has already allowed all scopes of *request*."""
        grant = await self._store.grant_of(request.client.id, user.id, self._clock())
        return grant is not None and _covers(grant, request.scopes)

    async def give(self, request: AuthorizationRequest, user: User, scopes: Scopes, actor: Actor) -> str:
        """Grant *scopes* to the client of *request* and return an authorization code."""
        grant = await self.grant_for(request.client, user.account_id, user.id, scopes, actor)
        now, code = self._clock(), mint(OpaqueTokenKind.CODE, self._entropy(ENTROPY_BYTES), self._brand.tag)
        await self._store.add_code(
            AuthorizationCode(
                digest=secret_digest(code.encode()),
                family_id=mint_id("family", self._entropy(ENTROPY_BYTES)),
                grant_id=grant.id,
                client_id=request.client.id,
                redirect_uri=request.target.redirect_uri,
                has_redirect=request.target.has_redirect,
                scopes=scopes,
                resources=request.resources,
                challenge=request.challenge,
                created_at=now,
                expires_at=now + CODE_SECONDS,
            )
        )
        return code

    async def grant_for(
        self, client: OAuthClient, account_id: str, user_id: str | None, scopes: Scopes, actor: Actor
    ) -> Grant:
        """Return the live grant of *client* and the user, or of the client itself, with at least *scopes*."""
        stored = await self._store.grant_of(client.id, user_id or client.id, self._clock())
        if stored is not None and _covers(stored, scopes):
            return stored

        async def load() -> Grant:
            stored = await self._store.grant_of(client.id, user_id or client.id, self._clock())
            return stored or self._draft(client, account_id, user_id)

        def describe(before: Grant, after: Grant) -> Change:
            is_new = before.version == 0
            action = "grant.create" if is_new else "grant.extend"
            old = {} if is_new else {"scopes": list(before.scopes), "alive": before.is_alive}
            new = {"scopes": list(after.scopes), "alive": True, "client": client.id, "user": user_id}
            return Change(self._clock(), actor, action, account_id, after.id, old, new)

        async def write(_before: Grant, after: Grant, change: Change) -> Sequence[ChangedRecord] | None:
            return (
                [ChangedRecord(after.id, after.version, after.account_id)]
                if await self._store.put_grant(after, change)
                else None
            )

        edit = partial(_extended, scopes=scopes)
        grant = await update_record("grant", load, edit, write, describe=describe, invalidate=self._invalidate)
        assert grant is not None  # noqa: S101 - `load` returns one
        # Read back: the tier of the client's account may have changed since the client was loaded.
        return await self._store.grant(grant.id, self._clock()) or grant

    def _draft(self, client: OAuthClient, account_id: str, user_id: str | None) -> Grant:
        """Return a grant that is not stored: version 0, and nothing is allowed yet."""
        return Grant(
            id=mint_id("grant", self._entropy(ENTROPY_BYTES)),
            client_id=client.id,
            user_id=user_id,
            account_id=account_id,
            environment=client.environment,
            tier=client.tier,
            scopes=Scopes(),
            created_at=self._clock(),
            version=0,
            is_alive=False,
        )


def _covers(grant: Grant, scopes: Scopes) -> bool:
    return grant.is_alive and scopes.names <= grant.scopes.names


def _extended(grant: Grant, scopes: Scopes) -> Grant:
    if _covers(grant, scopes):
        return grant
    version = grant.version + 1
    if not grant.is_alive:
        # A new beginning: tokens of earlier versions stay dead.
        return replace(grant, scopes=scopes, version=version, valid_from=version, is_alive=True)
    return replace(grant, scopes=Scopes(grant.scopes.names | scopes.names), version=version)
