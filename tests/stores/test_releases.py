"""Each release works on the schemas of the releases before and after it: deployments roll forward and back."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, inspect, text

from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.limits.ports import StoredUnits
from machpay_gateway.core.usage.counters import DAY, UsageBatch, UsageKey, UsageRow
from machpay_gateway.stores.migrations import upgrade
from machpay_gateway.stores.schema import HEAD, LATENCIES, PREVIOUS, REVISIONS
from machpay_gateway.stores.sql import SqlStore
from machpay_gateway.stores.sql.engine import Database
from machpay_gateway.stores.sql.health_checks import database_findings
from tests.keyrings import ACME, logged, stored_key
from tests.postgres.servers import Server

# What a migration of the next release may do, and what it records when programs of *oldest* can use its schema.
NEXT = (
    "CREATE TABLE next_things (id TEXT PRIMARY KEY)",
    "ALTER TABLE keys ADD COLUMN next_field TEXT",
    "ALTER TABLE accounts ADD COLUMN next_limit INTEGER DEFAULT 7 NOT NULL",
)


def described(connection: Connection) -> dict[str, dict[str, Any]]:
    schema = inspect(connection)
    return {
        table: {
            "columns": {column["name"]: column for column in schema.get_columns(table)},
            "constraints": [
                schema.get_pk_constraint(table),
                sorted(map(repr, schema.get_foreign_keys(table))),
                sorted(map(repr, schema.get_unique_constraints(table))),
                sorted(map(repr, schema.get_check_constraints(table))),
                sorted(repr(index) for index in schema.get_indexes(table) if index["unique"]),
            ],
        }
        for table in schema.get_table_names()
    }


def test_the_release_before_is_one_of_the_revisions() -> None:
    assert PREVIOUS in REVISIONS


def test_migrations_since_the_release_before_only_add_what_its_programs_do_not_notice(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/keys.db")
    with engine.begin() as connection:
        upgrade(connection, PREVIOUS)
        before = described(connection)
        upgrade(connection)
        after = described(connection)
    engine.dispose()
    assert before.keys() <= after.keys()
    for table in before.keys() - {"alembic_version"}:
        old, new = before[table]["columns"], after[table]["columns"]
        assert {name: repr(column) for name, column in new.items() if name in old} == {
            name: repr(column) for name, column in old.items()
        }
        for name in new.keys() - old.keys():
            assert new[name]["nullable"] or new[name]["default"] is not None, f"{table}.{name}: INSERTs would fail"
        assert before[table]["constraints"] == after[table]["constraints"]


@pytest.fixture
async def previous_url(empty_postgres_url: str) -> str:
    """A database that the release before has made."""
    database = Database(empty_postgres_url, busy_timeout_seconds=5.0)
    async with database.write_transaction("the release before") as connection:
        await connection.run_sync(upgrade, PREVIOUS)
    await database.close()
    return empty_postgres_url


@pytest.fixture
async def previous(previous_url: str) -> AsyncIterator[SqlStore]:
    store = SqlStore(previous_url)
    await store.open()
    yield store
    await store.close()


async def use(store: SqlStore) -> None:
    """Write and read every kind of record that the request path does."""
    assert await store.add_account(ACME, logged())
    record = stored_key(1)
    await store.add_key(record, logged())
    assert await store.key(None, record.id) is not None
    row = UsageRow(UsageKey(record.id, 0, "GET /", "allowed", 200), 1.0, (1,) * LATENCIES)
    await store.add_usage(UsageBatch([row], ()))
    assert [each.count for each in await store.usage(record.id, DAY, 0, 1)] == [LATENCIES]
    await store.add_quota_units([(record.id, 100, 3)], 8_640_000.0)
    await store.add_quota_units([(record.id, 100, 4)], 8_640_000.0)
    assert (await store.quota_units(record.id, 100)).units == 7
    assert (await store.audit_head()).sequence == 2


async def test_this_release_serves_on_the_schema_of_the_release_before(
    previous: SqlStore, previous_url: str, postgres_server: Server
) -> None:
    await use(previous)
    name = previous_url.rpartition("/")[2]
    assert postgres_server.execute("SELECT version_num FROM alembic_version", database=name) == [[PREVIOUS]]
    (finding,) = [
        it for it in await database_findings(previous_url, {"standard", "enterprise"}) if it.subject == "database"
    ]
    assert (finding.status.value, finding.way_out) == ("warning", "run `machpay-gateway migrate`")
    assert f"has schema revision {PREVIOUS} and 1 account; this version works with it" in finding.message


async def test_without_numbers_of_batches_units_are_counted_all_the_same(previous: SqlStore) -> None:
    assert await previous.add_quota_units([("key_1", 100, 3)], 8_640_000.0) == 0
    assert await previous.quota_units("key_1", 100) == StoredUnits(3, 0)


async def test_a_worker_serves_on_while_another_process_migrates(previous: SqlStore, previous_url: str) -> None:
    migrating = SqlStore(previous_url)
    assert await migrating.migrate() == PREVIOUS
    await use(previous)
    await migrating.open()
    assert (await migrating.quota_units("key_1", 0)).batch == 0
    await migrating.add_quota_units([("key_1", 100, 3)], 8_640_000.0)
    assert (await migrating.quota_units("key_1", 0)).batch == 8_640_000_000
    await migrating.close()


async def test_programs_of_the_release_before_still_find_their_revision_after_an_upgrade(
    previous_url: str, postgres_server: Server
) -> None:
    store = SqlStore(previous_url)
    assert await store.migrate() == PREVIOUS
    assert await store.migrate() == HEAD
    await store.close()
    name = previous_url.rpartition("/")[2]
    assert postgres_server.execute(
        "SELECT version_num FROM alembic_version", "SELECT revision, oldest FROM schema_version", database=name
    ) == [[PREVIOUS], [HEAD, PREVIOUS]]


@pytest.fixture(params=["sqlite", "postgresql"])
def migrated_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/keys.db"
    return str(request.getfixturevalue("postgres_url"))


async def migrate_to_the_next_release(url: str, oldest: str) -> None:
    """Do what a program of a later release would, whose schema programs of *oldest* and later can use."""
    store = SqlStore(url)
    await store.open()
    await store.close()
    database = Database(url, busy_timeout_seconds=5.0)
    async with database.write_transaction("the next release") as connection:
        for statement in (
            *NEXT,
            f"UPDATE schema_version SET revision = '9998', oldest = '{oldest}'",  # noqa: S608 - ours
            f"UPDATE alembic_version SET version_num = '{oldest}'",  # noqa: S608 - ours
        ):
            await connection.execute(text(statement))
    await database.close()


async def test_this_release_serves_on_the_schema_of_the_next_one(migrated_url: str) -> None:
    await migrate_to_the_next_release(migrated_url, HEAD)
    store = SqlStore(migrated_url)
    await store.open()
    await use(store)
    assert await store.add_account(Account("acct_new", "New", "standard", 200.0), logged())
    assert await store.migrate() == "9998"  # which it leaves alone
    await store.close()
    findings = await database_findings(migrated_url, {"standard", "enterprise"})
    (finding,) = [finding for finding in findings if finding.subject == "database"]
    assert (finding.status.value, finding.way_out) == ("warning", "upgrade machpay-gateway on this host too")
    assert f"has schema revision 9998 and 2 accounts; this version has revision {HEAD}" in finding.message


async def test_a_newer_schema_that_this_release_cannot_use_is_refused(migrated_url: str) -> None:
    await migrate_to_the_next_release(migrated_url, "9997")
    store = SqlStore(migrated_url)
    for attempt in (store.open, store.migrate):
        with pytest.raises(ConfigurationError, match=r"'9998'.*upgrade machpay-gateway"):
            await attempt()
    await store.close()


async def test_a_revision_that_an_older_program_has_set_since_counts(
    postgres_url: str, postgres_server: Server
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute("UPDATE alembic_version SET version_num = '0001'", database=name)
    store = SqlStore(postgres_url)
    with pytest.raises(ConfigurationError, match="at revision 0001 and this version needs"):
        await store.open()
    await store.close()
