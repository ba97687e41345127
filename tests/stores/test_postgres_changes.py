"""Changes at once on PostgreSQL, where nobody waits for the one writer that SQLite has."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import asyncpg
import pytest

from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.keys.audit import AuditHead, verify_chain
from machpay_gateway.stores.sql import SqlStore
from tests.keyrings import ACME, GLOBEX, logged, stored_key
from tests.postgres.servers import Server

OTHERS_WAIT = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.fixture
async def stores(postgres_url: str) -> AsyncIterator[Sequence[SqlStore]]:
    """Two, as two processes have them."""
    stores = [SqlStore(postgres_url) for _ in range(2)]
    for store in stores:
        await store.open()
    await stores[0].add_account(ACME, logged())
    yield stores
    for store in stores:
        await store.close()


@pytest.fixture
async def lock(postgres_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that keeps every change waiting until it says COMMIT."""
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("BEGIN; SELECT 1 FROM audit_head FOR UPDATE")
    yield connection
    await connection.close()


async def others_wait(connection: asyncpg.Connection, count: int) -> None:
    while await connection.fetchval(OTHERS_WAIT) < count:  # noqa: ASYNC110 - the server has no event to tell of it
        await asyncio.sleep(0.01)


async def test_a_key_that_is_added_while_its_accounts_tier_changes_does_not_miss_the_change(
    stores: Sequence[SqlStore], lock: asyncpg.Connection
) -> None:
    change = replace(logged(), object_id=ACME.id, action="account.set_tier")
    adding = asyncio.create_task(stores[0].add_key(stored_key(1), logged()))
    await others_wait(lock, 1)
    raising = asyncio.create_task(stores[1].set_tier(ACME, "enterprise", change))
    await others_wait(lock, 2)
    await lock.execute("COMMIT")
    await adding
    (raised,) = await raising or ()
    (record,) = await stores[0].find_by_ids(["key_1"])
    assert (record.tier, record.account_version) == ("enterprise", raised.version)


async def test_of_two_changes_of_one_version_that_wait_for_each_other_one_is_made(
    stores: Sequence[SqlStore], lock: asyncpg.Connection
) -> None:
    await lock.execute("COMMIT")
    await stores[0].add_key(stored_key(1), logged())
    await lock.execute("BEGIN; SELECT 1 FROM audit_head FOR UPDATE")
    changes = [
        asyncio.create_task(store.replace_key(replace(stored_key(1), version=2, name=f"{number}"), logged()))
        for number, store in enumerate(stores)
    ]
    await others_wait(lock, 2)
    await lock.execute("COMMIT")
    assert sorted(await asyncio.gather(*changes)) == [False, True]
    assert (await stores[0].audit_head()).sequence == 3


async def test_changes_of_every_kind_at_once_end_without_a_deadlock_and_in_one_chain(
    stores: Sequence[SqlStore],
) -> None:
    for number in range(1, 6):
        await stores[0].add_key(stored_key(number), logged())

    async def change(store: SqlStore, number: int) -> None:
        if store is stores[0]:
            await store.add_key(stored_key(10 + number), logged())
        for _ in range(5):
            stored = await store.key(None, f"key_{number}")
            assert stored is not None
            await store.replace_key(replace(stored, version=stored.version + 1, name="again"), logged())
            account = await store.account(ACME.id)
            assert account is not None
            await store.set_tier(account, {"standard": "enterprise"}.get(account.tier, "standard"), logged())

    await asyncio.gather(*(change(store, number) for store in stores for number in range(1, 6)))
    head, broken = verify_chain(AuditHead(), await stores[0].audit_rows(0))
    assert (head, broken) == (await stores[1].audit_head(), None)
    tiers = [record.tier for record in await stores[0].keys(None)]
    account = await stores[0].account(ACME.id)
    assert account is not None
    assert tiers == [account.tier] * 10


async def test_an_administrators_isolation_level_is_not_ours(
    postgres_server: Server, postgres_url: str, stores: Sequence[SqlStore]
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    fresh = SqlStore(postgres_url)
    await asyncio.gather(*(fresh.add_key(stored_key(number), logged()) for number in range(1, 30)))
    assert (await stores[0].audit_head()).sequence == 30
    await fresh.close()


async def test_damage_is_not_told_as_somebodys_mistake(
    postgres_server: Server, postgres_url: str, stores: Sequence[SqlStore]
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute("UPDATE audit_head SET sequence = 0", database=name)  # as when a part was restored
    with pytest.raises(StoreUnavailable):
        await stores[0].add_key(stored_key(1), logged())
    with pytest.raises(StoreUnavailable):
        await stores[0].add_account(GLOBEX, logged())
    assert list(await stores[0].keys(None)) == []
    assert list(await stores[0].accounts()) == [ACME]
