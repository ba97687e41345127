"""The store on a SQL database: which statements make one use, and in which transaction."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes
from tempfile import gettempdir

from sqlalchemy.exc import IntegrityError

from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.errors import ConfigurationError, DuplicateRequest, InputError
from machpay_gateway.core.jose.signing import SigningKey
from machpay_gateway.core.keys.audit import EVERYTHING, AuditFilter, AuditHead, AuditRow, Change
from machpay_gateway.core.keys.idempotency import ResponseFactory, StoredResponse, completion_marker
from machpay_gateway.core.keys.key import KeyRecord, StatusAt
from machpay_gateway.core.usage.counters import Bucket, Dimension, UsageBatch, UsageRow
from machpay_gateway.stores.schema import HEAD
from machpay_gateway.stores.sql import accounts, audit, grants, idempotency, keys, signing, usage
from machpay_gateway.stores.sql.engine import Database
from machpay_gateway.stores.sql.oauth import SqlOAuth
from machpay_gateway.stores.sql.revision import database_revision, lock_schema, way_out
from machpay_gateway.stores.sql.secret import secret_beside


class SqlStore:
    """KeyStore and AccountStore on the database at *url*: `sqlite:///…`, `sqlite://` (in memory) or `postgresql://…`.

    It may be used from several event loops. Raises ConfigurationError for a URL that cannot be meant.
    *busy_timeout_seconds* is how long SQLite waits for another process that is writing.
    """

    def __init__(self, url: str, *, busy_timeout_seconds: float = 5.0) -> None:
        self._database = Database(url, busy_timeout_seconds=busy_timeout_seconds)
        self.oauth = SqlOAuth(self._database)
        self._memory_secret = token_bytes(32)

    @property
    def serving_lock(self) -> Path | None:
        """The file that a process locks to be the only one that serves from this database; None for one in memory.

        A server's stands for this host alone: of other hosts nothing is known here.
        """
        url = self._database.url
        if not self._database.is_sqlite:
            name = sha256(url.render_as_string(hide_password=True).encode()).hexdigest()[:16]
            return Path(gettempdir()) / f"machpay-{name}.serving"
        return None if "vfs" in url.query else Path(f"{url.database}.serving")

    def secret_key(self) -> bytes | None:
        """Return what only those who serve from this database can know, None when others than this host may.

        For a file it is in one beside it, made at the first call; in memory it is gone with it. Raises
        ConfigurationError.
        """
        if not self._database.is_sqlite:
            return None
        url = self._database.url
        return self._memory_secret if "vfs" in url.query else secret_beside(Path(str(url.database)))

    async def open(self, *, upgrade: bool = False) -> None:
        """Make the database ready: on SQLite make or upgrade its schema, elsewhere only compare unless *upgrade*.

        Raises ConfigurationError when the schema is not this version's. Opening twice is harmless.
        """
        await self._prepare()
        async with self._database.reading("schema revision") as connection:
            found = await database_revision(connection)
        if found == HEAD:
            return
        if not (self._database.is_sqlite or upgrade):
            raise ConfigurationError(
                f"The database's schema is at revision {found or 'none'} and this version needs {HEAD}: "
                f"{way_out(found)}"
            )
        await self.migrate()

    async def upgrade(self) -> str | None:
        """Make the database ready as `open` does when it may upgrade, and return the revision that was found."""
        await self._prepare()
        return await self.migrate()

    async def migrate(self) -> str | None:
        """Bring the schema to this version's, return the revision that was found; several processes may try at once.

        Raises ConfigurationError when it is a newer version's or the tables are not ours.
        """
        # Alembic costs 0.2 s and is needed once in a database's life.
        from machpay_gateway.stores.migrations import upgrade  # noqa: PLC0415

        async with self._database.upgrading("schema upgrade") as connection:
            await lock_schema(connection)
            found = await database_revision(connection)
            if found != HEAD:  # another process may have been quicker
                await connection.run_sync(upgrade)
            return found

    async def close(self) -> None:
        """Close every connection; a database in memory is gone then."""
        await self._database.close()

    async def find_by_digest(self, digest: bytes) -> KeyRecord | None:
        """Return the key that has a secret with this SHA-256 *digest*, whatever its status."""
        async with self._database.reading("key lookup") as connection:
            return await keys.key_by_digest(connection, digest)

    async def versions_since(self, since: float) -> Sequence[tuple[str, int]]:
        """Return (key id, version) of each key changed at or after *since*, seconds since the epoch."""
        async with self._database.reading("changed keys") as connection:
            return await keys.versions_since(connection, since)

    async def add_key(self, record: KeyRecord, change: Change, keep: ResponseFactory | None = None) -> None:
        """Store a new key with its secrets. Raises InputError when its account is unknown or its id is taken.

        With *keep* the answer is kept too. Raises DuplicateRequest when there is one of its name.
        """
        async with audit.changing(self._database, "key creation") as connection:
            with _fitting(record):
                await keys.insert_key(connection, record)
                await keys.insert_secrets(connection, record)
            await audit.insert_change(connection, change)
            if keep is not None:
                stored = await keys.key_by_id(connection, record.account_id, record.id)
                await idempotency.insert_answer(connection, keep(stored or record))

    async def key(self, account_id: str | None, key_id: str) -> KeyRecord | None:
        """Return a key of the account, or None. An operator (*account_id* None) sees every account's."""
        async with self._database.reading("key") as connection:
            return await keys.key_by_id(connection, account_id, key_id)

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
        async with self._database.reading("keys") as connection:
            return await keys.keys_page(
                connection,
                account_id,
                environment=environment,
                status=status,
                search=search,
                after=after,
                limit=limit,
            )

    async def replace_key(self, record: KeyRecord, change: Change, keep: ResponseFactory | None = None) -> bool:
        """Write *record* and its secrets over version `record.version - 1`; False when that is not the stored one.

        With *keep* the answer is kept too. Raises DuplicateRequest when there is one of its name.
        """
        async with audit.changing(self._database, "key change") as connection:
            if not await keys.update_key(connection, record, change.at):
                return False
            await keys.delete_secrets(connection, record.id)
            with _fitting(record):
                await keys.insert_secrets(connection, record)
            await audit.insert_change(connection, change)
            if keep is not None:
                await idempotency.insert_answer(connection, keep(record))
            return True

    async def stored_response(self, name: bytes, since: float) -> StoredResponse | None:
        """Return the answer that was kept under *name* at or after *since*, seconds since the epoch."""
        async with self._database.reading("kept answer") as connection:
            return await idempotency.answer_of(connection, name, since)

    async def add_account(self, account: Account, change: Change) -> bool:
        """Store a new account; False when its name is taken."""
        async with audit.changing(self._database, "account creation") as connection:
            if not await accounts.insert_account(connection, account):
                return False
            await audit.insert_change(connection, change)
            return True

    async def account(self, id_or_name: str) -> Account | None:
        """Return the account with that id or name."""
        async with self._database.reading("account") as connection:
            return await accounts.account_by(connection, id_or_name)

    async def accounts(self) -> Sequence[Account]:
        """Return all accounts, oldest first."""
        async with self._database.reading("accounts") as connection:
            return await accounts.all_accounts(connection)

    async def set_tier(self, account: Account, tier: str, change: Change) -> Sequence[tuple[str, int]] | None:
        """Change the tier and raise the version of every key of *account* and grant of its clients.

        Returns the id and the new version of each; None when the account is not there with the tier that it has here.
        """
        async with audit.changing(self._database, "tier change") as connection:
            if not await accounts.update_tier(connection, account, tier):
                return None
            await accounts.raise_versions(connection, account.id, change.at)
            await audit.insert_change(connection, change)
            raised = await grants.raise_versions(connection, grants.of_clients_of(account.id), change.at)
            return [*await accounts.key_versions(connection, account.id), *raised]

    async def add_change(self, change: Change, once: bytes) -> bool:
        """Write down what happened and changed nothing; False when it was under the name *once* within a day."""
        try:
            async with audit.changing(self._database, "audit log") as connection:
                await idempotency.insert_answer(connection, completion_marker(once, change.at))
                await audit.insert_change(connection, change)
        except DuplicateRequest:
            return False
        return True

    async def audit_head(self) -> AuditHead:
        """Return where the audit log ends."""
        async with self._database.reading("audit log") as connection:
            return await audit.head(connection)

    async def audit_page(
        self,
        account_id: str | None,
        *,
        chosen: AuditFilter = EVERYTHING,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[AuditRow]:
        """Return rows of the account, or of all for an operator, newest first: the *chosen* before number *before*."""
        async with self._database.reading("audit log") as connection:
            return await audit.rows_before(connection, account_id, chosen=chosen, before=before, limit=limit)

    async def audit_rows(self, after: int, *, limit: int = 1000) -> Sequence[AuditRow]:
        """Return everybody's rows, oldest first: those after number *after*."""
        async with self._database.reading("audit log") as connection:
            return await audit.rows_after(connection, after, limit=limit)

    async def add_usage(self, batch: UsageBatch) -> None:
        """Add *batch* to the minutes, hours and days, and note the uses that are later than those known."""
        async with self._database.writing("usage") as connection:
            if batch.rows:
                await usage.add_rows(connection, batch.all_rows)
            if batch.uses:
                await usage.note_uses(connection, batch.uses)

    async def drop_usage(self, now: float) -> None:
        """Drop what is older at *now*, seconds since the epoch, than its length of time is kept."""
        async with self._database.writing("old usage") as connection:
            await usage.delete_old(connection, now)

    async def usage(
        self, subject: str, bucket: Bucket, start: int, end: int, *, over: Dimension | None = None
    ) -> Sequence[UsageRow]:
        """Return the rows of *subject* by *bucket*, those that start in [*start*, *end*), in order."""
        async with self._database.reading("usage") as connection:
            if over is not None:
                return await usage.sums_of(connection, subject, bucket, start, end, over=over)
            return await usage.rows_of(connection, subject, bucket, start, end)

    async def busiest(self, since: int, limit: int) -> Sequence[UsageRow]:
        """Return the minutes from *since* on of the *limit* keys and grants with the most requests in them."""
        async with self._database.reading("usage") as connection:
            return await usage.busiest(connection, since, limit)

    async def busiest_minute(self, subject: str, start: int, end: int) -> tuple[int, int] | None:
        """Return the start of the minute in [*start*, *end*) with the most requests, the first such, and how many."""
        async with self._database.reading("usage") as connection:
            return await usage.busiest_minute(connection, subject, start, end)

    async def signing_keys(self) -> Sequence[SigningKey]:
        """Return the keys that we sign by, and did lately."""
        async with self._database.reading("signing keys") as connection:
            return await signing.all_keys(connection)

    async def add_signing_key(self, key: SigningKey, change: Change, *, instead_of: Collection[str] | None) -> bool:
        """Store *key* and drop those named by *instead_of*; when that is None, only if there is none: False if not."""
        async with audit.changing(self._database, "signing key") as connection:
            if instead_of is None and not await signing.is_empty(connection):
                return False
            await signing.delete_keys(connection, list(instead_of or ()))
            await signing.insert_key(connection, key)
            await audit.insert_change(connection, change)
            return True

    async def _prepare(self) -> None:
        if self._database.is_sqlite:
            self._database.prepare()
            await self._database.use_wal()


@contextmanager
def _fitting(record: KeyRecord) -> Iterator[None]:
    try:
        yield
    except IntegrityError as exc:
        raise InputError(
            f"Key {record.id} does not fit: account {record.account_id} is unknown, or the id or a secret is taken"
        ) from exc
