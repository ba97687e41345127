"""The use cases on API keys, shared by the admin API, the Console and the command line.

Callers pass the account to look in (None for all accounts) and the *actor*: a `Manager` with its authority, or a plain
`Actor` for what the program does by itself. A key that the actor cannot see is None. An action that the actor may not
do raises NotPermitted, and an invalid request raises InputError. Nothing here depends on how keys are stored.
"""

import hmac
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from machpay_gateway.core.accounts.management import ManagementAction, Manager, check_creation, check_key_change
from machpay_gateway.core.brand import MACHPAY, Brand
from machpay_gateway.core.errors import InputError, StateError
from machpay_gateway.core.keys.audit import APPLICATION, Actor, Change
from machpay_gateway.core.keys.cap import KeyCap
from machpay_gateway.core.keys.idempotency import ResponseFactory, StoredResponse
from machpay_gateway.core.keys.key import (
    DAY_SECONDS,
    ENTROPY_BYTES,
    ENVIRONMENTS,
    MAX_GRACE_SECONDS,
    KeyRecord,
    KeyStatus,
    SecretRecord,
    StatusAt,
    is_id,
    key_state,
    mask_secret,
    mint_id,
    mint_secret,
    secret_digest,
    secret_environment,
)
from machpay_gateway.core.keys.ports import ChangedRecord, KeyStore
from machpay_gateway.core.keys.validation import (
    validate_expiry,
    validate_metadata,
    validate_name,
    validate_networks,
    validate_owner,
    validate_scopes,
    validate_tier,
)
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.core.scopes import DefinedScopes, Scopes
from machpay_gateway.core.text import format_moment, quote_value
from machpay_gateway.core.unchanged import UNCHANGED, Unchanged
from machpay_gateway.services.optimistic_locking import (
    Edit,
    Invalidate,
    ManagedUpdate,
    Precondition,
    update_managed_record,
)

__all__ = ["UNCHANGED", "Keys", "SecretInspection", "SecretResponseFactory", "Unchanged"]

# Makes the response that is stored for idempotent retries from a key and its new secret. Does no I/O.
SecretResponseFactory = Callable[[KeyRecord, str], StoredResponse]


@dataclass(frozen=True, slots=True)
class SecretInspection:
    """What a secret is. *environment* is None for a wrong format or checksum, *key* is None when no key has it."""

    environment: str | None
    key: KeyRecord | None = None
    position: Literal["current", "previous"] | None = None


