"""Two accounts, and everything that can be asked: neither is there for the other."""

from typing import Any

import pytest
from httpx2 import Response

from machpay_gateway.admin.operations import OPERATIONS, Operation
from tests.admin.conftest import Caller, places

# What makes each operation do something; one that is missing here fails below.
BODIES: dict[str, dict[str, Any]] = {
    "createKey": {"name": "mine", "scopes": ["skills:list"]},
    "updateKey": {"name": "mine"},
    "rotateKey": {"grace_seconds": 60},
    "endGrace": {},
    "revokeKey": {},
    "createSession": {"scopes": ["skills:list"]},
}
ON_ONE_KEY = [operation for operation in OPERATIONS if "{id}" in operation.path]
ON_THE_ACCOUNT = [operation for operation in OPERATIONS if "{id}" not in operation.path]


def named(operation: Operation) -> str:
    return operation.name


async def asked(caller: Caller, operation: Operation, key_id: str = "", **kwargs: Any) -> Response:  # noqa: ANN401 - as httpx2
    body = BODIES[operation.name] if operation.body else None
    return await caller.ask(operation.method, operation.path.format(id=key_id), body, **kwargs)


def without_request_id(answer: Response) -> dict[str, Any]:
    document: dict[str, Any] = answer.json()
    assert document.pop("request_id")
    return document


@pytest.mark.parametrize("operation", ON_ONE_KEY, ids=named)
@pytest.mark.parametrize("headers", [{}, {"If-Match": '"1"'}, {"If-Match": '"7"'}, {"Idempotency-Key": "a"}], ids=str)
async def test_another_accounts_key_is_a_key_that_is_not_there(
    admin: Caller, stranger: Caller, operation: Operation, headers: dict[str, str]
) -> None:
    theirs = await stranger.created(metadata={"whose": "theirs"})
    path = f"/v1/keys/{theirs['id']}"
    stored, before = await stranger.ask("GET", path), await admin.api.head()

    answers = [await asked(admin, operation, key, headers=headers) for key in (theirs["id"], "key_none")]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert without_request_id(answers[0]) == without_request_id(answers[1])
    assert {*answers[0].headers} == {*answers[1].headers}
    assert await admin.api.head() == before
    now = await stranger.ask("GET", path)
    assert (now.json(), now.headers["etag"]) == (stored.json(), stored.headers["etag"])
    assert (await stranger.user(theirs).ask("GET", "/v1/whoami")).status_code == 200


@pytest.mark.parametrize("operation", ON_THE_ACCOUNT, ids=named)
async def test_what_is_asked_of_an_account_tells_nothing_of_another(
    admin: Caller, stranger: Caller, operation: Operation
) -> None:
    theirs = await stranger.created(name="whose-name", metadata={"whose": "whose-value"})
    await stranger.ask("PATCH", f"/v1/keys/{theirs['id']}", {"name": "whose-new-name"})
    answer = await asked(admin, operation)
    assert answer.status_code < 300
    account = (await stranger.ask("GET", "/v1/whoami")).json()["account_id"]
    for secret in (theirs["id"], stranger.id, account, "whose-", theirs["masked"]):
        assert secret not in answer.text


async def test_a_page_does_not_go_on_from_another_accounts_key(admin: Caller, stranger: Caller) -> None:
    theirs = await stranger.created()
    answers = [await admin.ask("GET", f"/v1/keys?after={key}") for key in (theirs["id"], "key_none")]
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
