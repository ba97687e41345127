"""SQLite connections of aiosqlite that run a whole statement in one call of their thread.

aiosqlite passes every driver call to its thread, four for one SELECT: cursor, execute, fetch and close. Each costs more
than SQLite takes to run the statement.
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
_CHUNK = 64  # rows fetched at a time by iteration, which is not used; aiosqlite's own default


class SqliteResult(NamedTuple):
    """The result of one statement, in the terms of PEP 249."""

    description: Sequence[Any] | None
    rows: Sequence[Any]
    rowcount: int
    lastrowid: int | None


async def connect(*arguments: Any, **options: Any) -> aiosqlite.Connection:  # noqa: ANN401 - as sqlite3 takes them
    """Return a connection. Raises sqlite3.Error."""
    kind = MemoryConnection if "vfs=memdb" in arguments[0] else SqliteConnection
    connection = kind(partial(sqlite3.connect, *arguments, **options), _CHUNK)
    thread = connection._thread  # noqa: SLF001 - which SQLAlchemy makes a daemon too, so that a process can end
    thread.daemon = True
    try:
        return await connection
    except sqlite3.Error:
        # aiosqlite stops its thread without waiting: if the loop closes first, there is a traceback on stderr.
        await asyncio.to_thread(thread.join)
        raise


class SqliteConnection(aiosqlite.Connection):
    """A connection whose cursors make one call of the thread for each statement."""

    @contextmanager
    async def cursor(self) -> "SqliteCursor":  # type: ignore[override]  # it has what SQLAlchemy uses
        """Return a cursor, without a call of the thread."""
        return SqliteCursor(self)

    async def run(self, execute: Execute, sql: str, parameters: object) -> SqliteResult:
        """Run a statement and return its result. Raises sqlite3.Error, and ValueError when the connection is closed."""
        # This method of aiosqlite is private, and untyped.
        result: SqliteResult = await self._execute(self._execute_and_fetch, execute, sql, parameters)  # type: ignore[no-untyped-call]
        return result

    async def rollback(self) -> None:
        """Roll back an open transaction; without one, the thread is not called."""
        # A canceled statement may still begin one: SQLAlchemy closes its connection.
        if self.in_transaction:
            await super().rollback()

    def _execute_and_fetch(self, execute: Execute, sql: str, parameters: object) -> SqliteResult:
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
    """The part of a cursor that SQLAlchemy's asyncio adapter uses; its rows are fetched already."""

    def __init__(self, connection: SqliteConnection) -> None:
        self._connection = connection
        self._result = SqliteResult(None, (), -1, None)

    @property
    def description(self) -> Sequence[Any] | None:
        """The columns of the rows; None for a statement without rows."""
        return self._result.description

    @property
    def rowcount(self) -> int:
        """The number of changed rows; -1 for a statement that changes none."""
        return self._result.rowcount

    @property
    def lastrowid(self) -> int | None:
        """The rowid of the last row inserted."""
        return self._result.lastrowid

    async def execute(self, sql: str, parameters: object = ()) -> Self:
        """Run one statement."""
        self._result = await self._connection.run(sqlite3.Cursor.execute, sql, parameters)
        return self

    async def executemany(self, sql: str, parameters: object) -> Self:
        """Run one statement with each of *parameters*."""
        self._result = await self._connection.run(sqlite3.Cursor.executemany, sql, parameters)
        return self

    async def fetchall(self) -> Sequence[Any]:
        """Return the rows."""
        return self._result.rows

    async def close(self) -> None:
        """Do nothing: it holds no resources."""
