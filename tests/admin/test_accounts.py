"""Two accounts, and everything that can be asked: neither is there for the other."""

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


async def asked(caller: Caller, operation: Operation, name: str = "", **kwargs: Any) -> Response:  # noqa: ANN401 - as httpx2
    body = BODIES[operation.name] if operation.body else None
    return await caller.ask(operation.method, operation.path.format(id=name), body, **kwargs)


def without_request_id(answer: Response) -> dict[str, Any]:
    document: dict[str, Any] = answer.json()
    assert document.pop("request_id")
    return document


@over(ON_ONE_THING)
@pytest.mark.parametrize("headers", [{}, {"If-Match": '"1"'}, {"If-Match": '"7"'}, {"Idempotency-Key": "a"}], ids=str)
async def test_what_is_another_accounts_is_not_there(
    admin: Caller, stranger: Caller, operation: Operation, headers: dict[str, str]
) -> None:
    theirs, path = await stranger.made(operation.about, name="whose")
    stored, before = await stranger.ask("GET", path), await admin.api.head()

    answers = [await asked(admin, operation, key, headers=headers) for key in (theirs, f"{operation.about}_none")]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert without_request_id(answers[0]) == without_request_id(answers[1])
    assert {*answers[0].headers} == {*answers[1].headers}
    assert await admin.api.head() == before
    now = await stranger.ask("GET", path)
    assert stored.status_code == 200
    assert (now.json(), now.headers.get("etag")) == (stored.json(), stored.headers.get("etag"))


@over(ON_THE_ACCOUNT)
async def test_what_is_asked_of_an_account_tells_nothing_of_another(
    admin: Caller, stranger: Caller, operation: Operation
) -> None:
    theirs = await stranger.created(name="whose-name", metadata={"whose": "whose-value"})
    await stranger.ask("PATCH", f"/v1/keys/{theirs['id']}", {"name": "whose-new-name"})
    ids = [theirs["id"], stranger.id]
    if operation in OF_APPS:
        app = await stranger.app(name="whose-app")
        ids += [app["id"], await stranger.granted(app), *(secret["masked"] for secret in app["secrets"])]
    answer = await asked(admin, operation)
    assert answer.status_code < 300
    account = (await stranger.ask("GET", "/v1/whoami")).json()["account_id"]
    for secret in (*ids, account, "whose-", theirs["masked"]):
        assert secret not in answer.text


@over(operation for operation in ON_THE_ACCOUNT if operation.name in {"listKeys", "listClients", "listGrants"})
async def test_a_page_does_not_go_on_from_what_is_another_accounts(
    admin: Caller, stranger: Caller, operation: Operation
) -> None:
    about = {"listKeys": "key", "listClients": "app", "listGrants": "grant"}[operation.name]
    theirs, _ = await stranger.made(about)
    answers = [await admin.ask("GET", f"{operation.path}?after={name}") for name in (theirs, f"{about}_none")]
    assert [(answer.status_code, places(answer)) for answer in answers] == [(422, ["query.after"])] * 2
    assert without_request_id(answers[0]) == without_request_id(answers[1])


async def test_the_audit_log_goes_on_from_another_accounts_entry_within_ones_own(
    admin: Caller, stranger: Caller
) -> None:
    mine = await admin.created()
    await stranger.created()
    entry = (await stranger.ask("GET", "/v1/audit-log?limit=1")).json()["data"][0]
    page = (await admin.ask("GET", f"/v1/audit-log?after={entry['id']}&limit=1")).json()["data"]
    assert [each["object_id"] for each in page] == [mine["id"]]


async def test_a_name_for_a_request_is_the_callers_alone(admin: Caller, stranger: Caller) -> None:
    colleague = await admin.api.caller()
    created = []
    for caller in (admin, stranger, colleague):
        answer = await caller.ask("POST", "/v1/keys", BODIES["createKey"], headers={"Idempotency-Key": "same"})
        assert answer.status_code == 201
        assert "idempotent-replayed" not in answer.headers
        created.append(answer.json()["id"])
    assert len(set(created)) == 3


async def test_a_name_that_another_account_used_for_another_request_is_free(admin: Caller, stranger: Caller) -> None:
    headers = {"Idempotency-Key": "same"}
    await stranger.ask("POST", "/v1/keys", BODIES["createKey"], headers=headers)
    answer = await admin.ask("POST", "/v1/keys", {"name": "other", "scopes": []}, headers=headers)
    assert answer.status_code == 201
