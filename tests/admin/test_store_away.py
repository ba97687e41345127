"""The database goes away under the key API, for real: its file has other tables, or its answer gets lost."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from machpay_gateway.admin.operations import OPERATIONS, Operation
from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.keys.audit import Change
from machpay_gateway.core.keys.idempotency import ResponseFactory
from machpay_gateway.core.keys.key import KeyRecord
from tests.admin.conftest import Api, Caller, on_disk, told
from tests.admin.test_accounts import BODIES

pytestmark = pytest.mark.own_gateway  # breaks the database
NEW = {"name": "a", "scopes": ["skills:list"]}
TABLES = ("keys", "key_secrets", "audit_log", "kept_answers", "accounts", "oauth_clients", "oauth_grants")
ASKING = [operation for operation in OPERATIONS if operation.scopes]  # the others tell of the caller


@asynccontextmanager
async def broken(folder: Path) -> AsyncIterator[None]:
    """Take the tables away from a gateway that has the database open."""
    file = folder / "keys.db"
    await asyncio.to_thread(renamed, file, "{name}", "{name}_gone")
    try:
        yield
    finally:
        await asyncio.to_thread(renamed, file, "{name}_gone", "{name}")


def renamed(file: Path, old: str, new: str) -> None:
    """Rename every table. In a thread: the gateway, in the midst of storing usage, waits for the event loop."""
    with closing(sqlite3.connect(file)) as connection:
        for name in TABLES:
            connection.execute(f"alter table {old.format(name=name)} rename to {new.format(name=name)}")
        connection.commit()


@on_disk
@pytest.mark.parametrize("operation", ASKING, ids=lambda operation: operation.name)
async def test_without_its_database_each_operation_is_unavailable_and_comes_back(
    admin: Caller, tmp_path: Path, operation: Operation
) -> None:
    name, _ = await admin.made(operation.about)
    assert (await admin.ask("GET", "/v1/whoami")).status_code == 200  # the caller is remembered from here on
    path, body = operation.path.format(id=name), BODIES.get(operation.name)
    before = await admin.api.head()
    async with broken(tmp_path):
        for headers in ({}, {"Idempotency-Key": "a"}):
            answer = await admin.ask(operation.method, path, body, headers=headers)
            assert told(answer) == (503, "unavailable")
            assert answer.headers["retry-after"] == str(answer.json()["retry_after"]) == "1"
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["cache-control"] == "no-store"
            assert "sqlite" not in answer.text.lower()
    assert await admin.api.head() == before
    assert (await admin.ask(operation.method, path, body, headers={"Idempotency-Key": "a"})).is_success


@on_disk
async def test_whoami_asks_no_database_for_a_caller_that_is_remembered(admin: Caller, tmp_path: Path) -> None:
    assert (await admin.ask("GET", "/v1/whoami")).status_code == 200
    async with broken(tmp_path):
        assert (await admin.ask("GET", "/v1/whoami")).status_code == 200


@on_disk
async def test_a_caller_that_is_not_remembered_is_told_to_come_again(api: Api, tmp_path: Path) -> None:
    caller = await api.caller()
    async with broken(tmp_path):
        answer = await caller.ask("GET", "/v1/keys")
        assert told(answer) == (503, "unavailable")
        assert "retry-after" in answer.headers


@pytest.mark.parametrize("action", ["create", "rotate"])
async def test_an_answer_that_got_lost_is_had_by_asking_again(
    admin: Caller, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    created = await admin.created()
    path, body = ("/v1/keys", NEW) if action == "create" else (f"/v1/keys/{created['id']}/rotate", {})
    before = await admin.api.head()
    store, is_lost = admin.api.gateway.store, True
    add_key, replace_key = store.add_key, store.replace_key

    def lose() -> None:
        nonlocal is_lost
        if is_lost:
            is_lost = False
            raise StoreUnavailable("committed, and the connection broke")

    async def added(record: KeyRecord, change: Change, keep: ResponseFactory | None = None) -> None:
        await add_key(record, change, keep)
        lose()

    async def replaced(record: KeyRecord, change: Change, keep: ResponseFactory | None = None) -> bool:
        done = await replace_key(record, change, keep)
        lose()
        return done

    monkeypatch.setattr(store, "add_key", added)
    monkeypatch.setattr(store, "replace_key", replaced)
    assert told(await admin.ask("POST", path, body, headers={"Idempotency-Key": "a"})) == (503, "unavailable")
    answer = await admin.ask("POST", path, body, headers={"Idempotency-Key": "a"})
    assert answer.headers["idempotent-replayed"] == "true"
    assert (await admin.user(answer.json()).ask("GET", "/v1/whoami")).status_code == 200
    assert (await admin.api.head()).sequence == before.sequence + 1
