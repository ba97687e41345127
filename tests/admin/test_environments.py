"""Isolation of environments: a test key sees only test objects."""

from typing import Any

import pytest

from tests.admin.conftest import Api, Caller, places, status_and_code


@pytest.fixture
async def tester(api: Api) -> Caller:
    return await api.caller(environment="test")


@pytest.mark.parametrize(
    "caller_is, requested, made",
    [("live", None, "live"), ("live", "test", "test"), ("live", "live", "live"), ("test", None, "test")],
)
async def test_a_new_key_defaults_to_the_environment_of_the_caller(
    api: Api, caller_is: str, requested: str | None, made: str
) -> None:
    caller = await api.caller(environment=caller_is)
    created = await caller.created(**({} if requested is None else {"environment": requested}))
    assert created["environment"] == made
    assert created["secret"].startswith(f"sk_{made}_")
    assert created["tier"] == ("test" if made == "test" else "standard")


async def test_a_test_key_cannot_create_a_live_key(tester: Caller) -> None:
    before = await tester.api.head()
    response = await tester.ask("POST", "/v1/keys", {"name": "a", "scopes": [], "environment": "live"})
    assert (response.status_code, places(response)) == (422, ["environment"])
    assert await tester.api.head() == before


@pytest.mark.parametrize(
    "method, action, body",
    [
        ("GET", "", None),
        ("PATCH", "", {"name": "mine"}),
        ("POST", "/rotate", {}),
        ("POST", "/end-grace", {}),
        ("POST", "/revoke", {}),
        ("POST", "/revoke?self=true", {}),
    ],
)
async def test_a_live_key_is_not_found_for_a_test_key(
    admin: Caller, tester: Caller, method: str, action: str, body: dict[str, Any] | None
) -> None:
    live = await admin.created()
    before = await admin.api.head()
    responses = [await tester.ask(method, f"/v1/keys/{key}{action}", body) for key in (live["id"], "key_none")]
    assert [status_and_code(response) for response in responses] == [(404, "not_found")] * 2
    assert [response.json() | {"request_id": ""} for response in responses[:1]] == [
        responses[1].json() | {"request_id": ""}
    ]
    assert await admin.api.head() == before


async def test_a_test_key_lists_only_test_keys(admin: Caller, tester: Caller) -> None:
    live = await admin.created()
    test = await tester.created()

    async def listed(caller: Caller, query: str = "") -> set[str]:
        return {key["id"] for key in (await caller.ask("GET", f"/v1/keys{query}")).json()["data"]}

    assert await listed(tester) == await listed(tester, "?environment=test") == {test["id"], tester.id}
    assert await listed(tester, "?environment=live") == set()
    assert await listed(admin) == {test["id"], tester.id, live["id"], admin.id}
    assert await listed(admin, "?environment=live") == {live["id"], admin.id}
    assert await listed(admin, "?environment=test") == {test["id"], tester.id}
    for query in ("", "&environment=live"):
        responses = [await tester.ask("GET", f"/v1/keys?after={key}{query}") for key in (live["id"], "key_none")]
        assert [(response.status_code, places(response)) for response in responses] == [(422, ["query.after"])] * 2
        assert responses[0].json()["errors"] == responses[1].json()["errors"]


async def test_a_test_key_manages_the_whole_lifecycle_of_a_test_key(tester: Caller) -> None:
    created = await tester.created()
    path = f"/v1/keys/{created['id']}"
    for method, action, body in (
        ("GET", "", None),
        ("PATCH", "", {"name": "b"}),
        ("POST", "/rotate", {}),
        ("POST", "/end-grace", {}),
        ("POST", "/revoke", {}),
    ):
        response = await tester.ask(method, path + action, body)
        assert (response.status_code, response.json()["environment"]) == (200, "test")


async def test_a_test_key_does_not_read_the_audit_log(tester: Caller) -> None:
    assert status_and_code(await tester.ask("GET", "/v1/audit-log")) == (403, "not_permitted")
