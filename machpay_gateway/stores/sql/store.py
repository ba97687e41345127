"""The store on a SQL database: all subjects in one, its schema, and its secret key."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes
from tempfile import gettempdir

from sqlalchemy import text

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.pool_use import PoolUse
from machpay_gateway.stores.schema import HEAD
from machpay_gateway.stores.sql.accounts import SqlAccounts
from machpay_gateway.stores.sql.audit import SqlAuditLog
from machpay_gateway.stores.sql.clients import SqlClients
from machpay_gateway.stores.sql.engine import Database
from machpay_gateway.stores.sql.grants import SqlGrants
from machpay_gateway.stores.sql.keys import SqlKeys
from machpay_gateway.stores.sql.quotas import SqlQuotas
from machpay_gateway.stores.sql.revision import database_revision, is_usable, lock_schema, migration_command
from machpay_gateway.stores.sql.secret import secret_beside
from machpay_gateway.stores.sql.signing import SqlSigningKeys
from machpay_gateway.stores.sql.tokens import SqlTokens
from machpay_gateway.stores.sql.usage import SqlUsage
from machpay_gateway.stores.sql.users import SqlUsers

_CLOCK = text("SELECT extract(epoch FROM clock_timestamp())")


class SqlStore(
    SqlKeys, SqlAccounts, SqlUsers, SqlClients, SqlGrants, SqlTokens, SqlSigningKeys, SqlAuditLog, SqlUsage, SqlQuotas
):
    """Everything that is stored, in the database at *url*: `sqlite:///…`, `postgresql://…`, or `memory://`.

    A database in memory has no file, is separate from every other, needs no `open`, and is freed with its store. A
    store may be used from several event loops. *busy_timeout_seconds* is how long SQLite waits for another process that
    is writing. *url_file* is the file that *url* is from: a server is logged in to by the password that it has then.
    Raises ConfigurationError for an invalid URL.
    """

    def __init__(self, url: str, *, busy_timeout_seconds: float = 5.0, url_file: Path | None = None) -> None:
        super().__init__(Database(url, busy_timeout_seconds=busy_timeout_seconds, url_file=url_file))
        self._memory_secret = token_bytes(32)

    @property
    def serving_lock(self) -> Path | None:
        """The file that a process locks to be the only one that serves from this database; None for one in memory.

        For a database server, the lock covers this host alone.
        """
        if self._database.is_in_memory:
            return None
        url = self._database.url
        if self._database.is_sqlite:
            return Path(f"{url.database}.serving")
        name = sha256(url.render_as_string(hide_password=True).encode()).hexdigest()[:16]
        return Path(gettempdir()) / f"machpay-{name}.serving"

    @property
    def is_read_only(self) -> bool:
        """Whether the database refused writes, or said that it would, when it was last used."""
        return self._database.is_read_only

    @property
    def pools(self) -> Mapping[str, PoolUse]:
        """The use of the connection pools of this process, by name."""
        return self._database.pools

    async def server_time(self) -> float | None:
        """Return the server's time in seconds since the epoch; None on SQLite, where it is this host's.

        Raises StoreUnavailable.
        """
        if self._database.is_sqlite:
            return None
        async with self._database.read_connection("clock") as connection:
            return float((await connection.execute(_CLOCK)).scalar_one())

    def secret_key(self) -> bytes | None:
        """Return a secret key that only processes that serve from this database can read; None on a database server.

        For a SQLite file it is in a file beside it, which the first call creates. Raises ConfigurationError.
        """
        if not self._database.is_sqlite:
            return None
        if self._database.is_in_memory:
            return self._memory_secret
        return secret_beside(Path(str(self._database.url.database)))

    async def open(self, *, upgrade: bool = False) -> None:
        """Make the database ready: on SQLite create or upgrade its schema, elsewhere only check it unless *upgrade*.

        Raises ConfigurationError when this version cannot use the schema. Opening twice is harmless.
        """
        await self._database.prepare()
        if self._database.is_in_memory:
            return  # it was created with this version's schema
        async with self._database.read_connection("schema revision") as connection:
            revision = await database_revision(connection)
        if (self._database.is_sqlite or upgrade) and (revision is None or revision < HEAD):
            await self.migrate()
            revision = HEAD
        if not is_usable(revision):
            raise ConfigurationError(
                f"The database's schema is at revision {revision or 'none'} and this version needs {HEAD}: "
                f"{migration_command(revision)}"
            )
        self._numbers_batches = revision is None or revision >= "0013"

    async def upgrade(self) -> str | None:
        """Make the database ready as `open` with *upgrade* does, and return the revision that it had before."""
        await self._database.prepare()
        return await self.migrate()

    async def migrate(self) -> str | None:
        """Bring the schema to this version's and return the revision before; several processes may try at once.

        A newer schema that this version can use is left as it is. Raises ConfigurationError when it cannot be used, or
        when the tables are another program's.
        """
        # Alembic takes 0.2 s to import and is needed once in a database's life.
        from machpay_gateway.stores.migrations import upgrade  # noqa: PLC0415

        async with self._database.upgrade_transaction("schema upgrade") as connection:
            await lock_schema(connection)
            revision = await database_revision(connection)
            if revision is None or revision < HEAD:  # else another process was faster
                await connection.run_sync(upgrade)
            return revision

    async def close(self) -> None:
        """Close every connection; the store may be opened again."""
        await self._database.close()
