"""The cap on working keys, on every store."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from machpay_gateway.core.errors import KeyLimitReached
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.limits.rate import TIERS, Tier
from machpay_gateway.services.keys import Keys
from machpay_gateway.stores.sql import SqlStore
from tests.clocks import FixedClock
from tests.keyrings import ACME, GLOBEX, NOW, SCOPES, counted_entropy, logged, noting
from tests.prepared import new_sqlite

CAPPED = {
    "test": Tier("100/minute", 5, max_keys=2),
    "standard": Tier("1000/minute", 50, max_keys=3),
    "enterprise": Tier("10000/minute", 500, max_keys=5),
    "unlimited": Tier("10000/minute", 500),
}
KeysOf = Callable[[Mapping[str, Tier]], Keys]


@pytest.fixture
def keys_of(store: SqlStore, clock: FixedClock) -> KeysOf:
    entropy = counted_entropy()
    return lambda tiers: Keys(store, scopes=SCOPES, tiers=tiers, clock=clock, entropy=entropy, invalidate=noting([]))


@pytest.fixture
def keys(keys_of: KeysOf) -> Keys:
    return keys_of(CAPPED)


async def made(keys: Keys, number: int, account_id: str = ACME.id, **settings: Any) -> list[KeyRecord]:  # noqa: ANN401 - a key's
    defaults: dict[str, Any] = {"name": "deploy", "scopes": [], "environment": "live"}
    return [(await keys.create(account_id, **(defaults | settings)))[0] for _ in range(number)]


async def test_an_account_has_at_most_as_many_working_keys_as_its_tier_allows(keys: Keys, store: SqlStore) -> None:
    first, *_ = await made(keys, 3)
    head = await store.audit_head()
    with pytest.raises(KeyLimitReached) as refused:
        await made(keys, 1)
    way_out = "revoke a key, or ask for a higher tier."
    assert str(refused.value) == f"The account has 3 working live keys, and its tier standard allows 3: {way_out}"
    assert len(await keys.list(ACME.id)) == 3
    assert await store.audit_head() == head  # nothing of it is in the log
    await made(keys, 3, GLOBEX.id)  # another account's count for themselves
    await made(keys, 2, environment="test")  # and so do those of another environment
    with pytest.raises(KeyLimitReached, match="2 working test keys, and its tier test allows 2"):
        await made(keys, 1, environment="test")
    await keys.revoke(ACME.id, first.id)
    await made(keys, 1)


async def test_an_expired_key_makes_room_and_works_again_only_where_there_is_some(
    keys: Keys, clock: FixedClock
) -> None:
    (brief,) = await made(keys, 1, expires_at=NOW + 60)
    await made(keys, 2)
    clock.now = NOW + 60
    (last,) = await made(keys, 1)
    for expires_at in (None, NOW + 120):
        with pytest.raises(KeyLimitReached, match="has 3 working live keys"):
            await keys.update(ACME.id, brief.id, expires_at=expires_at)
    renamed = await keys.update(ACME.id, brief.id, name="renamed")  # it stays expired
    assert renamed is not None
    await keys.revoke(ACME.id, last.id)
    revived = await keys.update(ACME.id, brief.id, expires_at=None)
    assert revived is not None
    assert revived.expires_at is None


async def test_no_change_of_a_working_key_counts_as_a_new_one(keys: Keys, clock: FixedClock) -> None:
    (first, *_) = await made(keys, 3, expires_at=NOW + 60)
    clock.now = NOW + 1
    assert await keys.rotate(ACME.id, first.id) is not None
    assert await keys.update(ACME.id, first.id, name="renamed", expires_at=NOW + 120, owner="a") is not None
    assert await keys.end_grace(ACME.id, first.id) is not None
    assert await keys.update(ACME.id, first.id, own_tier="enterprise") is not None
    with pytest.raises(KeyLimitReached, match="its tier standard allows 3"):  # whatever tiers its keys have
        await made(keys, 1)


async def test_an_account_above_a_lowered_cap_keeps_its_keys_and_creates_none(keys: Keys, store: SqlStore) -> None:
    await store.set_tier(ACME, "enterprise", logged())
    records = await made(keys, 5)
    account = await store.account(ACME.id)
    assert account is not None
    await store.set_tier(account, "standard", logged())
    assert [each.status(NOW) for each in await keys.list(ACME.id)] == ["active"] * 5
    assert await keys.update(ACME.id, records[0].id, name="renamed") is not None
    assert await keys.rotate(ACME.id, records[0].id) is not None
    for left in (4, 3):
        await keys.revoke(ACME.id, records[left].id)
        with pytest.raises(KeyLimitReached, match=f"has {left} working live keys, and its tier standard allows 3"):
            await made(keys, 1)
    await keys.revoke(ACME.id, records[2].id)
    await made(keys, 1)


async def test_a_tier_that_is_not_configured_allows_the_least_of_any(keys: Keys, store: SqlStore) -> None:
    await store.set_tier(ACME, "gone", logged())
    await made(keys, 2)
    with pytest.raises(KeyLimitReached, match=r"its tier gone \(unknown\) allows 2"):
        await made(keys, 1)


async def test_without_a_cap_there_is_none(keys: Keys, keys_of: KeysOf, store: SqlStore) -> None:
    await made(keys_of(TIERS), 8)
    await store.set_tier(ACME, "unlimited", logged())
    await made(keys, 8)


@pytest.mark.parametrize("free", [1, 2])
async def test_of_many_creations_at_once_exactly_those_succeed_that_there_is_room_for(keys: Keys, free: int) -> None:
    await made(keys, 3 - free)
    tried = await asyncio.gather(*(made(keys, 1) for _ in range(8)), return_exceptions=True)
    refused = [outcome for outcome in tried if isinstance(outcome, BaseException)]
    assert [type(each) for each in refused] == [KeyLimitReached] * (8 - free)
    assert len(await keys.list(ACME.id)) == 3


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_processes_that_create_at_once_share_the_room(
    database: str, tmp_path: Path, request: pytest.FixtureRequest, clock: FixedClock
) -> None:
    url = new_sqlite(tmp_path / "shared.db") if database == "sqlite" else request.getfixturevalue("postgres_url")
    stores = [SqlStore(url) for _ in range(4)]
    for store in stores:
        await store.open()
    await stores[0].add_account(ACME, logged())
    entropy = counted_entropy()
    workers = [
        Keys(store, scopes=SCOPES, tiers=CAPPED, clock=clock, entropy=entropy, invalidate=noting([]))
        for store in stores
    ]
    await made(workers[0], 2)
    tried = await asyncio.gather(*(made(keys, 1) for keys in workers * 2), return_exceptions=True)
    assert [type(each) for each in tried if isinstance(each, BaseException)] == [KeyLimitReached] * 7
    assert len(await workers[0].list(ACME.id)) == 3
    for store in stores:
        await store.close()


async def test_a_creation_and_a_revival_at_once_share_the_room(keys: Keys, clock: FixedClock) -> None:
    brief = await made(keys, 3, expires_at=NOW + 60)
    clock.now = NOW + 60
    await made(keys, 2)
    tried = await asyncio.gather(
        *(keys.update(ACME.id, each.id, expires_at=None) for each in brief),
        *(made(keys, 1) for _ in range(3)),
        return_exceptions=True,
    )
    assert [type(each) for each in tried if isinstance(each, BaseException)] == [KeyLimitReached] * 5
    assert [each.status(clock.now) for each in await keys.list(ACME.id)].count("active") == 3  # type: ignore[arg-type]  # an enum of strings
