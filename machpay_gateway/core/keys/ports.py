"""What the store of keys and of the audit log provides."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from machpay_gateway.core.keys.audit import EVERYTHING, AuditFilter, AuditHead, AuditRow, Change
from machpay_gateway.core.keys.cap import KeyCap
from machpay_gateway.core.keys.idempotency import ResponseFactory, StoredResponse
from machpay_gateway.core.keys.key import KeyRecord, StatusAt


class ChangedRecord(NamedTuple):
    """A key, grant or account that a change affects: its *id*, its new *version*, and its account."""

    id: str
    version: int
    account_id: str


class ChangePage(NamedTuple):
    """Changes that follow a place in the audit log: the *ids* of what they concern, and the place *after* them.

    That is keys, grants, accounts, users and OAuth clients; a change of an account's tier concerns the account and its
    clients. Without *is_continuous* the log has another history than the one in which the place was, as after a
    restored backup, or goes on too far: then anything may have changed. *is_last*: there are no more for now.
    """

    after: AuditHead
    ids: Sequence[str] = ()
    is_continuous: bool = True
    is_last: bool = True


class KeyLookup(Protocol):
    """What a decision needs of the key store. Raises StoreUnavailable."""

    async def find_by_digests(self, digests: Sequence[bytes]) -> Sequence[KeyRecord]:
        """Return the keys that have a secret with one of these SHA-256 *digests*, whatever their status."""

    async def find_by_ids(self, key_ids: Sequence[str]) -> Sequence[KeyRecord]:
        """Return the keys with these ids."""


class KeyStore(KeyLookup, Protocol):
    """The source of truth for keys. Raises StoreUnavailable; every key is looked up within its account.

    With *make_response*, a change also stores the response that is made of the changed key, in the same transaction. It
    raises DuplicateRequest and changes nothing when a response with the same name is stored. Responses older than
    `IDEMPOTENCY_SECONDS` are deleted.
    """

    async def find_by_digest(self, digest: bytes) -> KeyRecord | None:
        """Return the key that has a secret with this SHA-256 *digest*, whatever its status."""

    async def key(self, account_id: str | None, key_id: str) -> KeyRecord | None:
        """Return a key of the account, or None. An operator (*account_id* None) sees every account's keys."""

    async def add_key(
        self,
        record: KeyRecord,
        change: Change,
        make_response: ResponseFactory | None = None,
        *,
        cap: KeyCap | None = None,
    ) -> None:
        """Store a new key with its secrets. Of its tiers, only its own is stored: the other is the account's.

        Raises InputError when the account is unknown, or the id or a secret is taken. Raises KeyLimitReached when the
        account has as many working keys at the time of the change as *cap* allows.
        """

    async def keys(
        self,
        account_id: str | None,
        *,
        environment: str | None = None,
        status: StatusAt | None = None,
        search: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[KeyRecord]:
        """Return at most *limit* keys, newest first, starting after the key with the id *after*.

        *search* selects those for which `KeyRecord.matches_search` is true.
        """

    async def replace_key(
        self,
        record: KeyRecord,
        change: Change,
        make_response: ResponseFactory | None = None,
        *,
        cap: KeyCap | None = None,
    ) -> bool:
        """Write *record* and its secrets over version `record.version - 1`; False when that is not the stored one.

        Raises InputError when one of the secrets is another key's, and KeyLimitReached as `add_key` does.
        """

    async def stored_response(self, name: bytes, since: float) -> StoredResponse | None:
        """Return the response that was stored under *name* at or after *since*, seconds since the epoch."""


class AuditLog(Protocol):
    """The log of changes. Each mutation of the other ports appends its *change* in the same transaction.

    Raises StoreUnavailable.
    """

    async def add_change(self, change: Change, once: bytes) -> bool:
        """Append an event that changed no record; False when one was appended under the name *once* within a day."""

    async def audit_head(self) -> AuditHead:
        """Return the sequence number and digest of the last row."""

    async def changes_after(self, place: AuditHead | None) -> ChangePage:
        """Return what has changed after *place*, the end of an earlier page; without one, only where the log ends."""

    async def audit_page(
        self,
        account_id: str | None,
        *,
        filters: AuditFilter = EVERYTHING,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[AuditRow]:
        """Return at most *limit* rows, newest first, that *filters* matches and whose number is less than *before*.

        They are the account's, or everyone's for an operator (*account_id* None).
        """

    async def audit_rows(self, after: int, *, limit: int = 1000) -> Sequence[AuditRow]:
        """Return at most *limit* rows of every account, oldest first, starting after the number *after*."""
