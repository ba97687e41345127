"""Real database outages: tables are renamed, or responses get lost."""

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
from tests.admin.conftest import Api, Caller, on_disk, status_and_code
from tests.admin.test_accounts import BODIES

pytestmark = pytest.mark.own_gateway  # breaks the database
NEW = {"name": "a", "scopes": ["skills:list"]}
TABLES = ("keys", "key_secrets", "audit_log", "kept_answers", "accounts", "oauth_clients", "oauth_grants")
ASKING = [operation for operation in OPERATIONS if operation.scopes]  # the others tell of the caller


@asynccontextmanager
async def broken(folder: Path) -> AsyncIterator[None]:
    """Rename the tables of a gateway that has the database open."""
    file = folder / "keys.db"
    await asyncio.to_thread(renamed, file, "{name}", "{name}_gone")
    try:
        yield
    finally:
        await asyncio.to_thread(renamed, file, "{name}_gone", "{name}")


def renamed(file: Path, old: str, new: str) -> None:
    """Rename every table, in a thread: the gateway may be storing usage, which needs the event loop."""
    with closing(sqlite3.connect(file)) as connection:
        for name in TABLES:
            connection.execute(f"alter table {old.format(name=name)} rename to {new.format(name=name)}")
        connection.commit()


@on_disk
@pytest.mark.parametrize("operation", ASKING, ids=lambda operation: operation.name)
async def test_each_operation_is_unavailable_during_a_database_outage_and_recovers(
    admin: Caller, tmp_path: Path, operation: Operation
) -> None:
    name, _ = await admin.made(operation.about)
    assert (await admin.ask("GET", "/v1/whoami")).status_code == 200  # the caller is remembered from here on
    path, body = operation.path.format(id=name), BODIES.get(operation.name)
    before = await admin.api.head()
    async with broken(tmp_path):
        for headers in ({}, {"Idempotency-Key": "a"}):
            response = await admin.ask(operation.method, path, body, headers=headers)
            assert status_and_code(response) == (503, "unavailable")
            assert response.headers["retry-after"] == str(response.json()["retry_after"]) == "1"
            assert response.headers["content-type"] == "application/problem+json"
            assert response.headers["cache-control"] == "no-store"
            assert "sqlite" not in response.text.lower()
    assert await admin.api.head() == before
    assert (await admin.ask(operation.method, path, body, headers={"Idempotency-Key": "a"})).is_success


@on_disk
async def test_whoami_needs_no_database_for_a_cached_caller(admin: Caller, tmp_path: Path) -> None:
    assert (await admin.ask("GET", "/v1/whoami")).status_code == 200
    async with broken(tmp_path):
        assert (await admin.ask("GET", "/v1/whoami")).status_code == 200


@on_disk
async def test_an_uncached_caller_gets_retry_after_during_an_outage(api: Api, tmp_path: Path) -> None:
    caller = await api.caller()
    async with broken(tmp_path):
        response = await caller.ask("GET", "/v1/keys")
        assert status_and_code(response) == (503, "unavailable")
        assert "retry-after" in response.headers


@pytest.mark.parametrize("action", ["create", "rotate"])
async def test_a_lost_response_is_replayed_to_a_retry(
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
    assert status_and_code(await admin.ask("POST", path, body, headers={"Idempotency-Key": "a"})) == (
        503,
        "unavailable",
    )
    response = await admin.ask("POST", path, body, headers={"Idempotency-Key": "a"})
    assert response.headers["idempotent-replayed"] == "true"
    assert (await admin.user(response.json()).ask("GET", "/v1/whoami")).status_code == 200
    assert (await admin.api.head()).sequence == before.sequence + 1
