import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from machpay_gateway.stores.migrations import upgrade
from machpay_gateway.stores.schema import HEAD
from machpay_gateway.stores.sql.engine import Database
from tests.cli.conftest import Invoke
from tests.postgres.fixtures import empty_postgres_url, postgres_server

__all__ = ["empty_postgres_url", "postgres_server"]


def executed(statement: str) -> None:
    with closing(sqlite3.connect("machpay.db")) as database, database:
        database.execute(statement)


async def made_by_the_first_version(url: str) -> None:
    database = Database(url, busy_timeout_seconds=5.0)
    async with database.write_transaction("the first version") as connection:
        await connection.run_sync(upgrade, "0001")
    await database.close()


@pytest.fixture
def server_url(empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MACHPAY_DATABASE", empty_postgres_url)
    return empty_postgres_url


def test_a_database_server_is_migrated_once_and_then_up_to_date(invoke: Invoke, server_url: str) -> None:
    assert server_url
    refused = invoke("accounts", "list")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "is at revision none and this version needs" in refused.stderr

    first, again = invoke("migrate"), invoke("migrate")

    assert (first.exit_code, again.exit_code) == (0, 0)
    assert first.stdout == f"The database's schema went from revision none to {HEAD}.\n"
    assert again.stdout == f"The database's schema is at revision {HEAD} already.\n"
    assert json.loads(invoke("migrate", "--json").stdout) == {"object": "migration", "from": HEAD, "to": HEAD}
    assert invoke("accounts", "list").exit_code == 0


def test_an_older_schema_on_a_server_names_migrate_as_the_way_out(invoke: Invoke, server_url: str) -> None:
    asyncio.run(made_by_the_first_version(server_url))

    refused, checked = invoke("keys", "list"), json.loads(invoke("doctor", "--json").stdout)

    assert refused.exit_code == 1
    assert refused.stderr.endswith(f"at revision 0001 and this version needs {HEAD}: run `machpay-gateway migrate`\n")
    (finding,) = [finding for finding in checked["findings"] if finding["subject"] == "database"]
    assert (finding["status"], finding["way_out"]) == ("wrong", "run `machpay-gateway migrate`")
    assert json.loads(invoke("migrate", "--json").stdout) == {"object": "migration", "from": "0001", "to": HEAD}
    assert invoke("keys", "list").exit_code == 0


def test_init_makes_everything_on_a_database_server(invoke: Invoke, server_url: str) -> None:
    assert server_url
    assert invoke("init").exit_code == 0
    checked = json.loads(invoke("doctor", "--json").stdout)
    assert [finding["status"] for finding in checked["findings"] if finding["subject"] == "database"] == ["ok"]
    assert len(json.loads(invoke("audit", "list", "--json").stdout)["data"]) == 2


@pytest.mark.parametrize(
    "statement, message",
    [
        ("UPDATE alembic_version SET version_num = '9999'", "upgrade machpay-gateway, or restore the backup"),
        ("DROP TABLE alembic_version", "has a table 'accounts' that is not ours"),
    ],
)
def test_a_newer_and_a_foreign_schema_are_refused_and_left_alone(invoke: Invoke, statement: str, message: str) -> None:
    executed(statement)
    before = Path("machpay.db").read_bytes()

    result = invoke("migrate")

    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert Path("machpay.db").read_bytes() == before


def test_a_file_that_it_makes_is_for_its_owner_only(invoke_bare: Invoke) -> None:
    assert invoke_bare("migrate").exit_code == 0
    assert Path("machpay.db").stat().st_mode & 0o777 == 0o600


def test_a_database_in_memory_has_nothing_to_migrate(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHPAY_DATABASE", "memory://")

    result = invoke("migrate")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: memory:// keeps nothing: name a database")
