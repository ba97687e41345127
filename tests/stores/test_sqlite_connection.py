"""What SQLite's connections hand to their thread, and what comes back."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from machpay_gateway.stores.sql import sqlite_connection


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was handed over since the last look."""
    names: list[str] = []
    hand = sqlite_connection.SqliteConnection._execute  # noqa: SLF001 - all that aiosqlite hands over goes through it

    async def recorded(self: sqlite_connection.SqliteConnection, function: Any, *arguments: Any) -> Any:  # noqa: ANN401 - whatever it is
        names.append(function.__name__)
        return await hand(self, function, *arguments)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(sqlite_connection.SqliteConnection, "_execute", recorded)
    return names


@pytest.fixture
async def engine() -> AsyncIterator[AsyncEngine]:
    options = {"async_creator_fn": sqlite_connection.connect, "isolation_level": None}
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool, connect_args=options)
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TABLE keys (id INTEGER PRIMARY KEY, name TEXT UNIQUE)"))
    yield engine
    await engine.dispose()


async def names(connection: AsyncConnection) -> list[str]:
    return list((await connection.execute(text("SELECT name FROM keys ORDER BY id"))).scalars())


async def test_a_statement_is_handed_over_once_with_all_that_comes_of_it(
    engine: AsyncEngine, handed: list[str]
) -> None:
    async with engine.connect() as connection:
        added = text("INSERT INTO keys (name) VALUES (:name)")
        one = await connection.execute(added, {"name": "a"})
        assert (one.rowcount, one.lastrowid, handed) == (1, 1, ["_execute_and_fetch"])
        await connection.execute(added, [{"name": "b"}, {"name": "c"}])
        handed.clear()
        rows = await connection.execute(text("SELECT id, name FROM keys ORDER BY id"))
        assert (list(rows.keys()), list(rows)) == (["id", "name"], [(1, "a"), (2, "b"), (3, "c")])
        assert handed == ["_execute_and_fetch"]
        none = await connection.execute(text("SELECT id FROM keys WHERE id = 9"))
        assert (list(none.keys()), none.all()) == (["id"], [])
        changed = text("UPDATE keys SET name = name || '!' WHERE id > 1 RETURNING name")
        assert list((await connection.execute(changed)).scalars()) == ["b!", "c!"]
        assert (await connection.execute(text("UPDATE keys SET name = 'd' WHERE id > 2"))).rowcount == 1
        handed.clear()
    assert handed == []  # there was no transaction to end


async def test_a_transaction_ends_in_rollback_when_it_fails(engine: AsyncEngine, handed: list[str]) -> None:
    async with engine.connect() as connection:
        await connection.exec_driver_sql("BEGIN")
        await connection.execute(text("INSERT INTO keys (name) VALUES ('a')"))
        with pytest.raises(IntegrityError, match="UNIQUE"):
            await connection.execute(text("INSERT INTO keys (name) VALUES ('a')"))
        handed.clear()
    assert handed == ["rollback"]
    async with engine.connect() as connection:
        assert await names(connection) == []
