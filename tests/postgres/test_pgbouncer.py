"""PgBouncer that gives each transaction any session of the server: statements of several workers share two sessions."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from machpay_gateway import Gateway
from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.keys.audit import AuditHead, verify_chain
from machpay_gateway.core.usage.counters import DAY, UsageBatch, UsageKey, UsageRow
from machpay_gateway.stores.schema import HEAD, LATENCIES
from machpay_gateway.stores.sql import SqlStore
from machpay_gateway.stores.sql.health_checks import database_findings
from tests.keyrings import ACME, logged, stored_key
from tests.postgres.pgbouncer import PROGRAM, SESSIONS, PgBouncer, running_pgbouncer
from tests.postgres.servers import Server
from tests.serving.processes import served
from tests.serving.test_lifecycle import ask, status

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")


@pytest.fixture(scope="module")
def pooler(postgres_server: Server) -> Iterator[PgBouncer]:
    with running_pgbouncer(postgres_server) as pooler:
        yield pooler


@pytest.fixture
async def stores(pooler: PgBouncer, postgres_url: str) -> AsyncIterator[list[SqlStore]]:
    """Three workers."""
    stores = [SqlStore(pooler.url(postgres_url)) for _ in range(3)]
    for store in stores:
        await store.open()
    yield stores
    for store in stores:
        await store.close()


async def test_workers_read_and_write_at_once_over_fewer_sessions(
    stores: list[SqlStore], postgres_server: Server, postgres_url: str
) -> None:
    assert await stores[0].add_account(ACME, logged())
    for number in range(1, 13):
        await stores[number % 3].add_key(stored_key(number), logged())

    async def work(store: SqlStore, number: int) -> None:
        key = stored_key(number)
        for turn in range(4):
            assert await store.find_by_digest(key.secrets[0].digest) is not None
            row = UsageRow(UsageKey(key.id, turn * 60, "GET /", "allowed", 200), 1.0, (1,) * LATENCIES)
            await store.add_usage(UsageBatch([row], ()))
            await store.add_quota_units([(key.id, 100, 1), ("acct_acme", 100, 1)], 8_640_000.0)
            assert await store.key(None, key.id) is not None
            assert await store.account(ACME.id) == ACME
        assert await store.replace_key(replace(key, version=2, name="changed"), logged())

    await asyncio.gather(*(work(store, number) for number in range(1, 13) for store in [stores[number % 3]]))
    assert (await stores[0].quota_units("acct_acme", 0)).units == 48
    for number in range(1, 13):
        assert sum(row.count for row in await stores[1].usage(f"key_{number}", DAY, 0, 1)) == 4 * LATENCIES
    assert verify_chain(AuditHead(), await stores[2].audit_rows(0)) == (await stores[2].audit_head(), None)
    name = postgres_url.rpartition("/")[2]
    sessions = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608 - a name of ours
    assert 1 <= int(postgres_server.execute(sessions)[0][0]) <= SESSIONS


async def test_a_statement_that_fails_leaves_its_session_usable(stores: list[SqlStore]) -> None:
    for store in stores:
        assert await store.add_account(Account("acct_same", "Same", "standard", 1.0), logged()) is (store is stores[0])
        assert await store.account("acct_same") is not None


async def test_processes_migrate_at_once(pooler: PgBouncer, empty_postgres_url: str) -> None:
    stores = [SqlStore(pooler.url(empty_postgres_url)) for _ in range(3)]
    revisions = []
    for store in stores:  # Alembic upgrades one database at a time in a process
        revisions.append(await store.migrate())
        await store.open()
        assert list(await store.accounts()) == []
        await store.close()
    assert revisions == [None, HEAD, HEAD]
    (finding,) = [
        it for it in await database_findings(pooler.url(empty_postgres_url), {"standard"}) if it.subject == "database"
    ]
    assert "there is no API key" in finding.message


async def test_a_pooler_that_was_away_is_used_again(postgres_server: Server, postgres_url: str) -> None:
    with running_pgbouncer(postgres_server) as own:
        store = SqlStore(own.url(postgres_url))
        await store.open()
        assert await asyncio.gather(*(store.account("acct_x") for _ in range(8))) == [None] * 8
        own.kill()
        own.start()
        assert await asyncio.gather(*(store.account("acct_x") for _ in range(8))) == [None] * 8
        await store.close()


async def test_no_pooler_is_seen_where_there_is_none(postgres_url: str, pooler: PgBouncer) -> None:
    for url, is_pooled in ((postgres_url, False), (pooler.url(postgres_url), True)):
        store = SqlStore(url)
        await store.open()
        assert store._database._is_pooled is is_pooled  # noqa: SLF001 - what it costs a round trip to be wrong about
        await store.close()


async def _key(url: str) -> str:
    async with Gateway(database=url) as gateway:
        account = await gateway.accounts.create("main", "standard")
        _, secret = await gateway.keys.create(account.id, name="k", scopes=["skills:execute"], environment="live")
        return secret


def test_a_gateway_serves_through_it(pooler: PgBouncer, postgres_url: str, tmp_path: Path) -> None:
    url = pooler.url(postgres_url)
    secret = asyncio.run(_key(url))
    with served(tmp_path, environ={"MACHPAY_DATABASE": url, "MACHPAY_SECRET_KEY": "k" * 40}) as gateway:
        for _ in range(12):
            assert status(ask(gateway, "/v1/x", f"Authorization: Bearer {secret}")) == 200