class Keys:
    """The use cases on keys. *invalidate* is called with the key after each change is stored.

    *scopes* are the names that keys may hold, *tiers* the configured ones; *entropy* returns that many random bytes;
    *clock* returns seconds since the epoch.
    """

    def __init__(
        self,
        store: KeyStore,
        *,
        scopes: Iterable[str],
        tiers: Mapping[str, Tier],
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        invalidate: Invalidate,
        brand: Brand = MACHPAY,
    ) -> None:
        self._store = store
        self._known_scopes = DefinedScopes.of(scopes)
        self._tiers = tiers
        has_cap = any(tier.max_keys is not None for tier in tiers.values())
        self._cap = KeyCap(tiers) if has_cap else None
        self._clock = clock
        self._entropy = entropy
        self._brand = brand
        self._invalidate = invalidate

    async def create(  # noqa: PLR0913 - what a key is made of, by keyword
        self,
        account_id: str,
        *,
        name: str,
        owner: str | None = None,
        scopes: Collection[str],
        environment: str,
        allowed_ips: Collection[str] = (),
        expires_at: float | None = None,
        metadata: Mapping[str, str] | None = None,
        actor: Actor = APPLICATION,
        response_factory: SecretResponseFactory | None = None,
    ) -> tuple[KeyRecord, str]:
        """Create a key and return it with its secret, which cannot be retrieved later.

        Raises InputError, and KeyLimitReached when the account has as many working keys as its tier allows.

        *response_factory* makes the response that is stored with the key, for a request that is sent again. Raises
        DuplicateRequest when a response of its name is stored already.
        """
        now = self._clock()
        if environment not in ENVIRONMENTS:
            raise InputError(f"Environment {quote_value(environment)} does not exist: use live or test.")
        secret = mint_secret(environment, self._entropy(ENTROPY_BYTES), self._brand)
        record = KeyRecord(
            id=mint_id("key", self._entropy(ENTROPY_BYTES)),
            account_id=account_id,
            name=validate_name(name),
            owner=validate_owner(owner),
            environment=environment,
            tier="",  # it is the account's, and the store fills it in
            scopes=self._validated_scopes(scopes, actor),
            allowed_ips=validate_networks(allowed_ips),
            created_at=now,
            secrets=(_secret_record(secret, now),),
            expires_at=validate_expiry(expires_at, now),
            metadata=validate_metadata(metadata or {}),
        )
        check_creation(actor, record)
        change = Change(now, actor, "key.create", account_id, record.id, {}, key_state(record))
        store_response = response_factory and _with_secret(response_factory, lambda _: secret)
        add_key = self._store.add_key if self._cap is None else partial(self._store.add_key, cap=self._cap)
        await add_key(record, change, store_response)
        return await self._store.key(account_id, record.id) or record, secret

    async def list(
        self,
        account_id: str | None,
        *,
        environment: str | None = None,
        status: KeyStatus | None = None,
        search: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[KeyRecord]:
        """Return keys, newest first, at most *limit* of them, those after the key id *after*.

        *search* is a part of a name, an id, or how a secret ends.
        """
        if (after is not None and not is_id(after)) or (search is not None and not search.isprintable()):
            return []
        wanted = None if status is None else StatusAt(status, self._clock())
        return await self._store.keys(
            account_id, environment=environment, status=wanted, search=search, after=after, limit=limit
        )

    async def get(self, account_id: str | None, key_id: str) -> KeyRecord | None:
        """Return the key, whatever its status."""
        return await self._store.key(account_id, key_id) if is_id(key_id) else None

    async def update(  # noqa: PLR0913 - what a key is made of, by keyword
        self,
        account_id: str | None,
        key_id: str,
        *,
        name: str | Unchanged = UNCHANGED,
        owner: str | Unchanged | None = UNCHANGED,
        scopes: Collection[str] | Unchanged = UNCHANGED,
        allowed_ips: Collection[str] | Unchanged = UNCHANGED,
        expires_at: float | Unchanged | None = UNCHANGED,
        metadata: Mapping[str, str] | Unchanged = UNCHANGED,
        own_tier: str | Unchanged | None = UNCHANGED,
        actor: Actor = APPLICATION,
        precondition: Precondition[KeyRecord] | None = None,
    ) -> KeyRecord | None:
        """Change the settings that are passed; *expires_at* None means never, *owner* None nobody.

        *own_tier* is for operators only; None means the account's. Raises InputError, also when the key is revoked,
        and KeyLimitReached as `create` does when an expired key would work again.

        *precondition* raises unless the record is what the caller takes it for, at the moment it is changed.
        """

        def with_settings(record: KeyRecord) -> KeyRecord:
            if record.revoked_at is not None:
                raise StateError(f"Key {record.id} is revoked, which is final: create a new key.")
            return replace(
                record if own_tier is UNCHANGED else record.with_own_tier(self._validated_tier(own_tier)),
                name=record.name if name is UNCHANGED else validate_name(name),
                owner=record.owner if owner is UNCHANGED else validate_owner(owner),
                scopes=record.scopes if scopes is UNCHANGED else self._validated_scopes(scopes, actor),
                allowed_ips=record.allowed_ips if allowed_ips is UNCHANGED else validate_networks(allowed_ips),
                expires_at=record.expires_at if expires_at is UNCHANGED else validate_expiry(expires_at, self._clock()),
                metadata=record.metadata if metadata is UNCHANGED else validate_metadata(metadata),
            )

        update = ManagedUpdate("key.update", ManagementAction.CHANGE, actor, precondition)
        return await self._update(account_id, key_id, with_settings, update)

    async def rotate(
        self,
        account_id: str | None,
        key_id: str,
        *,
        grace_seconds: float = DAY_SECONDS,
        actor: Actor = APPLICATION,
        precondition: Precondition[KeyRecord] | None = None,
        response_factory: SecretResponseFactory | None = None,
    ) -> tuple[KeyRecord, str] | None:
        """Give the key a new secret and return both. The current one works for *grace_seconds* more.

        An older one ends at once, and with 0 so does the current one. No secret outlives its key.

        Raises InputError, also for a key that
        is revoked or expired. *precondition* is as in `update`, *response_factory* as in `create`.
        """
        if not 0 <= grace_seconds <= MAX_GRACE_SECONDS:
            raise InputError(f"A grace of {grace_seconds} seconds is not possible: use 0 to {MAX_GRACE_SECONDS}.")
        entropy = self._entropy(ENTROPY_BYTES)

        def with_new_secret(record: KeyRecord) -> KeyRecord:
            now = self._clock()
            _refuse_unless_active(record, now)
            grace_ends = min(now + grace_seconds, record.expires_at or float("inf"))
            previous = (replace(record.secrets[0], expires_at=grace_ends),) if grace_seconds else ()
            return replace(record, secrets=(_secret_record(secret_of(record), now), *previous), last_rotated_at=now)

        def secret_of(record: KeyRecord) -> str:
            return mint_secret(record.environment, entropy, self._brand)

        update = ManagedUpdate("key.rotate", ManagementAction.ISSUE_SECRET, actor, precondition)
        store_response = response_factory and _with_secret(response_factory, secret_of)
        rotated = await self._update(account_id, key_id, with_new_secret, update, store_response)
        return None if rotated is None else (rotated, secret_of(rotated))

    async def end_grace(
        self,
        account_id: str | None,
        key_id: str,
        *,
        actor: Actor = APPLICATION,
        precondition: Precondition[KeyRecord] | None = None,
    ) -> KeyRecord | None:
        """End the previous secret at once; a key without one is returned as it is."""

        def without_previous(record: KeyRecord) -> KeyRecord:
            return replace(record, secrets=record.secrets[:1])

        update = ManagedUpdate("key.end_grace", ManagementAction.END, actor, precondition)
        return await self._update(account_id, key_id, without_previous, update)

    async def revoke(
        self,
        account_id: str | None,
        key_id: str,
        *,
        actor: Actor = APPLICATION,
        precondition: Precondition[KeyRecord] | None = None,
    ) -> KeyRecord | None:
        """Revoke the key for good; a revoked one is returned as it is."""

        def revoked(record: KeyRecord) -> KeyRecord:
            return record if record.revoked_at is not None else replace(record, revoked_at=self._clock())

        update = ManagedUpdate("key.revoke", ManagementAction.END, actor, precondition)
        return await self._update(account_id, key_id, revoked, update)

    async def inspect(self, secret: str) -> SecretInspection:
        """Return what *secret* is. For operators only: it looks into every account."""
        presented = secret.encode(errors="replace")
        environment = secret_environment(presented, self._brand)
        if environment is None:
            return SecretInspection(None)
        digest = secret_digest(presented)
        record = await self._store.find_by_digest(digest)
        if record is None:
            return SecretInspection(environment)
        is_current = hmac.compare_digest(record.secrets[0].digest, digest)
        return SecretInspection(environment, record, "current" if is_current else "previous")

    def _validated_scopes(self, names: Collection[str], actor: Actor) -> Scopes:
        return validate_scopes(names, self._known_scopes, for_operator=not isinstance(actor, Manager))

    def _validated_tier(self, tier: str | None) -> str | None:
        return None if tier is None else validate_tier(tier, self._tiers)

    async def _update(
        self,
        account_id: str | None,
        key_id: str,
        edit: Edit[KeyRecord],
        update: ManagedUpdate[KeyRecord],
        response_factory: ResponseFactory | None = None,
    ) -> KeyRecord | None:
        async def write(before: KeyRecord, after: KeyRecord, change: Change) -> Sequence[ChangedRecord] | None:
            replace_key = self._store.replace_key
            # An account that has more keys than its tier allows by now keeps them, and may change them.
            works_again = (before.status(change.at), after.status(change.at)) == (KeyStatus.EXPIRED, KeyStatus.ACTIVE)
            if works_again and self._cap is not None:
                replace_key = partial(replace_key, cap=self._cap)
            is_written = await replace_key(after, change, response_factory)
            return [ChangedRecord(after.id, after.version, after.account_id)] if is_written else None

        return await update_managed_record(
            f"key {key_id}",
            partial(self.get, account_id, key_id),
            edit,
            write,
            update,
            check=check_key_change,
            state=key_state,
            clock=self._clock,
            invalidate=self._invalidate,
        )


def _with_secret(factory: SecretResponseFactory, secret_of: Callable[[KeyRecord], str]) -> ResponseFactory:
    return lambda record: factory(record, secret_of(record))


def _secret_record(secret: str, now: float) -> SecretRecord:
    return SecretRecord(secret_digest(secret.encode()), mask_secret(secret), created_at=now)


def _refuse_unless_active(record: KeyRecord, now: float) -> None:
    match record.status(now):
        case KeyStatus.REVOKED:
            raise StateError(f"Key {record.id} is revoked, which is final: create a new key.")
        case KeyStatus.EXPIRED:
            ended = format_moment(record.expires_at or 0.0)
            raise StateError(f"Key {record.id} expired at {ended}: give it a later expires_at first.")
