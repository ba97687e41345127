"""Encryption of stored responses: what the database holds, and who can decrypt it."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.admin.conftest import Api, Caller, status_and_code

NAMED = {"Idempotency-Key": "name-of-the-request"}
pytestmark = pytest.mark.own_gateway  # looks into the database's file
NEW = {"name": "name-of-the-key", "scopes": [], "metadata": {"pair": "value-of-the-pair"}}

on_disk = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def executed(folder: Path, statement: str, *values: bytes) -> list[tuple[bytes, ...]]:
    with closing(sqlite3.connect(folder / "keys.db")) as connection, connection:
        return connection.execute(statement, values).fetchall()


@on_disk
async def test_the_database_holds_no_secret_no_idempotency_key_and_no_body(admin: Caller, tmp_path: Path) -> None:
    first = await admin.ask("POST", "/v1/keys", NEW, headers=NAMED)
    rotated = await admin.ask("POST", f"/v1/keys/{first.json()['id']}/rotate", {}, headers={"Idempotency-Key": "r"})
    assert (await admin.ask("POST", "/v1/keys", NEW, headers=NAMED)).content == first.content

    files = contents(tmp_path)
    assert {"keys.db", "keys.db-wal"} <= files.keys()
    written = b"".join(files.values())
    assert b"name-of-the-key" in written  # the key itself is there, so this looks in the right place
    for secret in (first.json()["secret"], rotated.json()["secret"], admin.secret):
        assert secret.encode() not in written
        assert secret[8:].encode() not in written
    assert b"name-of-the-request" not in written
    (row,) = executed(tmp_path, "select name, request, sealed from kept_answers limit 1")
    assert not any(text in column for column in row for text in (b"name-of-the-key", b"value-of-the-pair", b"key_"))


async def test_a_stored_response_cannot_be_decrypted_with_the_callers_new_secret(admin: Caller) -> None:
    first = await admin.ask("POST", "/v1/keys", NEW, headers=NAMED)
    rotated = (await admin.ask("POST", f"/v1/keys/{admin.id}/rotate", {"grace_seconds": 60})).json()
    before = await admin.api.head()
    again = await admin.user(rotated).ask("POST", "/v1/keys", NEW, headers=NAMED)
    assert status_and_code(again) == (409, "conflict")
    assert first.json()["secret"] not in again.text
    assert await admin.api.head() == before
    # Within the grace the old secret still opens it.
    assert (await admin.ask("POST", "/v1/keys", NEW, headers=NAMED)).content == first.content


async def test_a_self_rotation_is_replayed_during_the_grace_period(admin: Caller) -> None:
    path = f"/v1/keys/{admin.id}/rotate"
    first, second = [await admin.ask("POST", path, {}, headers=NAMED) for _ in range(2)]
    assert (first.status_code, second.content) == (200, first.content)


@on_disk
@pytest.mark.parametrize(
    "tampered, why",
    [
        (lambda _, __: b"", "nothing"),
        (lambda sealed, _: sealed[:5], "shorter than its nonce"),
        (lambda sealed, _: sealed[:12], "its nonce alone"),
        (lambda sealed, _: sealed[:20], "cut off"),
        (lambda sealed, _: sealed + b"\0", "longer"),
        (lambda sealed, _: bytes(12) + sealed[12:], "another nonce"),
        (lambda sealed, _: sealed[:-1] + bytes([sealed[-1] ^ 1]), "one bit"),
        (lambda sealed, _: bytes(len(sealed)), "zeros"),
        (lambda _, other: other, "the answer to another request"),
    ],
)
async def test_a_tampered_stored_response_is_a_conflict(
    admin: Caller, tmp_path: Path, tampered: Callable[[bytes, bytes], bytes], why: str
) -> None:
    await admin.ask("POST", "/v1/keys", NEW, headers=NAMED)
    ((name, sealed),) = executed(tmp_path, "select name, sealed from kept_answers")
    await admin.ask("POST", "/v1/keys", NEW, headers={"Idempotency-Key": "other"})
    ((other,),) = executed(tmp_path, "select sealed from kept_answers where name <> ?", name)
    await asyncio.to_thread(
        executed, tmp_path, "update kept_answers set sealed = ? where name = ?", tampered(sealed, other), name
    )
    before = await admin.api.head()
    response = await admin.ask("POST", "/v1/keys", NEW, headers=NAMED)
    assert status_and_code(response) == (409, "conflict"), why
    assert await admin.api.head() == before


async def test_a_revoked_caller_gets_no_stored_response(api: Api) -> None:
    caller = await api.caller()
    await caller.ask("POST", "/v1/keys", NEW, headers=NAMED)
    assert (await caller.ask("POST", f"/v1/keys/{caller.id}/revoke?self=true")).status_code == 200
    assert (await caller.ask("POST", "/v1/keys", NEW, headers=NAMED)).status_code == 401
