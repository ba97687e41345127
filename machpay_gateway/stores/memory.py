"""A store that is gone with the process: for tests and for trying things out."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from secrets import token_bytes

from machpay_gateway.core.accounts.account import Account, key_tier
from machpay_gateway.core.errors import DuplicateRequest, InputError
from machpay_gateway.core.jose.signing import SigningKey
from machpay_gateway.core.keys.audit import EVERYTHING, AuditFilter, AuditHead, AuditRow, Change, head_after, next_row
from machpay_gateway.core.keys.idempotency import (
    IDEMPOTENCY_SECONDS,
    ResponseFactory,
    StoredResponse,
    completion_marker,
)
from machpay_gateway.core.keys.key import KeyRecord, StatusAt
from machpay_gateway.core.usage.counters import (
    ACCOUNT_PREFIX,
    BUCKETS,
    MINUTE,
    NO_SUBJECT,
    Bucket,
    Dimension,
    SecretUse,
    UsageBatch,
    UsageKey,
    UsageRow,
    merge_rows,
    sum_over,
    sums_by_start,
)


class MemoryStore:
    """KeyStore and AccountStore in two dicts. Nothing awaits, so every method is atomic within an event loop.

    It has no OAuthStore: SQLite in memory (`sqlite://`) is one, and as easily gone.
    """

    oauth: None = None

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._keys: dict[str, KeyRecord] = {}
        self._changed_at: dict[str, float] = {}
        self._rows: list[AuditRow] = []
        self._answers: dict[bytes, StoredResponse] = {}
        self._owners: dict[bytes, str] = {}  # digest of a secret to the id of its key
        self._usage: dict[Bucket, dict[UsageKey, UsageRow]] = {bucket: {} for bucket in BUCKETS.values()}
        self._uses: dict[bytes, SecretUse] = {}
        self._signing_keys: dict[str, SigningKey] = {}
        self._secret_key = token_bytes(32)

    async def open(self, *, upgrade: bool = False) -> None:
        """Do nothing: there is no database to make ready, and no schema to *upgrade*."""

    async def close(self) -> None:
        """Do nothing: what is stored stays until the object is gone."""

    def secret_key(self) -> bytes:
        """Return what is gone with this store."""
        return self._secret_key

    @property
    def serving_lock(self) -> None:
        """None: nobody else can have this store."""

    async def find_by_digest(self, digest: bytes) -> KeyRecord | None:
        """Return the key that has a secret with this SHA-256 *digest*, whatever its status."""
        owner = self._owners.get(digest)
        return None if owner is None else self._current(self._keys[owner])

    async def versions_since(self, since: float) -> Sequence[tuple[str, int]]:
        """Return (key id, version) of each key changed at or after *since*, seconds since the epoch."""
        changed = sorted((at, key_id) for key_id, at in self._changed_at.items() if at >= since)
        return [(key_id, self._keys[key_id].version) for _, key_id in changed]

    async def add_key(self, record: KeyRecord, change: Change, keep: ResponseFactory | None = None) -> None:
        """Store a new key with its secrets. Raises InputError when its account is unknown or its id is taken.

        With *keep* the answer is kept too. Raises DuplicateRequest when there is one of its name.
        """
        if record.account_id not in self._accounts or record.id in self._keys:
            raise _unfit(record)
        self._refuse_if_taken(record)
        if keep is not None:
            self._keep(keep(self._current(record)))
        self._write(record, record.created_at)
        self._log(change)

    async def key(self, account_id: str | None, key_id: str) -> KeyRecord | None:
        """Return a key of the account, or None. An operator (*account_id* None) sees every account's."""
        record = self._keys.get(key_id)
        if record is None or account_id not in (None, record.account_id):
            return None
        return self._current(record)

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
        """Return keys, newest first, at most *limit* of them, those that come after the key id *after*."""
        found = [record for record in self._keys.values() if account_id in (None, record.account_id)]
        if after is not None:
            mark = next((_age(record) for record in found if record.id == after), None)
            found = [record for record in found if mark is not None and _age(record) < mark]
        found = [record for record in found if environment in (None, record.environment)]
        if status is not None:
            found = [record for record in found if record.status(status.at) is status.status]
        if search is not None:
            found = [record for record in found if record.matches_search(search)]
        return [self._current(record) for record in sorted(found, key=_age, reverse=True)[:limit]]

    async def replace_key(self, record: KeyRecord, change: Change, keep: ResponseFactory | None = None) -> bool:
        """Write *record* and its secrets over version `record.version - 1`; False when that is not the stored one.

        With *keep* the answer is kept too. Raises DuplicateRequest when there is one of its name.
        """
        stored = self._keys.get(record.id)
        if stored is None or (stored.account_id, stored.version) != (record.account_id, record.version - 1):
            return False
        self._refuse_if_taken(record)
        if keep is not None:
            self._keep(keep(record))
        self._write(replace(record, environment=stored.environment, created_at=stored.created_at), change.at)
        self._log(change)
        return True

    async def stored_response(self, name: bytes, since: float) -> StoredResponse | None:
        """Return the answer that was kept under *name* at or after *since*, seconds since the epoch."""
        answer = self._answers.get(name)
        return answer if answer is not None and answer.at >= since else None

    async def add_account(self, account: Account, change: Change) -> bool:
        """Store a new account; False when its name is taken."""
        if account.id in self._accounts or any(known.name == account.name for known in self._accounts.values()):
            return False
        self._accounts[account.id] = account
        self._log(change)
        return True

    async def account(self, id_or_name: str) -> Account | None:
        """Return the account with that id or name."""
        if found := self._accounts.get(id_or_name):
            return found
        return next((account for account in self._accounts.values() if account.name == id_or_name), None)

    async def accounts(self) -> Sequence[Account]:
        """Return all accounts, oldest first."""
        return sorted(self._accounts.values(), key=lambda account: (account.created_at, account.id))

    async def set_tier(self, account: Account, tier: str, change: Change) -> Sequence[tuple[str, int]] | None:
        """Change the tier and raise the version of every key of *account*; return (key id, new version).

        None when the account is not there with the tier that it has here.
        """
        stored = self._accounts.get(account.id)
        if stored is None or stored.tier != account.tier:
            return None
        self._accounts[account.id] = replace(stored, tier=tier)
        raised = [
            replace(record, version=record.version + 1)
            for record in self._keys.values()
            if record.account_id == account.id
        ]
        for record in raised:
            self._write(record, change.at)
        self._log(change)
        return [(record.id, record.version) for record in raised]

    async def add_change(self, change: Change, once: bytes) -> bool:
        """Write down what happened and changed nothing; False when it was under the name *once* within a day."""
        try:
            self._keep(completion_marker(once, change.at))
        except DuplicateRequest:
            return False
        self._log(change)
        return True

    async def audit_head(self) -> AuditHead:
        """Return where the audit log ends."""
        return head_after(self._rows[-1]) if self._rows else AuditHead()

    async def audit_page(
        self,
        account_id: str | None,
        *,
        chosen: AuditFilter = EVERYTHING,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[AuditRow]:
        """Return rows of the account, or of all for an operator, newest first: the *chosen* before number *before*."""
        found = [row for row in reversed(self._rows) if account_id in (None, row.account_id) and chosen.matches(row)]
        return [row for row in found if before is None or row.sequence < before][:limit]

    async def audit_rows(self, after: int, *, limit: int = 1000) -> Sequence[AuditRow]:
        """Return everybody's rows, oldest first: those after number *after*."""
        return [row for row in self._rows if row.sequence > after][:limit]

    async def add_usage(self, batch: UsageBatch) -> None:
        """Add *batch* to the minutes, hours and days, and note the uses that are later than those known."""
        for bucket, kept in self._usage.items():
            for row in merge_rows(batch.all_rows, bucket):
                known = kept.get(row.key)
                kept[row.key] = row if known is None else known.plus(row)
        for use in batch.uses:
            self._uses[use.digest] = max(use, self._uses.get(use.digest, use), key=lambda each: each.at)

    async def drop_usage(self, now: float) -> None:
        """Drop what is older at *now*, seconds since the epoch, than its length of time is kept."""
        for bucket, kept in self._usage.items():
            since = bucket.start_of(now - bucket.retention_seconds)
            self._usage[bucket] = {key: row for key, row in kept.items() if key.start >= since}

    async def usage(
        self, subject: str, bucket: Bucket, start: int, end: int, *, over: Dimension | None = None
    ) -> Sequence[UsageRow]:
        """Return the rows of *subject* by *bucket*, those that start in [*start*, *end*), in order."""
        found = sorted(key for key in self._usage[bucket] if key.subject == subject and start <= key.start < end)
        rows = [self._usage[bucket][key] for key in found]
        return rows if over is None else sum_over(rows, over, start)

    async def busiest_minute(self, subject: str, start: int, end: int) -> tuple[int, int] | None:
        """Return the start of the minute in [*start*, *end*) with the most requests, the first such, and how many."""
        sums = sums_by_start(await self.usage(subject, MINUTE, start, end))
        return max(((begin, found.requests) for begin, found in sums), key=lambda each: each[1], default=None)

    async def busiest(self, since: int, limit: int) -> Sequence[UsageRow]:
        """Return the minutes from *since* on of the *limit* keys and grants with the most requests in them."""
        rows = [row for key, row in self._usage[MINUTE].items() if key.start >= since]
        of_ones = [
            row for row in rows if row.key.subject != NO_SUBJECT and not row.key.subject.startswith(ACCOUNT_PREFIX)
        ]
        requests: Counter[str] = Counter()
        for row in of_ones:
            requests[row.key.subject] += row.count
        top = sorted(requests, key=lambda subject: (-requests[subject], subject))[:limit]
        return sorted(
            (row for row in of_ones if row.key.subject in top), key=lambda row: (top.index(row.key.subject), row.key)
        )

    async def signing_keys(self) -> Sequence[SigningKey]:
        """Return the keys that we sign by, and did lately."""
        return list(self._signing_keys.values())

    async def add_signing_key(self, key: SigningKey, change: Change, *, instead_of: Collection[str] | None) -> bool:
        """Store *key* and drop those named by *instead_of*; when that is None, only if there is none: False if not."""
        if instead_of is None and self._signing_keys:
            return False
        kept = {kid: kept for kid, kept in self._signing_keys.items() if kid not in (instead_of or ())}
        self._signing_keys = kept | {key.kid: key}
        self._log(change)
        return True

    def _log(self, change: Change) -> None:
        self._rows.append(next_row(head_after(self._rows[-1]) if self._rows else AuditHead(), change))

    def _refuse_if_taken(self, record: KeyRecord) -> None:
        if any(self._owners.get(secret.digest, record.id) != record.id for secret in record.secrets):
            raise _unfit(record)

    def _keep(self, answer: StoredResponse) -> None:
        since = answer.at - IDEMPOTENCY_SECONDS
        self._answers = {name: kept for name, kept in self._answers.items() if kept.at >= since}
        if answer.name in self._answers:
            raise DuplicateRequest
        self._answers[answer.name] = answer

    def _write(self, record: KeyRecord, changed_at: float) -> None:
        stored = self._keys.get(record.id)
        for secret in stored.secrets if stored else ():
            del self._owners[secret.digest]
        self._owners.update(dict.fromkeys((secret.digest for secret in record.secrets), record.id))
        self._keys[record.id] = record
        self._changed_at[record.id] = changed_at

    def _current(self, record: KeyRecord) -> KeyRecord:
        tier = key_tier(record.environment, self._accounts[record.account_id].tier)
        secrets = tuple(replace(secret, last_used_at=self._last_use(secret.digest)) for secret in record.secrets)
        last_use = max((use.at for use in self._uses.values() if use.key_id == record.id), default=None)
        return replace(record, tier=tier, secrets=secrets, last_used_at=last_use)

    def _last_use(self, digest: bytes) -> float | None:
        use = self._uses.get(digest)
        return None if use is None else use.at


def _age(record: KeyRecord) -> tuple[float, str]:
    return record.created_at, record.id


def _unfit(record: KeyRecord) -> InputError:
    return InputError(
        f"Key {record.id} does not fit: account {record.account_id} is unknown, or the id or a secret is taken"
    )
