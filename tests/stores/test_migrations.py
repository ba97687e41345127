"""The way from any database we may meet to the schema of today, or to a refusal."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.stores.migrations import migration_config, upgrade
from machpay_gateway.stores.schema import HEAD, METADATA, REVISIONS
from machpay_gateway.stores.sql import SqlStore
from machpay_gateway.stores.sql.engine import Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.db"


def executed(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement).fetchall()


def test_the_revisions_are_those_of_the_scripts() -> None:
    scripts = ScriptDirectory.from_config(migration_config())
    assert tuple(reversed([script.revision for script in scripts.walk_revisions()])) == REVISIONS
    assert scripts.get_heads() == [HEAD]


def test_the_migrated_schema_is_the_one_described(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        upgrade(connection)
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()


def test_constraints_have_the_names_that_later_migrations_will_call_them_by(path: Path, tmp_path: Path) -> None:
    migrated, described = create_engine(f"sqlite:///{path}"), create_engine(f"sqlite:///{tmp_path}/described.db")
    with migrated.begin() as connection:
        upgrade(connection)
    METADATA.create_all(described)
    for table in METADATA.tables:
        old, new = inspect(migrated), inspect(described)
        assert old.get_pk_constraint(table) == new.get_pk_constraint(table)
        assert old.get_foreign_keys(table) == new.get_foreign_keys(table)
        assert old.get_unique_constraints(table) == new.get_unique_constraints(table)
    migrated.dispose()
    described.dispose()


async def test_a_database_in_memory_has_the_schema_and_rows_of_a_migrated_one(path: Path) -> None:
    databases = [Database(url, busy_timeout_seconds=5.0) for url in (f"sqlite:///{path}", "memory://")]
    async with databases[0].upgrade_transaction("schema") as connection:
        await connection.run_sync(upgrade)
    migrated, created = [await content(database) for database in databases]
    assert created == migrated
    assert created["alembic_version"][-1] == [(HEAD,)]


async def content(database: Database) -> dict[str, list[object]]:
    """Return the columns, keys, indexes and rows of every table."""
    async with database.read_connection("content") as connection:
        tables = await connection.run_sync(described)
        for table, parts in tables.items():
            parts.append([tuple(row) for row in await connection.exec_driver_sql(f"SELECT * FROM {table}")])  # noqa: S608 - of our own
    await database.close()
    return tables


def described(connection: Connection) -> dict[str, list[object]]:
    schema = inspect(connection)
    return {
        table: [
            {
                column["name"]: (str(column["type"]), column["nullable"], column["default"])
                for column in schema.get_columns(table)
            },
            schema.get_pk_constraint(table),
            schema.get_foreign_keys(table),
            schema.get_unique_constraints(table),
            sorted((str(index["name"]), index["column_names"], index["unique"]) for index in schema.get_indexes(table)),
        ]
        for table in schema.get_table_names()
    }


async def test_a_database_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    store = SqlStore(f"sqlite:///{path}")
    await store.open()
    await store.close()
    executed(path, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigurationError, match=r"'9999'.*upgrade machpay-gateway"):
        await store.open()
    with pytest.raises(ConfigurationError, match="'9999'"):
        await store.migrate()
    await store.close()
    assert executed(path, "SELECT version_num FROM alembic_version") == [("9999",)]


async def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    executed(path, "CREATE TABLE keys (id INTEGER)")
    store = SqlStore(f"sqlite:///{path}")
    with pytest.raises(ConfigurationError, match="'keys' that is not ours"):
        await store.open()
    await store.close()
    assert executed(path, "SELECT name FROM sqlite_master") == [("keys",)]


async def test_a_database_server_is_not_upgraded_by_a_start(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqlStore(f"sqlite:///{path}")
    await store.open()
    executed(path, "DELETE FROM alembic_version")
    monkeypatch.setattr(Database, "is_sqlite", False)
    with pytest.raises(ConfigurationError, match="machpay-gateway init"):
        await store.open()
    monkeypatch.undo()
    await store.close()


async def test_a_migration_that_fails_leaves_the_database_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(connection: Connection) -> None:
        upgrade(connection)
        raise RuntimeError("power cut")

    monkeypatch.setattr("machpay_gateway.stores.migrations.upgrade", failing)
    store = SqlStore(f"sqlite:///{path}")
    with pytest.raises(RuntimeError, match="power cut"):
        await store.open()
    assert executed(path, "SELECT name FROM sqlite_master") == []
    monkeypatch.undo()
    await store.open()
    assert list(await store.accounts()) == []
    await store.close()


async def test_migrating_what_is_up_to_date_changes_nothing(path: Path) -> None:
    store = SqlStore(f"sqlite:///{path}")
    await store.open()
    before = executed(path, "SELECT sql FROM sqlite_master")
    await store.migrate()
    await store.close()
    assert executed(path, "SELECT sql FROM sqlite_master") == before
