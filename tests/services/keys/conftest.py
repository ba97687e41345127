from collections.abc import AsyncIterator

import pytest

from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.services.keys import Keys
from machpay_gateway.stores.sql import SqlStore
from tests.clocks import FixedClock
from tests.keyrings import ACME, GLOBEX, NOW, SCOPES, Announced, counted_entropy, logged, noting
from tests.postgres.fixtures import postgres_server, postgres_url
from tests.stores_under_test import unopened_store

__all__ = ["postgres_server", "postgres_url", "unopened_store"]


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def announced() -> Announced:
    return []


@pytest.fixture
async def store(unopened_store: SqlStore) -> AsyncIterator[SqlStore]:
    store = unopened_store
    await store.open()
    await store.add_account(ACME, logged())
    await store.add_account(GLOBEX, logged())
    yield store
    await store.close()


@pytest.fixture
def keys(store: SqlStore, clock: FixedClock, announced: Announced) -> Keys:
    return Keys(store, scopes=SCOPES, tiers=TIERS, clock=clock, entropy=counted_entropy(), invalidate=noting(announced))


@pytest.fixture
async def created(keys: Keys) -> tuple[KeyRecord, str]:
    return await keys.create(ACME.id, name="deploy", scopes=["skills:list"], environment="live")


@pytest.fixture
def key(created: tuple[KeyRecord, str]) -> KeyRecord:
    return created[0]
