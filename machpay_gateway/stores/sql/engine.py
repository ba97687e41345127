"""Connections: the database that a URL names, and connection pools for each event loop.

Readers run one statement each and need no transaction. A writer on SQLite uses BEGIN IMMEDIATE, because a deferred
transaction that upgrades to writing fails at once (SQLITE_BUSY) when another writer came first. On PostgreSQL, a
transaction around a read would be two more round trips, and two more for the check that the connection is alive.
"""

import asyncio
import os
import sqlite3
import time
import weakref
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from secrets import token_hex
from threading import Lock
from typing import Any, NamedTuple, NoReturn

from sqlalchemy import URL, event, make_url
from sqlalchemy import exc as sql_errors
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from machpay_gateway.core.errors import ConfigurationError, StoreUnavailable
from machpay_gateway.core.pool_use import PoolUse
from machpay_gateway.extras import missing_extra
from machpay_gateway.settings import MEMORY_DATABASE
from machpay_gateway.stores.sql.memory_schema import create_tables
from machpay_gateway.stores.sql.pool import CountedPool
from machpay_gateway.stores.sql.server_connection import ServerConnector, server_url, split_hosts
from machpay_gateway.stores.sql.sqlite_connection import connect

_FORMS = "sqlite:///machpay.db, sqlite:////absolute/path.db, sqlite:// (in memory) or postgresql://user@host/name"
_READ_ONLY_STATE = "25006"  # SQLSTATE: read_only_sql_transaction
# SQLite takes microseconds for a query: more connections would only be more waiting threads.
_SQLITE_READERS, _SERVER_POOL = 4, 10
_WAIT_SECONDS = 5.0  # for a connection: after that the database counts as unavailable
_STATEMENT_SECONDS = 10.0
_LOCKED_PAUSE_SECONDS = 0.02  # between attempts at a lock that SQLite does not wait for
_FIRST_WITH_SHARED_MEMORY = (3, 36)
_SQLITE_START = b"SQLite format 3\0"


def database_url(text: str) -> URL:
    """Parse the URL *text*; add the driver, and make the path absolute, so that a later `chdir` does not matter.

    Raises ConfigurationError, which never repeats the URL: it may hold a password.
    """
    text, hosts = split_hosts(text)
    try:
        url = make_url(text)
    except (sql_errors.ArgumentError, ValueError):
        raise ConfigurationError(f"The database URL cannot be read: use {_FORMS}") from None
    if url.drivername == "sqlite":
        return _sqlite_url(url)
    if url.drivername == "postgresql":
        return server_url(url, hosts)
    if text == MEMORY_DATABASE:
        return _memory_url()
    raise ConfigurationError(f"Database {url.drivername}:// is not supported: use {_FORMS}")


def _sqlite_url(url: URL) -> URL:
    if url.host or url.username or url.query:
        raise ConfigurationError(f"sqlite:// takes three slashes, a path and no options: use {_FORMS}")
    if url.database in (None, "", ":memory:"):
        return _memory_url()
    path = Path(str(url.database)).expanduser().absolute()
    return url.set(drivername="sqlite+aiosqlite", database=str(path))


def _memory_url() -> URL:
    if sqlite3.sqlite_version_info < _FIRST_WITH_SHARED_MEMORY:
        raise ConfigurationError(
            f"A database in memory needs SQLite 3.36, this is {sqlite3.sqlite_version}: name a file instead"
        )
    # `memdb` and not `:memory:`, where each connection has a database of its own that is lost with it.
    query = {"vfs": "memdb", "uri": "true"}
    return URL.create("sqlite+aiosqlite", database=f"file:/machpay-{token_hex(8)}", query=query)


class _Engines(NamedTuple):
    """The connection pools of one event loop: for single statements, and for transactions."""

    statements: AsyncEngine
    transactions: AsyncEngine


