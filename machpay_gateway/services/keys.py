"""What can be done with keys: the use cases that the admin API, the Console and the command line share.

It must not learn where keys are kept: callers hand in the account they look into, None for all, and as *actor* who
acts: a `Manager` with its authority, or just a name, for what the program does itself. A key that is not there for
them is None; what they may not do is NotPermitted; what cannot be carried out as asked is an InputError.
"""

import hmac
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from machpay_gateway.core.accounts.management import ManagementAction, authorize, check_creation, check_key_change
from machpay_gateway.core.errors import InputError, StateError, StoreUnavailable
from machpay_gateway.core.keys.audit import APPLICATION, Actor, Change, difference
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
from machpay_gateway.core.keys.ports import KeyStore
from machpay_gateway.core.keys.validation import (
    validate_expiry,
    validate_metadata,
    validate_name,
    validate_networks,
    validate_scopes,
)
from machpay_gateway.core.text import format_moment, quoted
from machpay_gateway.core.unchanged import UNCHANGED, Unchanged

__all__ = ["UNCHANGED", "Keys", "Permit", "SecretInspection", "SecretResponseFactory", "Unchanged"]

_ATTEMPTS = 10

# Makes the answer that is kept, of a key and its new secret.
SecretResponseFactory = Callable[[KeyRecord, str], StoredResponse]
# Raises unless the key is, when it is changed, what whoever asks takes it for.
Permit = Callable[[KeyRecord], None]


@dataclass(frozen=True, slots=True)
class SecretInspection:
    """What a secret is: *environment* None when its shape or checksum is wrong, *key* None when no key here has it."""

    environment: str | None
    key: KeyRecord | None = None
    position: Literal["current", "previous"] | None = None


