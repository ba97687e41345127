"""Optimistic locking with ETag and If-Match (RFC 9110 §13.1.1)."""

import asyncio
from typing import Any

import pytest

from tests.admin.conftest import Caller, status_and_code

CHANGES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "update": ("PATCH", "", {"name": "renamed"}),
    "rotate": ("POST", "/rotate", {}),
    "end-grace": ("POST", "/end-grace", {}),
    "revoke": ("POST", "/revoke", {}),
}
of_every_change = pytest.mark.parametrize("change", CHANGES)


@of_every_change
@pytest.mark.parametrize(
    "tags, status, why",
    [
        (['"3"'], 200, "the version that was read"),
        (["*"], 200, "any version"),
        (['"1", "3"'], 200, "one of several"),
        (['"1",,\t"3" ,'], 200, "a list may have empty members (RFC 9110 §5.6.1)"),
        (['"1"', '"3"'], 200, "a list in two headers"),
        (['"2"'], 412, "an older version"),
        (['"4"'], 412, "one to come"),
        (['W/"3"'], 412, "a weak tag never matches (RFC 9110 §13.1.1)"),
        (["3"], 412, "no tag: they are quoted"),
        (["'3'"], 412, "the wrong quotes"),
        (['"03"'], 412, "tags are compared as text"),
        (['"3'], 412, "half a tag"),
        ([""], 412, "nothing"),
        (['"1"', '"2"'], 412, "two, neither of them"),
        (["\x00"], 412, "junk"),
        ([",".join(f'"{n}"' for n in range(4, 2000))], 412, "a long list"),
    ],
)
async def test_if_match_lets_only_the_named_version_be_changed(
    admin: Caller,
    change: str,
    tags: list[str],
    status: int,
    why: str,
) -> None:
    method, action, body = CHANGES[change]
    created = await admin.created()
    path = f"/v1/keys/{created['id']}"
    assert (await admin.ask("PATCH", path, {"name": "second"})).headers["etag"] == '"2"'
    read = await admin.ask("POST", f"{path}/rotate", {})
    assert read.headers["etag"] == '"3"'
    before = await admin.api.head()
    headers = [("if-match", tag) for tag in tags]
    response = await admin.ask(method, path + action, body, headers=headers)
    now = await admin.ask("GET", path)
    if status == 200:
        assert (response.status_code, response.headers["etag"], now.headers["etag"]) == (200, '"4"', '"4"'), why
    else:
        assert status_and_code(response) == (412, "precondition_failed"), why
        assert now.headers["etag"] == '"3"'
        assert now.json() == {name: value for name, value in read.json().items() if name != "secret"}
        assert await admin.api.head() == before


@pytest.mark.parametrize("tries", [2, 5])
async def test_of_concurrent_changes_to_one_version_one_succeeds(admin: Caller, tries: int) -> None:
    path = f"/v1/keys/{(await admin.created())['id']}"
    before = await admin.api.head()
    headers = {"If-Match": '"1"'}
    responses = await asyncio.gather(
        *(admin.ask("PATCH", path, {"name": f"name {n}"}, headers=headers) for n in range(tries))
    )
    assert sorted(response.status_code for response in responses) == [200, *[412] * (tries - 1)]
    made = next(response for response in responses if response.status_code == 200)
    assert (await admin.ask("GET", path)).json()["name"] == made.json()["name"]
    assert (await admin.api.head()).sequence == before.sequence + 1


@of_every_change
async def test_an_update_without_a_change_keeps_the_version(admin: Caller, change: str) -> None:
    method, action, body = CHANGES[change]
    path = f"/v1/keys/{(await admin.created())['id']}"
    first = await admin.ask(method, path + action, body)
    before = await admin.api.head()
    again = await admin.ask(method, path + action, body)
    if change == "rotate":
        assert again.headers["etag"] != first.headers["etag"]
    else:
        assert (again.json(), again.headers["etag"]) == (first.json(), first.headers["etag"])
        assert await admin.api.head() == before


async def test_retrieve_and_update_return_the_same_etag(admin: Caller) -> None:
    path = f"/v1/keys/{(await admin.created())['id']}"
    for method, action, body in CHANGES.values():
        changed = await admin.ask(method, path + action, body)
        assert (await admin.ask("GET", path)).headers["etag"] == changed.headers["etag"]
