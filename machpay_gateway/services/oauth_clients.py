"""The use cases on OAuth clients, shared by the admin API, the Console and the command line."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial

from machpay_gateway.core.accounts.management import ManagementAction, Manager, check_creation, check_scopes
from machpay_gateway.core.brand import MACHPAY, Brand
from machpay_gateway.core.errors import InputError, StateError
from machpay_gateway.core.keys.audit import APPLICATION, Actor, Change
from machpay_gateway.core.keys.key import (
    DAY_SECONDS,
    ENTROPY_BYTES,
    ENVIRONMENTS,
    MAX_GRACE_SECONDS,
    SecretRecord,
    is_id,
    mint_id,
    secret_digest,
)
from machpay_gateway.core.keys.ports import ChangedRecord
from machpay_gateway.core.keys.validation import validate_name
from machpay_gateway.core.oauth.client import (
    AUTHORIZATION_CODE,
    NEVER_GRANTED,
    REFRESH_TOKEN,
    OAuthClient,
    client_state,
    validate_client_scopes,
    validate_grant_types,
)
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, mint
from machpay_gateway.core.oauth.ports import ClientStore
from machpay_gateway.core.oauth.redirect_uri import validate_redirect_uris
from machpay_gateway.core.scopes import DefinedScopes, Scopes
from machpay_gateway.core.text import quote_value
from machpay_gateway.core.unchanged import UNCHANGED, Unchanged
from machpay_gateway.services.optimistic_locking import (
    Edit,
    Invalidate,
    ManagedUpdate,
    Precondition,
    update_managed_record,
)

_MAX_REMOVED = 100  # clients in one transaction: the audit log's row names each of them
_DEFAULT_GRANTS = (AUTHORIZATION_CODE, REFRESH_TOKEN)


class OAuthClients:
    """The use cases on clients.

    *invalidate* is called with the grants that a change affects.
    *scopes* are all scopes that exist; *entropy* returns that many random bytes; *clock* returns seconds since the
    epoch.
    """

    def __init__(
        self,
        store: ClientStore,
        *,
        scopes: Iterable[str],
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        invalidate: Invalidate,
        brand: Brand = MACHPAY,
    ) -> None:
        self._store = store
        self.grantable = DefinedScopes.of(scopes).without(NEVER_GRANTED)
        self._clock = clock
        self._entropy = entropy
        self._brand = brand
        self._invalidate = invalidate

    async def create(  # noqa: PLR0913 - what a client is made of, by keyword
        self,
        account_id: str,
        *,
        name: str,
        scopes: Collection[str],
        redirect_uris: Collection[str] = (),
        grant_types: Collection[str] = _DEFAULT_GRANTS,
        environment: str = "live",
        is_public: bool = False,
        requires_pkce: bool = True,
        binds_tokens: bool = False,
        actor: Actor = APPLICATION,
        idempotency_name: bytes | None = None,
    ) -> tuple[OAuthClient, str | None]:
        """Create a client and return it with its secret, None for a public one. Raises InputError.

        The secret cannot be retrieved later.

        Raises DuplicateRequest, and creates nothing, when a request with this *idempotency_name* was carried out
        within the last day.
        """
        if environment not in ENVIRONMENTS:
            raise InputError(f"Environment {quote_value(environment)} does not exist: use live or test.")
        _check_pkce(is_public=is_public, requires_pkce=requires_pkce)
        client, secret = self._new(
            account_id,
            name=name,
            scopes=scopes,
            redirect_uris=redirect_uris,
            grant_types=grant_types,
            environment=environment,
            is_public=is_public,
            requires_pkce=requires_pkce,
            binds_tokens=binds_tokens,
            actor=actor,
        )
        check_creation(actor, client)
        await self._store.add_client(client, _creation(client, actor), idempotency_name)
        return await self._store.client(account_id, client.id) or client, secret

    async def register(  # noqa: PLR0913 - what a client is made of, by keyword
        self,
        account_id: str,
        *,
        name: str,
        scopes: Collection[str],
        redirect_uris: Collection[str],
        grant_types: Collection[str],
        is_public: bool,
        binds_tokens: bool,
        max_clients: int,
        actor: Actor,
    ) -> tuple[OAuthClient, str | None] | None:
        """Create a client that registers itself (RFC 7591) and return it with its secret, as `create` does.

        None, and nothing is stored, when *max_clients* that registered themselves exist. Raises InputError.
        """
        client, secret = self._new(
            account_id,
            name=name,
            scopes=scopes,
            redirect_uris=redirect_uris,
            grant_types=grant_types,
            is_public=is_public,
            binds_tokens=binds_tokens,
            is_self_registered=True,
            actor=actor,
        )
        if not await self._store.register_client(client, max_clients, _creation(client, actor)):
            return None
        return await self._store.client(account_id, client.id) or client, secret

    async def remove_unused(self, days: float) -> None:
        """Remove clients that registered themselves at least *days* ago and that no user has ever allowed.

        Several processes may do this at the same time: each client is removed, and logged, once.
        """
        before = self._clock() - days * DAY_SECONDS
        while unused := await self._store.unused_clients(before, _MAX_REMOVED):
            account_id = unused[0].account_id
            ids = [client.id for client in unused if client.account_id == account_id]
            removed = {"count": len(ids), "clients": ids}
            change = Change(self._clock(), APPLICATION, "client.remove_unused", account_id, account_id, removed, {})
            if not await self._store.remove_clients(ids, change):
                return  # another process removes them, or a user just allowed one of them: the next run takes the rest

    async def list(
        self,
        account_id: str | None,
        *,
        environment: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[OAuthClient]:
        """Return clients, newest first, at most *limit* of them, those after the client id *after*."""
        if after is not None and not is_id(after):
            return []
        return await self._store.clients(account_id, environment=environment, after=after, limit=limit)

    async def get(self, account_id: str | None, client_id: str) -> OAuthClient | None:
        """Return the client, unless it was deleted."""
        client = await self.get_even_deleted(account_id, client_id)
        return None if client is None or client.deleted_at is not None else client

    async def get_even_deleted(self, account_id: str | None, client_id: str) -> OAuthClient | None:
        """Return the client, deleted or not: a page of the list may begin after a deleted one."""
        return await self._store.client(account_id, client_id) if is_id(client_id) else None

    async def update(  # noqa: PLR0913 - what a client is made of, by keyword
        self,
        account_id: str | None,
        client_id: str,
        *,
        name: str | Unchanged = UNCHANGED,
        scopes: Collection[str] | Unchanged = UNCHANGED,
        redirect_uris: Collection[str] | Unchanged = UNCHANGED,
        grant_types: Collection[str] | Unchanged = UNCHANGED,
        requires_pkce: bool | Unchanged = UNCHANGED,
        binds_tokens: bool | Unchanged = UNCHANGED,
        actor: Actor = APPLICATION,
        precondition: Precondition[OAuthClient] | None = None,
    ) -> OAuthClient | None:
        """Change the settings that are passed; scopes that the client loses are taken from its tokens at once.

        Raises InputError.

        *precondition* raises unless the client is what the caller takes it for, at the moment it is changed.
        """

        def with_settings(client: OAuthClient) -> OAuthClient:
            wanted = replace(
                client,
                name=client.name if name is UNCHANGED else validate_name(name),
                scopes=client.scopes if scopes is UNCHANGED else self._validated_scopes(scopes, actor),
                redirect_uris=client.redirect_uris
                if redirect_uris is UNCHANGED
                else validate_redirect_uris(redirect_uris),
                requires_pkce=client.requires_pkce if requires_pkce is UNCHANGED else requires_pkce,
                binds_tokens=client.binds_tokens if binds_tokens is UNCHANGED else binds_tokens,
            )
            _check_pkce(is_public=wanted.is_public, requires_pkce=wanted.requires_pkce)
            kinds = validate_grant_types(
                wanted.grant_types if grant_types is UNCHANGED else grant_types,
                is_public=wanted.is_public,
                redirect_uris=wanted.redirect_uris,
                is_self_registered=wanted.is_self_registered,
            )
            return replace(wanted, grant_types=kinds)

        # An attacker who can change these can have the codes of users sent to themselves.
        security_settings = (redirect_uris, grant_types, requires_pkce, binds_tokens)
        is_looser = any(setting is not UNCHANGED for setting in security_settings)
        action = ManagementAction.LOOSEN if is_looser else ManagementAction.CHANGE
        update = ManagedUpdate("client.update", action, actor, precondition)
        return await self._update(account_id, client_id, with_settings, update)

    async def rotate_secret(
        self,
        account_id: str | None,
        client_id: str,
        *,
        grace_seconds: float = DAY_SECONDS,
        actor: Actor = APPLICATION,
        precondition: Precondition[OAuthClient] | None = None,
        idempotency_name: bytes | None = None,
    ) -> tuple[OAuthClient, str] | None:
        """Give the client a new secret and return both; the current one works for *grace_seconds* more.

        Raises InputError, also for a public client, which has none. *precondition* is as in `update`,
        *idempotency_name* as in `create`.
        """
        if not 0 <= grace_seconds <= MAX_GRACE_SECONDS:
            raise InputError(f"A grace of {grace_seconds} seconds is not possible: use 0 to {MAX_GRACE_SECONDS}.")
        secret = self._mint_secret()

        def with_new_secret(client: OAuthClient) -> OAuthClient:
            if client.is_public:
                raise StateError(f"Client {client.id} is public: it has no secret.")
            now = self._clock()
            previous = (replace(client.secrets[0], expires_at=now + grace_seconds),) if grace_seconds else ()
            return replace(client, secrets=(_secret_record(secret, now), *previous))

        update = ManagedUpdate("client.rotate_secret", ManagementAction.ISSUE_SECRET, actor, precondition)
        client = await self._update(account_id, client_id, with_new_secret, update, idempotency_name)
        return None if client is None else (client, secret)

    async def delete(
        self,
        account_id: str | None,
        client_id: str,
        *,
        actor: Actor = APPLICATION,
        precondition: Precondition[OAuthClient] | None = None,
    ) -> OAuthClient | None:
        """Delete the client for good: its tokens are refused from their next request on."""

        def deleted(client: OAuthClient) -> OAuthClient:
            return replace(client, deleted_at=self._clock(), secrets=())

        update = ManagedUpdate("client.delete", ManagementAction.END, actor, precondition)
        return await self._update(account_id, client_id, deleted, update)

    async def _update(
        self,
        account_id: str | None,
        client_id: str,
        edit: Edit[OAuthClient],
        update: ManagedUpdate[OAuthClient],
        idempotency_name: bytes | None = None,
    ) -> OAuthClient | None:
        async def write(_before: OAuthClient, after: OAuthClient, change: Change) -> Sequence[ChangedRecord] | None:
            return await self._store.replace_client(after, change, idempotency_name)

        return await update_managed_record(
            f"OAuth client {client_id}",
            partial(self.get, account_id, client_id),
            edit,
            write,
            update,
            check=_check_change,
            state=client_state,
            clock=self._clock,
            invalidate=self._invalidate,
        )

    def _new(  # noqa: PLR0913 - what a client is made of, by keyword
        self,
        account_id: str,
        *,
        name: str,
        scopes: Collection[str],
        redirect_uris: Collection[str],
        grant_types: Collection[str],
        environment: str = "live",
        is_public: bool,
        requires_pkce: bool = True,
        binds_tokens: bool,
        is_self_registered: bool = False,
        actor: Actor,
    ) -> tuple[OAuthClient, str | None]:
        now, uris = self._clock(), validate_redirect_uris(redirect_uris)
        kinds = validate_grant_types(
            grant_types, is_public=is_public, redirect_uris=uris, is_self_registered=is_self_registered
        )
        secret = None if is_public else self._mint_secret()
        client = OAuthClient(
            id=mint_id("app", self._entropy(ENTROPY_BYTES)),
            account_id=account_id,
            name=validate_name(name),
            environment=environment,
            tier="",  # it is the account's, and the store fills it in
            redirect_uris=uris,
            scopes=self._validated_scopes(scopes, actor),
            grant_types=kinds,
            created_at=now,
            secrets=() if secret is None else (_secret_record(secret, now),),
            is_public=is_public,
            requires_pkce=requires_pkce,
            binds_tokens=binds_tokens,
            is_self_registered=is_self_registered,
        )
        return client, secret

    def _validated_scopes(self, names: Collection[str], actor: Actor) -> Scopes:
        return validate_client_scopes(names, self.grantable, for_operator=not isinstance(actor, Manager))

    def _mint_secret(self) -> str:
        return mint(OpaqueTokenKind.CLIENT_SECRET, self._entropy(ENTROPY_BYTES), self._brand.tag)


def _creation(client: OAuthClient, actor: Actor) -> Change:
    state = client_state(client)
    return Change(client.created_at, actor, "client.create", client.account_id, client.id, {}, state)


def _secret_record(secret: str, now: float) -> SecretRecord:
    return SecretRecord(secret_digest(secret.encode()), f"{secret.rpartition('_')[0]}_…{secret[-4:]}", created_at=now)


def _check_change(actor: Actor, before: OAuthClient, after: OAuthClient) -> None:
    check_scopes(actor, after.scopes, before.scopes.names)


def _check_pkce(*, is_public: bool, requires_pkce: bool) -> None:
    if is_public and not requires_pkce:
        # RFC 9700 §2.1.1: without PKCE, anybody who sees a code of a public client can redeem it.
        raise InputError("A public client needs PKCE: leave require_pkce on, or make it confidential.")
