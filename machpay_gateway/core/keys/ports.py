"""What is asked of the store of keys and of the audit log."""

from collections.abc import Sequence
from typing import Protocol

from machpay_gateway.core.keys.audit import EVERYTHING, AuditFilter, AuditHead, AuditRow, Change
from machpay_gateway.core.keys.idempotency import ResponseFactory, StoredResponse
from machpay_gateway.core.keys.key import KeyRecord, StatusAt


class KeyLookup(Protocol):
    """What a decision asks of the key store. Raises StoreUnavailable."""

    async def find_by_digest(self, digest: bytes) -> KeyRecord | None:
        """Return the key that has a secret with this SHA-256 *digest*, whatever its status."""

    async def key(self, account_id: str | None, key_id: str) -> KeyRecord | None:
        """Return a key of the account, or None. An operator (*account_id* None) sees every account's."""

    async def versions_since(self, since: float) -> Sequence[tuple[str, int]]:
        """Return (key id, version) of each key changed at or after *since*, seconds since the epoch."""


class KeyStore(KeyLookup, Protocol):
    """The source of truth for keys. Raises StoreUnavailable; looks every key up within its account.

    With *keep*, a change also stores the answer made of the key as it is then, or raises DuplicateRequest and changes
    nothing when there is one of that name. Answers older than `REPLAY_SECONDS` are dropped.
    """

    async def add_key(self, record: KeyRecord, change: Change, keep: ResponseFactory | None = None) -> None:
        """Store a new key with its secrets. The tier in the record is the account's and is not stored."""

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
        """Return keys, newest first, at most *limit* of them, those that come after the key id *after*.

        *search* picks those that match it, as `KeyRecord.matches_search` says.
        """

    async def replace_key(self, record: KeyRecord, change: Change, keep: ResponseFactory | None = None) -> bool:
        """Write *record* and its secrets over version `record.version - 1`; False when that is not the stored one."""

    async def stored_response(self, name: bytes, since: float) -> StoredResponse | None:
        """Return the answer that was kept under *name* at or after *since*, seconds since the epoch."""


class AuditLog(Protocol):
    """What was changed. Each mutation of the other ports writes its *change* here, in the same transaction.

    Raises StoreUnavailable.
    """

    async def add_change(self, change: Change, once: bytes) -> bool:
        """Write down what happened and changed nothing; False when it was under the name *once* within a day."""

    async def audit_head(self) -> AuditHead:
        """Return where the log ends."""

    async def audit_page(
        self,
        account_id: str | None,
        *,
        chosen: AuditFilter = EVERYTHING,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[AuditRow]:
        """Return rows of the account, or of all for an operator, newest first: the *chosen* before number *before*."""

    async def audit_rows(self, after: int, *, limit: int = 1000) -> Sequence[AuditRow]:
        """Return everybody's rows, oldest first: those after number *after*."""


# Of a grant that changed: its id, and the version that it has now.
RecordVersion = tuple[str, int]
