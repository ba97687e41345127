"""The audit log, on every store: what is written beside a change, and what is found when somebody meddled."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.audit import Actor, AuditFilter, AuditHead, Change, verify_chain
from machpay_gateway.stores.sql import SqlStore
from tests.keyrings import ACME, GLOBEX, NOW, stored_key

Store = SqlStore
OPERATOR = Actor("operator", "ops", "192.0.2.1", "req-1")


def change(number: int, account_id: str = ACME.id) -> Change:
    return Change(NOW + number, OPERATOR, "key.update", account_id, f"key_{number}", {"name": "a"}, {"name": "ü☃"})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.db"


@pytest.fixture
async def store(unopened_store: Store) -> AsyncIterator[Store]:
    store = unopened_store
    await store.open()
    await store.add_account(ACME, change(0))
    await store.add_account(GLOBEX, change(1, GLOBEX.id))
    yield store
    await store.close()


async def test_a_new_log_is_empty_and_whole(unopened_store: Store) -> None:
    await unopened_store.open()
    assert await unopened_store.audit_head() == AuditHead(0, bytes(32))
    assert list(await unopened_store.audit_rows(0)) == []
    await unopened_store.close()


async def test_each_change_is_a_row_that_tells_who_where_and_what(store: Store) -> None:
    await store.add_key(stored_key(2), change(2))
    assert await store.replace_key(replace(stored_key(2), version=2), change(3))
    *_, row = await store.audit_rows(0)
    assert (row.sequence, row.at, row.action, row.account_id, row.object_id) == (
        4,
        NOW + 3,
        "key.update",
        ACME.id,
        "key_3",
    )
    assert (row.actor_kind, row.actor_id, row.address, row.request_id) == ("operator", "ops", "192.0.2.1", "req-1")
    assert (row.before, row.after) == ('{"name":"a"}', '{"name":"ü☃"}')
    assert await store.audit_head() == AuditHead(4, row.digest)


async def test_what_was_not_changed_is_not_in_the_log(store: Store) -> None:
    await store.add_key(stored_key(2), change(2))
    head = await store.audit_head()
    assert not await store.add_account(ACME, change(3))
    assert not await store.replace_key(replace(stored_key(2), version=9), change(3))
    with pytest.raises(InputError):
        await store.add_key(stored_key(2), change(3))
    assert await store.audit_head() == head


async def test_a_page_is_the_accounts_own_newest_first(store: Store) -> None:
    for number in range(2, 6):
        await store.add_key(stored_key(number), change(number))

    async def numbers(account_id: str | None, before: int | None = None, limit: int = 100) -> list[int]:
        return [row.sequence for row in await store.audit_page(account_id, before=before, limit=limit)]

    assert await numbers(ACME.id) == [6, 5, 4, 3, 1]
    assert await numbers(ACME.id, before=5, limit=2) == [4, 3]
    assert await numbers(GLOBEX.id) == [2]
    assert await numbers(None) == [6, 5, 4, 3, 2, 1]
    assert await numbers("acct_unknown") == []


@pytest.mark.parametrize(
    "chosen, numbers",
    [
        ({"action": "key.create"}, [3]),
        ({"action": "key."}, [4, 3, 1]),
        ({"action": "key"}, []),  # a beginning ends with a dot
        ({"action": "%."}, []),
        ({"actor_id": "ada"}, [4]),
        ({"object_id": "key_3"}, [5, 3]),
        ({"object_id": "key_3", "action": "keys_of.other"}, [5]),
        ({"since": NOW + 1}, []),
        ({"since": 400.0}, [5, 4, 1]),
        ({"until": 400.0}, [3]),  # its own moment is left out
        ({"since": 300.0, "until": 400.0}, [3]),
        ({"actor_id": "nobody"}, []),
    ],
)
async def test_rows_are_picked_alike_by_every_store(store: Store, chosen: dict[str, Any], numbers: list[int]) -> None:
    for at, actor, action, name in (
        (300.0, "bob", "key.create", "key_3"), (400.0, "ada", "key.rotate", "key_4"),
        (500.0, "bob", "keys_of.other", "key_3"),
    ):  # fmt: skip
        event = Change(at, Actor("user", actor), action, ACME.id, name, {}, {})
        assert await store.add_change(event, str(at).encode())
    picked = AuditFilter(**chosen)
    assert [row.sequence for row in await store.audit_page(ACME.id, filters=picked)] == numbers
    assert [row.sequence for row in await store.audit_page(ACME.id, filters=picked, before=4)] == [
        number for number in numbers if number < 4
    ]
    assert list(await store.audit_page(GLOBEX.id, filters=replace(picked, object_id="key_3"))) == []


async def test_what_was_told_within_a_day_is_not_told_again(store: Store) -> None:
    added_changes = [await store.add_change(change(at), b"name") for at in (0, 1, 86_400, 86_402)]
    assert added_changes == [True, False, False, True]
    assert await store.add_change(change(86_402), b"another name")
    assert (await store.audit_head()).sequence == 2 + 3


async def test_of_many_changes_at_once_each_has_its_place_in_the_chain(store: Store) -> None:
    added = [store.add_key(stored_key(number), change(number)) for number in range(2, 30)]
    added_changes = [store.add_change(change(number), bytes([number])) for number in range(30, 40)]
    await asyncio.gather(*added, *added_changes)
    head, broken = verify_chain(AuditHead(), await store.audit_rows(0))
    assert broken is None
    assert head == await store.audit_head()
    assert head.sequence == 40


@pytest.mark.parametrize(
    "meddled, problem",
    [
        ("UPDATE audit_log SET actor_id = 'somebody' WHERE sequence = 3", "row 3 was changed"),
        ("UPDATE audit_log SET after = '{}' WHERE sequence = 4", "row 4 was changed"),
        ("UPDATE audit_log SET at = at + 1 WHERE sequence = 1", "row 1 was changed"),
        ("UPDATE audit_log SET request_id = x'ff' WHERE sequence = 2", "row 2 was changed"),
        ("UPDATE audit_log SET digest = x'00' WHERE sequence = 5", "row 5 was changed"),
        ("DELETE FROM audit_log WHERE sequence = 3", "row 3 is missing"),
        ("DELETE FROM audit_log WHERE sequence = 1", "row 1 is missing"),
    ],
)
async def test_a_row_that_was_changed_or_is_missing_is_found(file: Path, meddled: str, problem: str) -> None:
    store = SqlStore(f"sqlite:///{file}")
    await store.open()
    await store.add_account(ACME, change(1))
    for number in range(2, 7):
        await store.add_key(stored_key(number), change(number))
    assert verify_chain(AuditHead(), await store.audit_rows(0))[1] is None
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute(meddled).rowcount == 1
        connection.commit()
    assert verify_chain(AuditHead(), await store.audit_rows(0))[1] == problem
    await store.close()
