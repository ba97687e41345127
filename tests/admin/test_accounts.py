"""Isolation of accounts: no operation of one account sees objects of another."""

from typing import Any

import pytest
from httpx2 import Response

from machpay_gateway.admin.operations import OPERATIONS, Operation
from tests.admin.conftest import OF_APPS, REDIRECT, Caller, over, places

# What makes each operation do something; one that is missing here fails below.
BODIES: dict[str, dict[str, Any]] = {
    "createKey": {"name": "mine", "scopes": ["skills:list"]},
    "updateKey": {"name": "mine"},
    "rotateKey": {"grace_seconds": 60},
    "endGrace": {},
    "revokeKey": {},
    "createSession": {"scopes": ["skills:list"]},
    "createClient": {"name": "mine", "scopes": ["skills:list"], "redirect_uris": [REDIRECT]},
    "updateClient": {"name": "mine"},
    "rotateClientSecret": {"grace_seconds": 60},
    "revokeGrant": {},
}
ON_ONE_THING = [operation for operation in OPERATIONS if "{id}" in operation.path]
ON_THE_ACCOUNT = [operation for operation in OPERATIONS if "{id}" not in operation.path]


async def call(caller: Caller, operation: Operation, name: str = "", **kwargs: Any) -> Response:  # noqa: ANN401 - as httpx2
    body = BODIES[operation.name] if operation.body else None
    return await caller.ask(operation.method, operation.path.format(id=name), body, **kwargs)


def without_request_id(response: Response) -> dict[str, Any]:
    document: dict[str, Any] = response.json()
    assert document.pop("request_id")
    return document


@over(ON_ONE_THING)
@pytest.mark.parametrize("headers", [{}, {"If-Match": '"1"'}, {"If-Match": '"7"'}, {"Idempotency-Key": "a"}], ids=str)
async def test_objects_of_another_account_are_not_found(
    admin: Caller, stranger: Caller, operation: Operation, headers: dict[str, str]
) -> None:
    theirs, path = await stranger.made(operation.about, name="whose")
    stored, before = await stranger.ask("GET", path), await admin.api.head()

    responses = [await call(admin, operation, key, headers=headers) for key in (theirs, f"{operation.about}_none")]

    assert [response.status_code for response in responses] == [404, 404]
    assert without_request_id(responses[0]) == without_request_id(responses[1])
    assert {*responses[0].headers} == {*responses[1].headers}
    assert await admin.api.head() == before
    now = await stranger.ask("GET", path)
    assert stored.status_code == 200
    assert (now.json(), now.headers.get("etag")) == (stored.json(), stored.headers.get("etag"))


@over(ON_THE_ACCOUNT)
async def test_responses_reveal_nothing_about_another_account(
    admin: Caller, stranger: Caller, operation: Operation
) -> None:
    theirs = await stranger.created(name="whose-name", metadata={"whose": "whose-value"})
    await stranger.ask("PATCH", f"/v1/keys/{theirs['id']}", {"name": "whose-new-name"})
    ids = [theirs["id"], stranger.id]
    if operation in OF_APPS:
        app = await stranger.app(name="whose-app")
        ids += [app["id"], await stranger.granted(app), *(secret["masked"] for secret in app["secrets"])]
    response = await call(admin, operation)
    assert response.status_code < 300
    account = (await stranger.ask("GET", "/v1/whoami")).json()["account_id"]
    for secret in (*ids, account, "whose-", theirs["masked"]):
        assert secret not in response.text


@over(operation for operation in ON_THE_ACCOUNT if operation.name in {"listKeys", "listClients", "listGrants"})
async def test_a_page_cannot_start_after_an_object_of_another_account(
    admin: Caller, stranger: Caller, operation: Operation
) -> None:
    about = {"listKeys": "key", "listClients": "app", "listGrants": "grant"}[operation.name]
    theirs, _ = await stranger.made(about)
    responses = [await admin.ask("GET", f"{operation.path}?after={name}") for name in (theirs, f"{about}_none")]
    assert [(response.status_code, places(response)) for response in responses] == [(422, ["query.after"])] * 2
    assert without_request_id(responses[0]) == without_request_id(responses[1])


async def test_the_audit_log_after_an_entry_of_another_account_shows_only_own_entries(
    admin: Caller, stranger: Caller
) -> None:
    mine = await admin.created()
    await stranger.created()
    entry = (await stranger.ask("GET", "/v1/audit-log?limit=1")).json()["data"][0]
    page = (await admin.ask("GET", f"/v1/audit-log?after={entry['id']}&limit=1")).json()["data"]
    assert [each["object_id"] for each in page] == [mine["id"]]


async def test_an_idempotency_key_belongs_to_its_caller(admin: Caller, stranger: Caller) -> None:
    colleague = await admin.api.caller()
    created = []
    for caller in (admin, stranger, colleague):
        response = await caller.ask("POST", "/v1/keys", BODIES["createKey"], headers={"Idempotency-Key": "same"})
        assert response.status_code == 201
        assert "idempotent-replayed" not in response.headers
        created.append(response.json()["id"])
    assert len(set(created)) == 3


async def test_an_idempotency_key_of_another_account_is_not_taken(admin: Caller, stranger: Caller) -> None:
    headers = {"Idempotency-Key": "same"}
    await stranger.ask("POST", "/v1/keys", BODIES["createKey"], headers=headers)
    response = await admin.ask("POST", "/v1/keys", {"name": "other", "scopes": []}, headers=headers)
    assert response.status_code == 201
