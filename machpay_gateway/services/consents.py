"""What users let apps do: remembered, so that the same is not asked twice, and told by a code."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from machpay_gateway.core.accounts.user import User
from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.keys.audit import Actor, Change
from machpay_gateway.core.keys.key import ENTROPY_BYTES, mint_id, secret_digest
from machpay_gateway.core.oauth.authorization_request import AuthorizationRequest
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.grant import CODE_SECONDS, AuthorizationCode, Grant
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, mint
from machpay_gateway.core.oauth.ports import GrantStore
from machpay_gateway.core.scopes import Scopes

_ATTEMPTS = 10


class Consents:
    """Grants as they are given. *announce* is told (grant id, version) after each change was stored."""

    def __init__(
        self,
        store: GrantStore,
        *,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        announce: Callable[[str, int], Awaitable[None]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._announce = announce

    async def is_given(self, request: AuthorizationRequest, user: User) -> bool:
        """Tell whether *user* has let the app do before all that it asks for now."""
        grant = await self._store.grant_of(request.client.id, user.id, self._clock())
        return grant is not None and grant.is_alive and request.scopes.names <= grant.scopes.names

    async def give(self, request: AuthorizationRequest, user: User, scopes: Scopes, actor: Actor) -> str:
        """Let the app do what *scopes* say, of what it asked for, and return the code that tells it so."""
        grant = await self.grant_for(request.client, user.account_id, user.id, scopes, actor)
        now, code = self._clock(), mint(OpaqueTokenKind.CODE, self._entropy(ENTROPY_BYTES))
        await self._store.add_code(
            AuthorizationCode(
                digest=secret_digest(code.encode()),
                family_id=mint_id("family", self._entropy(ENTROPY_BYTES)),
                grant_id=grant.id,
                client_id=request.client.id,
                redirect_uri=request.back.redirect_uri,
                has_redirect=request.back.has_redirect,
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
        """Return the grant of *client* and the user, or the client itself: with *scopes* at least, and alive."""
        for _ in range(_ATTEMPTS):
            now = self._clock()
            known = await self._store.grant_of(client.id, user_id or client.id, now)
            if known is not None and known.is_alive and scopes.names <= known.scopes.names:
                return known
            first = self._first(client, account_id, user_id, scopes)
            wanted = first if known is None else _extended(known, scopes)
            before = {} if known is None else {"scopes": list(known.scopes), "alive": known.is_alive}
            after = {"scopes": list(wanted.scopes), "alive": True, "client": client.id, "user": user_id}
            action = "grant.create" if known is None else "grant.extend"
            change = Change(now, actor, action, account_id, wanted.id, before, after)
            if await self._store.put_grant(wanted, change):
                await self._announce(wanted.id, wanted.version)
                return await self._store.grant(wanted.id, self._clock()) or wanted
        raise StoreUnavailable(f"grant: it changed {_ATTEMPTS} times meanwhile")

    def _first(self, client: OAuthClient, account_id: str, user_id: str | None, scopes: Scopes) -> Grant:
        return Grant(
            id=mint_id("grant", self._entropy(ENTROPY_BYTES)),
            client_id=client.id,
            user_id=user_id,
            account_id=account_id,
            environment=client.environment,
            tier=client.tier,
            scopes=scopes,
            created_at=self._clock(),
        )


def _extended(known: Grant, scopes: Scopes) -> Grant:
    version = known.version + 1
    if not known.is_alive:
        # What came of it before stays dead.
        return replace(known, scopes=scopes, version=version, valid_from=version, is_alive=True)
    return replace(known, scopes=Scopes(known.scopes.names | scopes.names), version=version)
