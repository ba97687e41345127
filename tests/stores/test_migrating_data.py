"""A database that an older version has filled is brought forward with what is in it, on SQLite and on PostgreSQL."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, column, insert, inspect, table, text

from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.keys.audit import AuditHead, verify_chain
from machpay_gateway.core.keys.key import KeyRecord, SecretRecord
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.core.usage.counters import DAY, HOUR, MINUTE
from machpay_gateway.stores.migrations import upgrade
from machpay_gateway.stores.schema import HEAD, METADATA, REVISIONS
from machpay_gateway.stores.sql import SqlStore
from machpay_gateway.stores.sql.engine import Database
from tests.keyrings import logged
from tests.postgres.servers import Server

ACME = Account("acct_acme", "Acme", "enterprise", 100.0)
KEY = KeyRecord(
    id="key_1",
    account_id=ACME.id,
    name="Prüfschlüssel",
    environment="live",
    tier="enterprise",
    account_tier="enterprise",
    scopes=Scopes(frozenset({"skills:list"})),
    allowed_ips=("203.0.113.0/24",),
    created_at=1000.5,
    secrets=(SecretRecord(b"d" * 32, "sk_live_…0001", 1000.5),),
    version=4,
    last_rotated_at=1000.5,
    metadata={"team": "ops"},
)
COUNTED = {
    "subject": "key_1",
    "start": 0,
    "route": "GET /v1/skills",
    "outcome": "allowed",
    "status": 200,
    "seconds": 1.5,
    **{f"latency_{number:02}": number for number in range(14)},
}
# As the versions wrote them: later ones may have other columns, so `schema` is not asked.
ROWS: list[tuple[str, dict[str, Any]]] = [
    ("accounts", {"id": ACME.id, "name": "Acme", "tier": "enterprise", "created_at": 100.0}),
    (
        "keys",
        {
            "id": "key_1",
            "account_id": ACME.id,
            "name": KEY.name,
            "environment": "live",
            "version": 4,
            "scopes": '["skills:list"]',
            "allowed_ips": '["203.0.113.0/24"]',
            "metadata": '{"team":"ops"}',
            "created_at": 1000.5,
            "changed_at": 1000.5,
            "last_rotated_at": 1000.5,
        },
    ),
    (
        "key_secrets",
        {"digest": b"d" * 32, "key_id": "key_1", "position": 0, "masked": "sk_live_…0001", "created_at": 1000.5},
    ),
    ("kept_answers", {"name": b"n", "request": b"r", "sealed": b"s", "at": 1000.5}),
    ("secret_uses", {"digest": b"d" * 32, "key_id": "key_1", "last_used_at": 1100.5}),
    *((f"usage_{length}", COUNTED) for length in ("minutes", "hours", "days")),
    ("signing_keys", {"kid": "k", "public": b"{}", "sealed": b"s", "created_at": 1.5, "signs_from": 2.5}),
    ("users", {"id": "user_1", "account_id": ACME.id, "email": "ada@example.org", "created_at": 1.5}),
    ("sign_ins", {"digest": b"s" * 32, "user_id": "user_1", "created_at": 1.5, "expires_at": 9e9}),
    ("familiar_blocks", {"user_id": "user_1", "block": "192.0.2.1", "seen_at": 1.5}),
    (
        "oauth_clients",
        {
            "id": "app_1",
            "account_id": ACME.id,
            "name": "An app",
            "environment": "live",
            "redirect_uris": '["https://app.example.org/cb"]',
            "scopes": '["skills:list"]',
            "grant_types": '["authorization_code","refresh_token"]',
            "is_public": False,
            "requires_pkce": True,
            "binds_tokens": False,
            "version": 3,
            "created_at": 1.5,
        },
    ),
    (
        "oauth_client_secrets",
        {"digest": b"c" * 32, "client_id": "app_1", "position": 0, "masked": "cs_mp1_…0001", "created_at": 1.5},
    ),
    (
        "oauth_grants",
        {
            "id": "grant_1",
            "client_id": "app_1",
            "holder_id": "user_1",
            "user_id": "user_1",
            "account_id": ACME.id,
            "scopes": '["skills:list"]',
            "version": 4,
            "valid_from": 1,
            "created_at": 1.5,
            "changed_at": 1.5,
        },
    ),
    (
        "token_families",
        {
            "id": "family_1",
            "grant_id": "grant_1",
            "client_id": "app_1",
            "scopes": '["skills:list"]',
            "resources": '["https://api.example.com"]',
            "created_at": 1.5,
            "expires_at": 9e9,
        },
    ),
    (
        "authorization_codes",
        {
            "digest": b"a" * 32,
            "family_id": "family_1",
            "grant_id": "grant_1",
            "client_id": "app_1",
            "redirect_uri": "https://app.example.org/cb",
            "has_redirect": True,
            "scopes": '["skills:list"]',
            "resources": '["https://api.example.com"]',
            "created_at": 1.5,
            "expires_at": 61.5,
        },
    ),
    ("refresh_tokens", {"digest": b"r" * 32, "family_id": "family_1", "created_at": 1.5, "expires_at": 9e9}),
]
USED = {"digest": b"u" * 32, "family_id": "family_1", "created_at": 0.5, "expires_at": 9e9}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/keys.db"
    return str(request.getfixturevalue("empty_postgres_url"))


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database(url, busy_timeout_seconds=5.0)
    yield database
    await database.close()


def fill(connection: Connection, revision: str) -> None:
    upgrade(connection, revision)
    tables = inspect(connection).get_table_names()
    for name, row in ROWS:
        if name in tables:
            connection.execute(insert(table(name, *map(column, row))), row)
    if revision == "0005":
        row = USED | {"used_at": 1.5, "seed": b"e" * 32, "next_digest": b"r" * 32}
        connection.execute(insert(table("refresh_tokens", *map(column, row))), row)


@pytest.mark.parametrize("revision", REVISIONS)
async def test_what_an_older_version_has_stored_is_there_and_can_be_changed(
    url: str, database: Database, revision: str
) -> None:
    async with database.write_transaction("an older version") as connection:
        await connection.run_sync(fill, revision)
    store = SqlStore(url)
    assert await store.migrate() == revision
    await store.open()
    assert await store.account("Acme") == ACME
    assert await store.find_by_digest(b"d" * 32) == KEY
    await store.add_account(Account("acct_new", "New", "standard", 200.0), logged())
    raised = [(ACME.id, 2, ACME.id)] if revision < "0005" else [(ACME.id, 2, ACME.id), ("grant_1", 5, ACME.id)]
    assert await store.set_tier(ACME, "standard", logged()) == raised
    held = await store.refresh_token(b"r" * 32)
    assert (held is None) == (revision < "0005")
    assert held is None or (held.grant.scopes, held.family.resources) == (KEY.scopes, ("https://api.example.com",))
    used = await store.refresh_token(b"u" * 32)
    assert (used is None) == (revision != "0005")
    assert used is None or (used.token.used_at, used.token.seed, used.next_used_at) == (1.5, b"e" * 32, None)
    assert (await store.session(b"s" * 32, 2.0) is None) == (revision < "0005")
    assert (await store.client(None, "app_1") is None) == (revision < "0005")
    assert (await store.code(b"a" * 32) is None) == (revision < "0005")
    assert len(await store.signing_keys()) == (0 if revision < "0005" else 1)
    assert (await store.stored_response(b"n", 0) is None) == (revision < "0003")
    key = await store.key(ACME.id, "key_1")
    assert key is not None
    assert (key.last_used_at is None) == (revision < "0004")
    for bucket in (MINUTE, HOUR, DAY):
        assert sum(row.count for row in await store.usage("key_1", bucket, 0, 1)) == (0 if revision < "0004" else 91)
        if revision < "0007":  # which writes such rows itself
            assert await store.usage(ACME.id, bucket, 0, 1) == [
                replace(row, key=row.key._replace(subject=ACME.id)) for row in await store.usage("key_1", bucket, 0, 1)
            ]
    assert verify_chain(AuditHead(), await store.audit_rows(0)) == (await store.audit_head(), None)
    assert (await store.audit_head()).sequence == 2
    await store.close()


async def test_clients_that_registered_themselves_are_known_as_such_from_the_log(url: str, database: Database) -> None:
    def fill_with_log(connection: Connection) -> None:
        fill(connection, "0007")
        client = dict(next(row for name, row in ROWS if name == "oauth_clients"))
        named = {"sequence": 1, "actor_kind": "client", "object_id": "app_2"}
        created = {"at": 1.5, "actor_id": "", "action": "client.create", "account_id": ACME.id}
        contents = {"before": "{}", "after": "{}", "digest": b"d" * 32}
        by_operator = {"sequence": 2, "actor_kind": "operator", "object_id": "app_1"}
        connection.execute(insert(table("oauth_clients", *map(column, client))), client | {"id": "app_2"})
        for row in (named, by_operator):
            whole = created | contents | row
            connection.execute(insert(table("audit_log", *map(column, whole))), whole)
        grant = dict(next(row for name, row in ROWS if name == "oauth_grants"))
        own = grant | {"id": "grant_2", "client_id": "app_2", "holder_id": "app_2", "user_id": None}
        users = grant | {"id": "grant_3", "client_id": "app_2"}
        connection.execute(insert(table("oauth_grants", *map(column, grant))), [own, users])

    async with database.write_transaction("an older version") as connection:
        await connection.run_sync(fill_with_log)
    store = SqlStore(url)
    await store.migrate()
    await store.open()
    marked = {name: await store.client(None, name) for name in ("app_1", "app_2")}
    grants = [await store.grant(f"grant_{number}", 2.0) for number in (1, 2, 3)]
    await store.close()
    assert {name: client is not None and client.is_self_registered for name, client in marked.items()} == {
        "app_1": False,
        "app_2": True,
    }
    assert [grant is not None and grant.is_alive for grant in grants] == [True, False, True]  # its own has ended


async def test_the_migrated_schema_is_the_one_described_and_named_so(
    postgres_url: str, empty_postgres_url: str
) -> None:
    def described(connection: Connection) -> list[object]:
        METADATA.create_all(connection)
        return names(connection)

    def names(connection: Connection) -> list[object]:
        schema = inspect(connection)
        return [
            (
                table,
                schema.get_pk_constraint(table),
                schema.get_foreign_keys(table),
                schema.get_unique_constraints(table),
            )
            for table in sorted(METADATA.tables)
        ]

    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), METADATA))

    migrated, new = (Database(url, busy_timeout_seconds=5.0) for url in (postgres_url, empty_postgres_url))
    async with migrated.write_transaction("comparison") as old, new.write_transaction("comparison") as other:
        assert await old.run_sync(differences) == []
        assert await old.run_sync(names) == await other.run_sync(described)
    await migrated.close()
    await new.close()


async def test_a_start_on_a_server_refuses_another_versions_schema_and_changes_nothing(
    postgres_server: Server, postgres_url: str
) -> None:
    store = SqlStore(postgres_url)
    name = postgres_url.rpartition("/")[2]
    refusals = {"0001": "run `machpay-gateway migrate`", "9999": "upgrade machpay-gateway"}
    for revision, way_out in refusals.items():
        postgres_server.execute(f"UPDATE alembic_version SET version_num = '{revision}'", database=name)  # noqa: S608
        with pytest.raises(ConfigurationError, match=way_out):
            await store.open()
        assert postgres_server.execute("SELECT version_num FROM alembic_version", database=name) == [[revision]]
    with pytest.raises(ConfigurationError, match="upgrade machpay-gateway"):
        await store.migrate()
    await store.close()


async def test_an_upgrade_waits_longer_than_a_statement_may_take(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machpay_gateway.stores.sql.engine._STATEMENT_SECONDS", 0.1)
    store, database = SqlStore(empty_postgres_url), Database(empty_postgres_url, busy_timeout_seconds=5.0)
    async with database.upgrade_transaction("another process") as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(7813294456)"))
        migrating = asyncio.create_task(store.migrate())
        await connection.execute(text("SELECT pg_sleep(0.3)"))
        assert not migrating.done()
    assert await migrating is None
    await store.close()
    await database.close()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_processes_that_migrate_at_once_make_one_schema(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/keys.db" if database == "sqlite" else request.getfixturevalue("empty_postgres_url")
    program = f"""
import asyncio, sys
import machpay_gateway.stores.migrations
from machpay_gateway.stores.sql import SqlStore
async def start():
    store = SqlStore("{url}")
    print(await store.migrate())
    await store.close()
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(start())
"""
    started = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:  # all are told before any is waited for
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    revisions = sorted(process.communicate(timeout=60)[0].strip() for process in started)
    assert revisions == sorted([HEAD, HEAD, "None"])
    asyncio.run(_opened(url))


async def _opened(url: str) -> None:
    """Open a store, which refuses a schema that it does not know."""
    store = SqlStore(url)
    await store.open()
    await store.close()
