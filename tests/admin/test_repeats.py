"""Idempotency: a retry with the same Idempotency-Key has no further effect."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx2 import Response

from machpay_gateway import Gateway, MachPayAuth
from machpay_gateway.admin.app import key_api
from machpay_gateway.admin.operations import OWN_ROUTES
from tests.admin.conftest import Api, Caller, places, status_and_code

NAMED = {"Idempotency-Key": "once"}
NEW = {"name": "deploy", "scopes": ["skills:list"], "metadata": {"a": "1", "b": "ü"}}


class Clock:
    """A clock with a settable time."""

    def __init__(self) -> None:
        self.now = 4_000_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def api(database: str, clock: Clock) -> AsyncIterator[Api]:
    gateway = Gateway(database=database, own_routes=OWN_ROUTES)
    async with gateway:
        api = Api.of(MachPayAuth(key_api(gateway, clock=clock), gateway=gateway))
        yield api
        await api.close()


async def create(caller: Caller, body: dict[str, Any] | None = None) -> Response:
    return await caller.ask("POST", "/v1/keys", NEW if body is None else body, headers=NAMED)


def is_replay(response: Response, of: Response) -> bool:
    """Tell whether *response* is a marked replay *of* another response."""
    compared = ("etag", "location", "content-type", "cache-control")
    return (
        (response.status_code, response.content) == (of.status_code, of.content)
        and [response.headers.get(name) for name in compared] == [of.headers.get(name) for name in compared]
        and response.headers.get("idempotent-replayed") == "true"
        and "idempotent-replayed" not in of.headers
    )


async def test_the_same_request_creates_one_key_and_one_row(admin: Caller) -> None:
    first = await create(admin)
    assert first.status_code == 201
    before = await admin.api.head()
    for _ in range(3):
        assert is_replay(await create(admin), first)
    assert await admin.api.head() == before
    assert len((await admin.ask("GET", "/v1/keys")).json()["data"]) == 2
    assert (await admin.user(first.json()).ask("GET", "/v1/whoami")).status_code == 200


async def test_the_same_request_rotates_once(admin: Caller) -> None:
    created = await admin.created()
    path = f"/v1/keys/{created['id']}/rotate"
    first = await admin.ask("POST", path, {"grace_seconds": 60}, headers=NAMED)
    before = await admin.api.head()
    assert is_replay(await admin.ask("POST", path, {"grace_seconds": 60}, headers=NAMED), first)
    assert await admin.api.head() == before


@pytest.mark.parametrize(
    "body, why",
    [
        (b'{"metadata":{"b":"\xc3\xbc","a":"1"},"scopes":["skills:list"],"name":"deploy"}', "another order"),
        (b' {\n"name": "deploy" , "scopes" :["skills:list"],\r\n"metadata":{"a":"1","b":"\xc3\xbc"}}\t', "blanks"),
        (b'{"n\\u0061me":"\\u0064eploy","scopes":["skills:list"],"metadata":{"a":"1","b":"\\u00fc"}}', "escapes"),
    ],
)
async def test_a_retry_may_serialize_the_same_json_differently(admin: Caller, body: bytes, why: str) -> None:
    first = await create(admin)
    again = await admin.ask("POST", "/v1/keys", content=body, headers={**NAMED, "Content-Type": "application/json"})
    assert is_replay(again, first), why


async def test_a_retry_may_send_no_body_instead_of_an_empty_object(admin: Caller) -> None:
    created = await admin.created()
    path = f"/v1/keys/{created['id']}/rotate"
    first = await admin.ask("POST", path, headers=NAMED)
    assert first.status_code == 200
    assert is_replay(await admin.ask("POST", path, {}, headers=NAMED), first)


@pytest.mark.parametrize(
    "path, body, why",
    [
        ("/v1/keys", {**NEW, "name": "other"}, "another value"),
        ("/v1/keys", {**NEW, "expires_at": None}, "null is not nothing"),
        ("/v1/keys", {**NEW, "scopes": []}, "another list"),
        ("/v1/keys", {}, "a body that would be refused"),
        ("/v1/keys/{id}/rotate", NEW, "another path"),
        ("/v1/keys/{id}/rotate", {}, "another path and body"),
    ],
)
async def test_an_idempotency_key_is_refused_for_another_request(
    admin: Caller, path: str, body: dict[str, Any], why: str
) -> None:
    created = (await create(admin)).json()
    before = await admin.api.head()
    response = await admin.ask("POST", path.format(id=created["id"]), body, headers=NAMED)
    assert status_and_code(response) == (409, "conflict"), why
    assert "for another request" in response.json()["detail"], why
    assert await admin.api.head() == before


async def test_an_idempotency_key_is_refused_for_another_key(admin: Caller) -> None:
    one, other = await admin.created(), await admin.created()
    assert (await admin.ask("POST", f"/v1/keys/{one['id']}/rotate", {}, headers=NAMED)).status_code == 200
    assert status_and_code(await admin.ask("POST", f"/v1/keys/{other['id']}/rotate", {}, headers=NAMED)) == (
        409,
        "conflict",
    )


@pytest.mark.parametrize("headers", [{}, {"If-Match": '"1"'}], ids=["", "if unchanged"])
@pytest.mark.parametrize("action", ["create", "rotate"])
async def test_twenty_concurrent_retries_have_one_effect(admin: Caller, action: str, headers: dict[str, str]) -> None:
    path, body = "/v1/keys", dict[str, Any](NEW)
    if action == "rotate":
        path, body = f"/v1/keys/{(await admin.created())['id']}/rotate", {"grace_seconds": 60}
    before = await admin.api.head()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(admin.ask("POST", path, body, headers=NAMED | headers)) for _ in range(20)]
    responses = [task.result() for task in tasks]
    assert {response.status_code for response in responses} == {201 if action == "create" else 200}
    assert len({response.content for response in responses}) == 1
    assert len({response.headers["etag"] for response in responses}) == 1
    assert ["idempotent-replayed" in response.headers for response in responses].count(False) == 1
    assert (await admin.api.head()).sequence == before.sequence + 1


@pytest.mark.parametrize("action", ["PATCH", "rotate", "revoke"])
async def test_the_replayed_response_does_not_depend_on_later_changes(admin: Caller, action: str) -> None:
    first = await create(admin)
    path = f"/v1/keys/{first.json()['id']}"
    changed = await (
        admin.ask("PATCH", path, {"name": "renamed"}) if action == "PATCH" else admin.ask("POST", f"{path}/{action}")
    )
    assert changed.status_code == 200
    assert is_replay(await create(admin), first)


async def test_a_rotation_is_replayed_after_its_key_was_revoked(admin: Caller) -> None:
    created = await admin.created()
    path = f"/v1/keys/{created['id']}"
    headers = NAMED | {"If-Match": '"1"'}
    first = await admin.ask("POST", f"{path}/rotate", {}, headers=headers)
    await admin.ask("POST", f"{path}/revoke")
    assert is_replay(await admin.ask("POST", f"{path}/rotate", {}, headers=headers), first)


async def test_a_response_is_replayed_after_the_key_has_expired(admin: Caller, clock: Clock) -> None:
    body = {**NEW, "expires_at": "2096-10-02T07:06:41Z"}  # a second after the clock
    first = await create(admin, body)
    assert first.status_code == 201
    clock.now += 60
    assert is_replay(await create(admin, body), first)
    assert places(await admin.ask("POST", "/v1/keys", body)) == ["expires_at"]


async def test_an_idempotency_key_can_be_reused_after_a_day(admin: Caller, clock: Clock) -> None:
    first = await create(admin)
    clock.now += 86_400
    assert is_replay(await create(admin), first)
    clock.now += 1
    second = await create(admin)
    assert second.status_code == 201
    assert second.json()["id"] != first.json()["id"]
    assert is_replay(await create(admin), second)


async def test_failed_requests_are_not_stored(admin: Caller) -> None:
    assert (await create(admin, {"name": "", "scopes": []})).status_code == 422
    assert status_and_code(await admin.ask("POST", "/v1/keys/key_none/rotate", {}, headers=NAMED)) == (404, "not_found")
    stale = NAMED | {"If-Match": '"9"'}
    assert status_and_code(await admin.ask("POST", f"/v1/keys/{admin.id}/rotate", {}, headers=stale)) == (
        412,
        "precondition_failed",
    )
    assert "idempotent-replayed" not in (await create(admin)).headers


async def test_other_operations_ignore_the_idempotency_key(admin: Caller) -> None:
    created = await admin.created()
    path = f"/v1/keys/{created['id']}"
    for name in ("one", "two"):
        response = await admin.ask("PATCH", path, {"name": name}, headers=NAMED)
        assert (response.status_code, response.json()["name"]) == (200, name)
