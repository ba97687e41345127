"""The units of quotas, on every store: added up by day, in batches whose numbers tell what a sum has."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from machpay_gateway.core.limits.calendar import DAY_SECONDS
from machpay_gateway.core.limits.ports import StoredUnits
from machpay_gateway.stores.sql import SqlStore

NOW = 100 * DAY_SECONDS + 0.5


@pytest.fixture
async def store(unopened_store: SqlStore) -> AsyncIterator[SqlStore]:
    store = unopened_store
    await store.open()
    yield store
    await store.close()


async def test_a_sum_tells_of_the_newest_batch_that_it_has(store: SqlStore) -> None:
    assert await store.quota_units("key_1", 0) == StoredUnits(0, 0)
    first = await store.add_quota_units([("key_1", 99, 2), ("key_1", 100, 3), ("key_2", 100, 4)], NOW)
    assert first == NOW * 1000
    assert await store.quota_units("key_1", 0) == StoredUnits(5, first)
    assert await store.quota_units("key_1", 100) == StoredUnits(3, first)
    second = await store.add_quota_units([("key_2", 100, 1)], NOW)
    assert second > first
    assert await store.quota_units("key_1", 100) == StoredUnits(3, second)


async def test_numbers_grow_also_when_clocks_step_back_or_a_database_is_restored(store: SqlStore) -> None:
    first = await store.add_quota_units([("key_1", 100, 1)], NOW)
    assert await store.add_quota_units([("key_1", 100, 1)], NOW - 60) > first
    assert await store.add_quota_units([("key_1", 100, 1)], NOW + 60) >= (NOW + 60) * 1000


async def test_no_two_batches_have_one_number(store: SqlStore) -> None:
    numbers = await asyncio.gather(
        *(store.add_quota_units([(f"key_{at % 3}", 100, 1), ("acc_1", 100, 1)], NOW) for at in range(20))
    )
    assert len(set(numbers)) == 20
    assert await store.quota_units("acc_1", 100) == StoredUnits(20, max(numbers))


async def test_no_sum_lacks_a_batch_until_the_one_that_it_tells_of(store: SqlStore) -> None:
    sums: list[StoredUnits] = []

    async def read() -> None:
        while not sums or sums[-1].units < 20:
            sums.append(await store.quota_units("acc_1", 100))

    reading = asyncio.create_task(read())
    numbers = sorted(await asyncio.gather(*(store.add_quota_units([("acc_1", 100, 1)], NOW) for _ in range(20))))
    await reading
    for units, batch in sums:
        assert units == sum(number <= batch for number in numbers)


async def test_units_of_three_months_ago_are_dropped_and_the_numbers_go_on(store: SqlStore) -> None:
    first = await store.add_quota_units([("key_1", 10, 1), ("key_1", 100, 2)], NOW)
    await store.drop_quota_units(NOW)
    assert await store.quota_units("key_1", 0) == StoredUnits(2, first)
    assert await store.add_quota_units([("key_1", 100, 1)], NOW) > first
