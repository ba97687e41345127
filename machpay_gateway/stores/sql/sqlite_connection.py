"""SQLite's connections: aiosqlite's, whose thread is handed a whole statement at once.

aiosqlite hands its thread each call of the driver, which makes four hand-overs of one SELECT: a cursor, its statement,
its rows and its end. Each costs more than SQLite takes to answer.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import aiosqlite
from aiosqlite.context import contextmanager
from aiosqlite.core import _STOP_RUNNING_SENTINEL

Execute = Callable[[sqlite3.Cursor, str, Any], sqlite3.Cursor]
_CHUNK = 64  # rows at a time for whoever iterates, as aiosqlite has it; nobody does


class SqliteResult(NamedTuple):
    """What came of one statement, in the terms of PEP 249."""

    description: Sequence[Any] | None
    rows: Sequence[Any]
    rowcount: int
    lastrowid: int | None


async def connected(*arguments: Any, **options: Any) -> aiosqlite.Connection:  # noqa: ANN401 - as sqlite3 takes them
    """Return a connection. Raises sqlite3.Error."""
    kind = MemoryConnection if "vfs=memdb" in arguments[0] else SqliteConnection
    connection = kind(partial(sqlite3.connect, *arguments, **options), _CHUNK)
    thread = connection._thread  # noqa: SLF001 - which SQLAlchemy makes a daemon too, so that a process can end
    thread.daemon = True
    try:
        return await connection
    except sqlite3.Error:
        # aiosqlite tells its thread to end and does not wait: a loop that is closed before has a traceback on stderr.
        await asyncio.to_thread(thread.join)
        raise


class SqliteConnection(aiosqlite.Connection):
    """One connection, whose cursors cost nothing but the statements that they run."""

    @contextmanager
    async def cursor(self) -> "SqliteCursor":  # type: ignore[override]  # it has what SQLAlchemy asks of one
        """Return a cursor, of which the thread need not know yet."""
        return SqliteCursor(self)

    async def answer(self, execute: Execute, sql: str, parameters: object) -> SqliteResult:
        """Run a statement and return all that came of it. Raises sqlite3.Error, ValueError when it was closed."""
        # aiosqlite types what it publishes, which this is not.
        answer: SqliteResult = await self._execute(self._answered, execute, sql, parameters)  # type: ignore[no-untyped-call]
        return answer

    async def rollback(self) -> None:
        """End a transaction that is open; without one there is nothing to ask of the thread."""
        # Nor after a statement that was abandoned and may be about to begin one: SQLAlchemy closes its connection.
        if self.in_transaction:
            await super().rollback()

    def _answered(self, execute: Execute, sql: str, parameters: object) -> SqliteResult:
        cursor = self._conn.cursor()
        try:
            execute(cursor, sql, parameters)
            rows = cursor.fetchall() if cursor.description else ()
            return SqliteResult(cursor.description, rows, cursor.rowcount, cursor.lastrowid)
        finally:
            cursor.close()


class MemoryConnection(SqliteConnection):
    """A connection to a database in memory, which nobody has to close: it loses nothing when it is garbage."""

    def __del__(self) -> None:
        """End the thread. aiosqlite would warn as well, but a test client without a lifespan cannot close a gateway."""
        if (connection := self._connection) is not None:
            self._tx.put_nowait((None, partial(_close, connection)))


def _close(connection: sqlite3.Connection) -> object:
    connection.close()
    return _STOP_RUNNING_SENTINEL


class SqliteCursor:
    """As much of a cursor as SQLAlchemy's adapter for asyncio uses; what it holds was fetched already."""

    def __init__(self, connection: SqliteConnection) -> None:
        self._connection = connection
        self._answer = SqliteResult(None, (), -1, None)

    @property
    def description(self) -> Sequence[Any] | None:
        """The columns of the rows, None for a statement that has none."""
        return self._answer.description

    @property
    def rowcount(self) -> int:
        """How many rows the statement changed, -1 for one that changes none."""
        return self._answer.rowcount

    @property
    def lastrowid(self) -> int | None:
        """The rowid of the last row inserted."""
        return self._answer.lastrowid

    async def execute(self, sql: str, parameters: object = ()) -> Self:
        """Run one statement."""
        self._answer = await self._connection.answer(sqlite3.Cursor.execute, sql, parameters)
        return self

    async def executemany(self, sql: str, parameters: object) -> Self:
        """Run one statement with each of *parameters*."""
        self._answer = await self._connection.answer(sqlite3.Cursor.executemany, sql, parameters)
        return self

    async def fetchall(self) -> Sequence[Any]:
        """Return the rows."""
        return self._answer.rows

    async def close(self) -> None:
        """Let go of nothing: there is nothing that is held."""
