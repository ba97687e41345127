"""An answer is kept with the change that it tells of, or neither is there."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from machpay_gateway.core.errors import DuplicateRequest, InputError
from machpay_gateway.core.keys.idempotency import IDEMPOTENCY_SECONDS, ResponseFactory, StoredResponse
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.stores.sql import SqlStore
from tests.keyrings import ACME, NOW, logged, stored_key

Store = SqlStore
NAME = b"n" * 32


@pytest.fixture
async def store(unopened_store: Store) -> AsyncIterator[Store]:
    store = unopened_store
    await store.open()
    await store.add_account(ACME, logged())
    yield store
    await store.close()


def keeping(seen: list[KeyRecord], at: float = NOW, name: bytes = NAME) -> ResponseFactory:
    def keep(record: KeyRecord) -> StoredResponse:
        seen.append(record)
        return StoredResponse(name, b"r" * 32, b"sealed " + record.id.encode(), at)

    return keep


async def test_a_new_keys_answer_is_made_of_the_key_as_stored(store: Store) -> None:
    seen: list[KeyRecord] = []
    await store.add_key(stored_key(1), logged(), keeping(seen))
    assert seen == [await store.key(ACME.id, "key_1")]
    assert seen[0].tier == "standard"
    assert await store.stored_response(NAME, NOW) == StoredResponse(NAME, b"r" * 32, b"sealed key_1", NOW)


async def test_a_changed_keys_answer_is_made_of_the_change(store: Store) -> None:
    seen: list[KeyRecord] = []
    await store.add_key(stored_key(1), logged())
    renamed = replace(stored_key(1), name="renamed", version=2)
    assert await store.replace_key(renamed, logged(), keeping(seen))
    assert seen == [renamed]
    response = await store.stored_response(NAME, NOW)
    assert response is not None


async def test_a_change_that_is_not_made_keeps_no_answer(store: Store) -> None:
    await store.add_key(stored_key(1), logged())
    assert not await store.replace_key(replace(stored_key(1), version=9), logged(), keeping([]))
    with pytest.raises(InputError):
        await store.add_key(stored_key(1), logged(), keeping([]))
    await store.add_key(stored_key(2), logged())
    with pytest.raises(InputError):
        await store.replace_key(replace(stored_key(2), secrets=stored_key(1).secrets, version=2), logged(), keeping([]))
    assert await store.stored_response(NAME, 0) is None


async def test_a_name_that_has_an_answer_changes_nothing_more(store: Store) -> None:
    await store.add_key(stored_key(1), logged(), keeping([]))
    head = await store.audit_head()
    with pytest.raises(DuplicateRequest):
        await store.add_key(stored_key(2), logged(), keeping([]))
    with pytest.raises(DuplicateRequest):
        await store.replace_key(replace(stored_key(1), version=2, name="renamed"), logged(), keeping([]))
    assert await store.key(ACME.id, "key_2") is None
    assert await store.find_by_digest(stored_key(2).secrets[0].digest) is None
    key = await store.key(ACME.id, "key_1")
    assert key is not None
    assert key.name == "deploy"
    assert await store.audit_head() == head
    response = await store.stored_response(NAME, 0)
    assert response is not None
    assert response.sealed == b"sealed key_1"


async def test_of_many_at_once_with_one_name_one_is_carried_out(store: Store) -> None:
    tried = await asyncio.gather(
        *(store.add_key(stored_key(number), logged(), keeping([])) for number in range(1, 11)), return_exceptions=True
    )
    assert [type(outcome) for outcome in tried if outcome is not None] == [DuplicateRequest] * 9
    assert len(await store.keys(ACME.id)) == 1


async def test_an_answer_that_is_too_old_is_dropped(store: Store) -> None:
    await store.add_key(stored_key(1), logged(), keeping([]))
    assert await store.stored_response(NAME, NOW + 0.001) is None
    await store.add_key(stored_key(2), logged(), keeping([], at=NOW + IDEMPOTENCY_SECONDS + 1))
    response = await store.stored_response(NAME, NOW)
    assert response is not None
    assert response.sealed == b"sealed key_2"
