import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from machpay_gateway.core.errors import InputError, StoreUnavailable
from machpay_gateway.core.keys.audit import Change
from machpay_gateway.core.keys.cap import KeyCap
from machpay_gateway.core.keys.idempotency import ResponseFactory
from machpay_gateway.core.keys.key import KeyRecord, KeyStatus
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.services.keys import Keys
from machpay_gateway.stores.sql import SqlStore
from tests.clocks import FixedClock
from tests.keyrings import ACME, GLOBEX, NOW, SCOPES, Announced, counted_entropy, noting


async def test_a_revocation_is_final_and_repeating_it_changes_nothing(
    keys: Keys, created: tuple[KeyRecord, str], clock: FixedClock, announced: Announced
) -> None:
    key, secret = created
    revoked = await keys.revoke(ACME.id, key.id)
    assert revoked == replace(key, version=2, revoked_at=NOW)
    clock.now += 60
    assert await keys.revoke(ACME.id, key.id) == revoked
    assert announced == [(key.id, 2, ACME.id)]
    with pytest.raises(InputError, match="revoked, which is final"):
        await keys.update(ACME.id, key.id, name="back again")
    with pytest.raises(InputError, match="revoked, which is final"):
        await keys.rotate(ACME.id, key.id)
    assert (await keys.inspect(secret)).key == revoked  # the record stays


USES: list[Callable[[Keys, str | None, str], Awaitable[object]]] = [
    lambda keys, account_id, key_id: keys.get(account_id, key_id),
    lambda keys, account_id, key_id: keys.update(account_id, key_id, name="taken over"),
    lambda keys, account_id, key_id: keys.rotate(account_id, key_id),
    lambda keys, account_id, key_id: keys.end_grace(account_id, key_id),
    lambda keys, account_id, key_id: keys.revoke(account_id, key_id),
]


@pytest.mark.parametrize("use", USES)
async def test_another_accounts_key_is_as_absent_as_one_that_never_was(
    keys: Keys, key: KeyRecord, use: Callable[[Keys, str | None, str], Awaitable[object]]
) -> None:
    assert await use(keys, GLOBEX.id, key.id) is None
    for never in ("key_unknown", "", "a\0b", "\ud800", "k" * 10_000):  # what a database would choke on included
        assert await use(keys, None, never) is None
    assert await keys.get(None, key.id) == key
    assert await use(keys, None, key.id) is not None  # an operator may


@pytest.mark.parametrize(
    "selection, expected",
    [
        ({}, [5, 4, 3, 2, 1, 0]),
        ({"limit": 2}, [5, 4]),
        ({"status": KeyStatus.ACTIVE}, [4, 1]),
        ({"status": KeyStatus.ACTIVE, "limit": 1}, [4]),
        ({"status": KeyStatus.REVOKED, "limit": 2}, [3, 0]),  # found behind a page that holds none of them
        ({"status": KeyStatus.EXPIRED, "limit": 1}, [5]),
        ({"environment": "test"}, [5, 3, 1]),
        ({"environment": "live", "status": KeyStatus.ACTIVE}, [4]),
    ],
)
async def test_keys_are_listed_newest_first_by_what_holds_now(
    keys: Keys, clock: FixedClock, selection: dict[str, Any], expected: list[int]
) -> None:
    made = []
    for number in range(6):
        clock.now = NOW + number
        expires_at = NOW + 50 if number % 3 == 2 else None
        environment = "test" if number % 2 else "live"
        record, _ = await keys.create(ACME.id, name="key", scopes=[], environment=environment, expires_at=expires_at)
        made.append(record.id)
        if number % 3 == 0:
            await keys.revoke(ACME.id, record.id)
    clock.now = NOW + 100
    listed = await keys.list(ACME.id, **selection)
    assert [made.index(record.id) for record in listed] == expected
    assert list(await keys.list(GLOBEX.id, **selection)) == []
    assert list(await keys.list(ACME.id, **selection, after="\0")) == []


async def test_a_change_is_announced_after_it_is_stored(store: SqlStore, key: KeyRecord, clock: FixedClock) -> None:
    order: list[object] = []

    class Recording(SqlStore):
        async def key(self, account_id: str | None, key_id: str) -> KeyRecord | None:
            return await store.key(account_id, key_id)

        async def replace_key(
            self,
            record: KeyRecord,
            change: Change,
            make_response: ResponseFactory | None = None,
            *,
            cap: KeyCap | None = None,
        ) -> bool:
            stored = await store.replace_key(record, change, make_response, cap=cap)
            order.append("stored")
            return stored

    recording = Keys(
        Recording("memory://"),
        scopes=SCOPES,
        tiers=TIERS,
        clock=clock,
        entropy=counted_entropy(),
        invalidate=noting(order),
    )
    await recording.revoke(None, key.id)
    assert order == ["stored", (key.id, 2, ACME.id)]


async def test_of_two_updates_at_once_both_land_with_a_version_each(
    store: SqlStore,
    keys: Keys,
    key: KeyRecord,
    announced: Announced,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both_have_read, read, reads = asyncio.Barrier(2), store.key, iter(range(100))

    async def key_read_together(account_id: str | None, key_id: str) -> KeyRecord | None:
        record = await read(account_id, key_id)
        if next(reads) < 2:  # the first read of each: so both start from the same version
            await both_have_read.wait()
        return record

    monkeypatch.setattr(store, "key", key_read_together)
    await asyncio.gather(
        keys.update(ACME.id, key.id, name="renamed"), keys.update(ACME.id, key.id, metadata={"team": "ops"})
    )
    monkeypatch.undo()
    assert await keys.get(ACME.id, key.id) == replace(key, name="renamed", metadata={"team": "ops"}, version=3)
    assert sorted(announced) == [(key.id, 2, ACME.id), (key.id, 3, ACME.id)]


async def test_a_change_that_never_gets_its_turn_ends_as_unavailable(
    store: SqlStore, keys: Keys, key: KeyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def somebody_was_quicker(_record: KeyRecord, change: Change, _keep: None) -> bool:
        return change.at < 0

    monkeypatch.setattr(store, "replace_key", somebody_was_quicker)
    with pytest.raises(StoreUnavailable, match="update of key key_"):
        await keys.revoke(ACME.id, key.id)