class Database:
    """One database. Driver errors become StoreUnavailable.

    Each event loop has its own connections, because tasks of different loops cannot wait for one another. So a test
    client that starts a loop for every request works, and so does a forked process.
    """

    def __init__(self, text: str, *, busy_timeout_seconds: float, url_file: Path | None = None) -> None:
        self.url = database_url(text)
        self._connector = None if self.is_sqlite else ServerConnector(self.url, url_file)
        self._is_pooled: bool | None = None  # by something between us and the server; None if that is not known yet
        self.is_read_only = False  # the server, when it was last used
        self._busy_timeout_seconds = busy_timeout_seconds
        self._engines: dict[tuple[int, asyncio.AbstractEventLoop], _Engines] = {}
        self._anchor: sqlite3.Connection | None = None
        self._anchor_lock = Lock()

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is SQLite: then no administrator creates its schema."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def is_in_memory(self) -> bool:
        """Whether the database is in the memory of this process: no other process can open it."""
        return "vfs" in self.url.query

    @property
    def server_name(self) -> str:
        """The database server's hosts and the name of the database, for messages."""
        # A password with an @ that is not escaped ends up in what is taken for the host.
        hosts = [] if self._connector is None else [it.host.rpartition("@")[2] for it in self._connector.servers]
        return f"{','.join(hosts) or 'localhost'}/{self.url.database}"

    @property
    def pools(self) -> Mapping[str, PoolUse]:
        """The use of the connection pools of this process: that of a server, or those of SQLite for each purpose."""
        pools: dict[str, PoolUse] = {}
        for (pid, _), (statements, transactions) in list(self._engines.items()):
            names = {"readers": statements, "writer": transactions} if self.is_sqlite else {"server": statements}
            for name, engine in names.items():
                if pid == os.getpid() and isinstance(engine.pool, CountedPool):
                    pools[name] = PoolUse(*map(sum, zip(pools.get(name, (0, 0, 0)), engine.pool.use, strict=True)))
        return pools

    @property
    def name(self) -> str:
        """The name of the database for people: of a file, its path from the working directory."""
        if self.is_in_memory:
            return "memory://"
        if not self.is_sqlite:
            return self.server_name
        path, here = Path(str(self.url.database)), Path.cwd()
        return str(path.relative_to(here) if path.is_relative_to(here) else path)

    @property
    def is_missing(self) -> bool:
        """Whether it is a file that does not exist, but could: `check_file` reports other problems."""
        if not self.is_sqlite or self.is_in_memory:
            return False
        path = Path(str(self.url.database))
        try:
            path.stat()
        except FileNotFoundError:
            return path.parent.is_dir()
        except OSError:
            return False
        return False

    async def prepare(self) -> None:
        """Create what SQLite needs before the first statement: the database in memory, or a file in WAL mode.

        Raises ConfigurationError, StoreUnavailable.
        """
        if self.is_in_memory:
            self._create_in_memory()
        elif self.is_sqlite:
            self.check_file()
            await self._use_wal()

    def check_file(self) -> None:
        """Create the file of a SQLite database, readable by its owner only, unless it exists.

        Raises ConfigurationError when it cannot be opened or is not a SQLite database.
        """
        path = Path(str(self.url.database))
        if not path.parent.is_dir():
            raise ConfigurationError(f"{path} cannot be made: {path.parent} is not a directory, make it first")
        try:
            path.touch(mode=0o600)
            with path.open("rb") as file:
                start = file.read(len(_SQLITE_START))
        except OSError as exc:
            raise ConfigurationError(f"{path} cannot be opened ({exc.strerror}): name a file we may write") from exc
        if start not in (b"", _SQLITE_START):
            raise ConfigurationError(f"{path} is not a SQLite database: name another file")

    @asynccontextmanager
    async def read_connection(self, operation: str) -> AsyncIterator[AsyncConnection]:
        """Yield a connection for one statement. Raises StoreUnavailable that names *operation*."""
        async with self._statement(operation, is_write=False) as connection:
            yield connection

    @asynccontextmanager
    async def write_connection(self, operation: str) -> AsyncIterator[AsyncConnection]:
        """Yield a connection for a write of one statement. Raises StoreUnavailable that names *operation*."""
        async with self._statement(operation, is_write=True) as connection:
            yield connection

    @asynccontextmanager
    async def _statement(self, operation: str, *, is_write: bool) -> AsyncIterator[AsyncConnection]:
        engines = await self._here(operation)
        if self._is_pooled:
            context = _transaction(engines.transactions, operation)
        else:
            context = _connection(
                engines.transactions if is_write and self.is_sqlite else engines.statements, operation
            )
        async with context as connection:
            yield connection

    @asynccontextmanager
    async def write_transaction(self, operation: str) -> AsyncIterator[AsyncConnection]:
        """Yield a connection in a transaction that is committed at the end.

        Raises StoreUnavailable that names *operation*. A caller that expects an IntegrityError catches it; any other
        becomes StoreUnavailable.
        """
        async with _transaction((await self._here(operation)).transactions, operation) as connection:
            yield connection
        self.is_read_only = False

    @asynccontextmanager
    async def upgrade_transaction(self, operation: str) -> AsyncIterator[AsyncConnection]:
        """Yield a connection as `write_transaction` does, without a statement timeout.

        To wait for another process that upgrades, or to index a million keys, takes long without an outage.
        """
        if self._connector is None:
            async with self.write_transaction(operation) as connection:
                yield connection
            return
        await self._here(operation)  # which finds out what is between us and the server
        engines = self._server_engines(self._connector, statement_seconds=None)
        try:
            async with _transaction(engines.transactions, operation) as connection:
                yield connection
        finally:
            await engines.transactions.dispose()

    async def close(self) -> None:
        """Close every connection. A database in memory is freed with this object, and not before."""
        for pid, loop in list(self._engines):
            if pid == os.getpid():
                await self._dispose(loop)

    def _create_in_memory(self) -> None:
        with self._anchor_lock:
            if self._anchor is not None:
                return
            # The memory lives as long as a connection to it does, and those of a pool come and go.
            self._anchor = anchor = sqlite3.connect(
                f"{self.url.database}?vfs=memdb", uri=True, check_same_thread=False, isolation_level=None
            )
            weakref.finalize(self, anchor.close)
            create_tables(anchor)

    async def _use_wal(self) -> None:
        """Switch a SQLite file to write-ahead logging, in which readers do not wait for the writer."""
        # SQLite waits for every lock but this one: while another process writes to a new file, it reports at once that
        # the database is locked.
        give_up_at = time.monotonic() + self._busy_timeout_seconds
        while True:
            try:
                async with self.read_connection("journal mode") as connection:
                    if (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar() == "delete":
                        await connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            except StoreUnavailable as exc:
                if not _is_locked(exc.__cause__) or time.monotonic() > give_up_at:
                    raise
            else:
                return
            await asyncio.sleep(_LOCKED_PAUSE_SECONDS)

    async def _here(self, operation: str) -> _Engines:
        here = (os.getpid(), asyncio.get_running_loop())
        if (engines := self._engines.get(here)) is not None:
            return engines
        if self.is_in_memory:
            self._create_in_memory()  # it need not be opened first
        if self._connector is not None and self._is_pooled is None:
            self._is_pooled = await _is_pooled(self._connector, operation)
            if (engines := self._engines.get(here)) is not None:
                return engines  # another task was faster
        self._engines[here] = engines = self._new_engines()
        for pid, loop in list(self._engines):
            # The parent's connections stay as they are: their threads do not exist here, so closing would never end.
            if loop.is_closed() and pid == here[0]:
                await self._dispose(loop)
        return engines

    async def _dispose(self, loop: asyncio.AbstractEventLoop) -> None:
        for engine in self._engines.pop((os.getpid(), loop)):
            # An aiosqlite connection is a thread and can be closed from any loop; a socket only from its own loop.
            await engine.dispose(close=self.is_sqlite or loop is asyncio.get_running_loop())

    def _new_engines(self) -> _Engines:
        if self._connector is not None:
            return self._server_engines(self._connector, statement_seconds=_STATEMENT_SECONDS)
        # SQLite has one writer. With a pool of one connection, the next writer continues as soon as the first ends;
        # waiting for SQLite's own lock, it would sleep ever longer between attempts.
        return _Engines(self._sqlite_engine(pool_size=_SQLITE_READERS), self._sqlite_engine(pool_size=1))

    def _sqlite_engine(self, *, pool_size: int) -> AsyncEngine:
        engine = create_async_engine(
            self.url,
            poolclass=CountedPool,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=_WAIT_SECONDS,
            connect_args={
                "timeout": self._busy_timeout_seconds,
                "isolation_level": None,  # sqlite3 must not begin transactions by itself
                "async_creator_fn": connect,
            },
            hide_parameters=True,
        )
        event.listen(engine.sync_engine, "connect", _enforce_foreign_keys)
        return engine

    def _server_engines(self, connector: ServerConnector, *, statement_seconds: float | None) -> _Engines:
        options: dict[str, Any] = {
            "timeout": _WAIT_SECONDS,
            "command_timeout": statement_seconds,
            "async_creator_fn": connector.connect,
        }
        if self._is_pooled:
            # Behind PgBouncer, the next statement may run in another session of the server. A transaction stays in one,
            # and a statement without a name is gone with the next.
            unnamed = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str}
            options |= unnamed | {"statement_cache_size": 0}
        try:
            engine = create_async_engine(
                connector.driver_url,
                poolclass=CountedPool,
                pool_size=_SERVER_POOL,
                max_overflow=0,
                pool_timeout=_WAIT_SECONDS,
                pool_pre_ping=True,
                isolation_level="READ COMMITTED" if self._is_pooled else "AUTOCOMMIT",
                connect_args=options,
                hide_parameters=True,
            )
        except ModuleNotFoundError as exc:
            _refuse_without_driver(exc)
        event.listen(engine.sync_engine, "handle_error", self._drop_read_only)
        event.listen(engine.sync_engine, "checkout", partial(self._check_writable, is_needed=connector.wants_writable))
        if self._is_pooled:
            return _Engines(engine, engine)
        # Explicit, because an administrator may change the default: changes wait for one another at a lock, and
        # must then see what was committed meanwhile. Both engines share one pool.
        return _Engines(engine, engine.execution_options(isolation_level="READ COMMITTED"))

    def _drop_read_only(self, context: ExceptionContext) -> None:
        """Drop all connections when a write is refused because the server has turned read-only."""
        if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY_STATE:
            self.is_read_only = True
            context.is_disconnect = True  # so that the next connection is made to a server that takes writes

    def _check_writable(self, connection: DBAPIConnection, _record: object, _proxy: object, *, is_needed: bool) -> None:
        """Drop a connection whose server has turned read-only, where a writable one *is needed*.

        The server reports both settings by itself, so this waits for nothing.
        """
        settings = connection.driver_connection.get_settings()
        flags = [getattr(settings, name, None) for name in ("in_hot_standby", "default_transaction_read_only")]
        if any(flags) and not self._is_pooled:  # a server before version 14 reports neither, and a pooler old ones
            self.is_read_only = "on" in flags
        if self.is_read_only and is_needed:
            raise sql_errors.DisconnectionError("the server has turned read-only")


