"""How much of its connection pools a store reports to be in use."""

import asyncio
import time
from pathlib import Path

from machpay_gateway.core.pool_use import PoolUse
from machpay_gateway.stores.sql.engine import Database
from machpay_gateway.stores.sql.store import SqlStore
from tests.waiting import until


async def test_a_pool_tells_who_uses_it_and_who_waits(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/machpay.db", busy_timeout_seconds=1.0)
    await database.prepare()
    let_go = asyncio.Event()

    async def read() -> None:
        async with database.read_connection("a test"):
            await let_go.wait()

    readers = [asyncio.create_task(read()) for _ in range(7)]
    await until(lambda: database.pools["readers"] == PoolUse(in_use=4, size=4, waiting=3))
    let_go.set()
    await asyncio.gather(*readers)
    assert database.pools["readers"] == PoolUse(in_use=0, size=4, waiting=0)
    async with database.write_transaction("a test"):
        assert database.pools["writer"] == PoolUse(in_use=1, size=1, waiting=0)
    await database.close()


async def test_a_server_tells_its_time_and_has_one_pool(postgres_url: str) -> None:
    store = SqlStore(postgres_url)
    clock = await store.server_time()
    assert clock is not None
    assert abs(clock - time.time()) < 1.0  # on the same host
    assert store.pools == {"server": PoolUse(in_use=0, size=10, waiting=0)}
    await store.close()


async def test_sqlite_has_the_clock_of_its_host(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/machpay.db")
    assert await store.server_time() is None
    assert store.pools == {}