class Keys:
    """The use cases on keys. *announce* is told (key id, version) after each change was stored.

    *scopes* are the names that keys may hold; *entropy* returns as many bytes of the system's randomness as it is asked
    for; *clock* is in seconds since the epoch.
    """

    def __init__(
        self,
        store: KeyStore,
        *,
        scopes: Iterable[str],
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        announce: Callable[[str, int], Awaitable[None]],
    ) -> None:
        self._store = store
        self._known_scopes = frozenset(scopes)
        self._clock = clock
        self._entropy = entropy
        self._announce = announce

    async def create(  # noqa: PLR0913 - what a key is made of, by keyword
        self,
        account_id: str,
        *,
        name: str,
        scopes: Collection[str],
        environment: str,
        allowed_ips: Collection[str] = (),
        expires_at: float | None = None,
        metadata: Mapping[str, str] | None = None,
        actor: Actor = APPLICATION,
        keep: SecretResponseFactory | None = None,
    ) -> tuple[KeyRecord, str]:
        """Create a key and return it with its secret, which is never to be had again. Raises InputError.

        *keep* makes the answer that is kept with the key: raises AnsweredMeanwhile when there is one of its name.
        """
        now = self._clock()
        if environment not in ENVIRONMENTS:
            raise InputError(f"Environment {quoted(environment)} does not exist: use live or test.")
        secret = mint_secret(environment, self._entropy(ENTROPY_BYTES))
        record = KeyRecord(
            id=mint_id("key", self._entropy(ENTROPY_BYTES)),
            account_id=account_id,
            name=validate_name(name),
            environment=environment,
            tier="",  # the account's, which only the store knows
            scopes=validate_scopes(scopes, self._known_scopes),
            allowed_ips=validate_networks(allowed_ips),
            created_at=now,
            secrets=(_kept(secret, now),),
            expires_at=validate_expiry(expires_at, now),
            metadata=validate_metadata(metadata or {}),
        )
        check_creation(actor, record)
        change = Change(now, actor, "key.create", account_id, record.id, {}, key_state(record))
        await self._store.add_key(record, change, keep and _made_by(keep, lambda _: secret))
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
        """Return keys, newest first, at most *limit* of them, those that come after the key id *after*.

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

    async def update(  # noqa: PLR0913 - as above
        self,
        account_id: str | None,
        key_id: str,
        *,
        name: str | Unchanged = UNCHANGED,
        scopes: Collection[str] | Unchanged = UNCHANGED,
        allowed_ips: Collection[str] | Unchanged = UNCHANGED,
        expires_at: float | Unchanged | None = UNCHANGED,
        metadata: Mapping[str, str] | Unchanged = UNCHANGED,
        actor: Actor = APPLICATION,
        permit: Permit | None = None,
    ) -> KeyRecord | None:
        """Change the settings that are given; *expires_at* None means never. Raises InputError, also when revoked.

        *permit* is asked of the very record that is changed, whatever else happens to it meanwhile.
        """

        def with_settings(record: KeyRecord) -> KeyRecord:
            if record.revoked_at is not None:
                raise StateError(f"Key {record.id} is revoked, which is final: create a new key.")
            return replace(
                record,
                name=record.name if name is UNCHANGED else validate_name(name),
                scopes=record.scopes if scopes is UNCHANGED else validate_scopes(scopes, self._known_scopes),
                allowed_ips=record.allowed_ips if allowed_ips is UNCHANGED else validate_networks(allowed_ips),
                expires_at=record.expires_at if expires_at is UNCHANGED else validate_expiry(expires_at, self._clock()),
                metadata=record.metadata if metadata is UNCHANGED else validate_metadata(metadata),
            )

        return await self._change(
            account_id, key_id, "key.update", ManagementAction.CHANGE, with_settings, actor=actor, permit=permit
        )

    async def rotate(
        self,
        account_id: str | None,
        key_id: str,
        *,
        grace_seconds: float = DAY_SECONDS,
        actor: Actor = APPLICATION,
        permit: Permit | None = None,
        keep: SecretResponseFactory | None = None,
    ) -> tuple[KeyRecord, str] | None:
        """Give the key a new secret and return both. The current one works for *grace_seconds* more, an older one ends.

        A grace never outlasts the key, and 0 ends the current secret at once. Raises InputError, also for a key that
        is revoked or expired. *permit* is as in `update`, *keep* as in `create`.
        """
        if not 0 <= grace_seconds <= MAX_GRACE_SECONDS:
            raise InputError(f"A grace of {grace_seconds} seconds is not possible: use 0 to {MAX_GRACE_SECONDS}.")
        entropy = self._entropy(ENTROPY_BYTES)

        def with_new_secret(record: KeyRecord) -> KeyRecord:
            now = self._clock()
            _refuse_unless_active(record, now)
            grace_ends = min(now + grace_seconds, record.expires_at or float("inf"))
            previous = (replace(record.secrets[0], expires_at=grace_ends),) if grace_seconds else ()
            return replace(record, secrets=(_kept(secret_of(record), now), *previous), last_rotated_at=now)

        def secret_of(record: KeyRecord) -> str:
            return mint_secret(record.environment, entropy)

        made = keep and _made_by(keep, secret_of)
        rotated = await self._change(
            account_id,
            key_id,
            "key.rotate",
            ManagementAction.ISSUE_SECRET,
            with_new_secret,
            actor=actor,
            permit=permit,
            keep=made,
        )
        return None if rotated is None else (rotated, secret_of(rotated))

    async def end_grace(
        self, account_id: str | None, key_id: str, *, actor: Actor = APPLICATION, permit: Permit | None = None
    ) -> KeyRecord | None:
        """End the previous secret at once; a key without one is returned as it is."""

        def without_previous(record: KeyRecord) -> KeyRecord:
            return replace(record, secrets=record.secrets[:1])

        return await self._change(
            account_id, key_id, "key.end_grace", ManagementAction.END, without_previous, actor=actor, permit=permit
        )

    async def revoke(
        self, account_id: str | None, key_id: str, *, actor: Actor = APPLICATION, permit: Permit | None = None
    ) -> KeyRecord | None:
        """End the key for good; a revoked one is returned as it is."""

        def revoked(record: KeyRecord) -> KeyRecord:
            return record if record.revoked_at is not None else replace(record, revoked_at=self._clock())

        return await self._change(
            account_id, key_id, "key.revoke", ManagementAction.END, revoked, actor=actor, permit=permit
        )

    async def inspect(self, secret: str) -> SecretInspection:
        """Return what *secret* is. For operators: it looks into every account."""
        presented = secret.encode(errors="replace")
        environment = secret_environment(presented)
        if environment is None:
            return SecretInspection(None)
        digest = secret_digest(presented)
        record = await self._store.find_by_digest(digest)
        if record is None:
            return SecretInspection(environment)
        is_current = hmac.compare_digest(record.secrets[0].digest, digest)
        return SecretInspection(environment, record, "current" if is_current else "previous")

    async def _change(
        self,
        account_id: str | None,
        key_id: str,
        name: str,
        action: ManagementAction,
        changed: Callable[[KeyRecord], KeyRecord],
        *,
        actor: Actor,
        permit: Permit | None,
        keep: ResponseFactory | None = None,
    ) -> KeyRecord | None:
        for _ in range(_ATTEMPTS):
            # Asked of the record as it is now: its scopes may have grown since the caller looked.
            record = authorize(actor, action, await self.get(account_id, key_id))
            if record is None:
                return None
            if permit is not None:
                permit(record)
            wanted = changed(record)
            if wanted == record:
                return record
            check_key_change(actor, record, wanted)
            wanted = replace(wanted, version=record.version + 1)
            what = difference(key_state(record), key_state(wanted))
            change = Change(self._clock(), actor, name, record.account_id, record.id, *what)
            if await self._store.replace_key(wanted, change, keep):
                await self._announce(wanted.id, wanted.version)
                return wanted
        # Every attempt found that somebody else had changed the key in between: no more of a surprise than a busy disk.
        raise StoreUnavailable(f"key change: {key_id} changed {_ATTEMPTS} times meanwhile")


def _made_by(keep: SecretResponseFactory, secret_of: Callable[[KeyRecord], str]) -> ResponseFactory:
    return lambda record: keep(record, secret_of(record))


def _kept(secret: str, now: float) -> SecretRecord:
    return SecretRecord(secret_digest(secret.encode()), mask_secret(secret), created_at=now)


def _refuse_unless_active(record: KeyRecord, now: float) -> None:
    match record.status(now):
        case KeyStatus.REVOKED:
            raise StateError(f"Key {record.id} is revoked, which is final: create a new key.")
        case KeyStatus.EXPIRED:
            ended = format_moment(record.expires_at or 0.0)
            raise StateError(f"Key {record.id} expired at {ended}: give it a later expires_at first.")