async def _is_pooled(connector: ServerConnector, operation: str) -> bool:
    try:
        return await connector.is_pooled(timeout=_WAIT_SECONDS)
    except ModuleNotFoundError as exc:
        _refuse_without_driver(exc)
    except Exception as exc:  # the driver has no class for all of its errors
        raise StoreUnavailable(operation) from exc


@asynccontextmanager
async def _connection(engine: AsyncEngine, operation: str) -> AsyncIterator[AsyncConnection]:
    try:
        async with engine.connect() as connection:
            yield connection
    except (sql_errors.DBAPIError, sql_errors.TimeoutError, OSError) as exc:
        raise StoreUnavailable(operation) from exc


@asynccontextmanager
async def _transaction(engine: AsyncEngine, operation: str) -> AsyncIterator[AsyncConnection]:
    async with _connection(engine, operation) as connection, connection.begin():
        if engine.dialect.name == "sqlite":
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection


def _refuse_without_driver(exc: ModuleNotFoundError) -> NoReturn:
    raise missing_extra("postgresql", "postgresql://", str(exc.name)) from exc


def _is_locked(error: BaseException | None) -> bool:
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    return code == sqlite3.SQLITE_BUSY


def _enforce_foreign_keys(connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


class Statements:
    """The statements on one subject, which run on *database*."""

    def __init__(self, database: Database) -> None:
        self._database = database
