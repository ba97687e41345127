"""Pagination of lists."""

from typing import Any

import pytest

from tests.admin.conftest import Caller, in_memory


async def walked(caller: Caller, path: str, limit: int, **between: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - as `created`
    """Return all items of the list at *path*, by pages of *limit*. With *between*, create a key after each page."""
    ids: list[dict[str, Any]] = []
    after = ""
    while True:
        page = (await caller.ask("GET", f"{path}limit={limit}{after}")).json()
        assert page.keys() == {"object", "data", "has_more"}
        assert page["object"] == "list"
        assert 1 <= len(page["data"]) <= limit
        ids += page["data"]
        if not page["has_more"]:
            return ids
        assert len(page["data"]) == limit
        after = f"&after={page['data'][-1]['id']}"
        if between:
            await caller.created(**between)


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8, 100])
async def test_pagination_yields_every_key_once_whatever_is_created_meanwhile(admin: Caller, limit: int) -> None:
    created = [admin.id, *[(await admin.created(name=f"key {n}"))["id"] for n in range(6)]]
    ids = [key["id"] for key in await walked(admin, "/v1/keys?", limit, name="late")]
    assert sorted(ids) == sorted(created)
    dated = [(await admin.ask("GET", f"/v1/keys/{key}")).json()["created_at"] for key in ids]
    assert dated == sorted(dated, reverse=True)


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_filters_apply_to_all_pages(admin: Caller, limit: int) -> None:
    expected: dict[str, set[str]] = {"active": {admin.id}, "revoked": set(), "expired": set(), "live": {admin.id}}
    expected["test"] = set()
    for number in range(9):
        environment = "test" if number % 2 else "live"
        key_id = (await admin.created(environment=environment))["id"]
        status = ("active", "revoked", "expired")[number % 3]
        if status == "revoked":
            await admin.ask("POST", f"/v1/keys/{key_id}/revoke")
        if status == "expired":
            await admin.api.expire(key_id)
        expected[status].add(key_id)
        expected[environment].add(key_id)
    for status in ("active", "revoked", "expired"):
        ids = [key["id"] for key in await walked(admin, f"/v1/keys?status={status}&", limit)]
        assert sorted(ids) == sorted(expected[status])
        for environment in ("live", "test"):
            query = f"/v1/keys?environment={environment}&status={status}&"
            ids = [key["id"] for key in await walked(admin, query, limit)]
            assert sorted(ids) == sorted(expected[status] & expected[environment])


async def test_a_page_can_start_after_a_key_that_the_filter_excludes(admin: Caller) -> None:
    first = await admin.created()
    second = await admin.created()
    await admin.ask("POST", f"/v1/keys/{second['id']}/revoke")
    page = (await admin.ask("GET", f"/v1/keys?status=active&after={second['id']}")).json()
    assert [key["id"] for key in page["data"]] == [first["id"], admin.id]


async def test_a_page_has_twenty_items_by_default(admin: Caller) -> None:
    for number in range(20):
        await admin.created(name=f"key {number}")
    page = (await admin.ask("GET", "/v1/keys")).json()
    assert (len(page["data"]), page["has_more"]) == (20, True)
    rest = (await admin.ask("GET", f"/v1/keys?after={page['data'][-1]['id']}")).json()
    assert ([key["id"] for key in rest["data"]], rest["has_more"]) == ([admin.id], False)


async def test_after_the_last_key_there_is_an_empty_page(admin: Caller) -> None:
    assert (await admin.ask("GET", f"/v1/keys?after={admin.id}")).json() == {
        "object": "list",
        "data": [],
        "has_more": False,
    }


@in_memory
@pytest.mark.parametrize("limit", [1, 4, 100])
async def test_pagination_yields_the_whole_audit_log_newest_first(admin: Caller, stranger: Caller, limit: int) -> None:
    for number in range(3):
        await admin.created(name=f"mine {number}")
        await stranger.created(name=f"theirs {number}")
    entries = await walked(admin, "/v1/audit-log?", limit)
    numbers = [entry["number"] for entry in entries]
    assert numbers == sorted(set(numbers), reverse=True)
    assert [entry["action"] for entry in entries] == [*["key.create"] * 4, "account.create"]
    assert [entry["after"]["name"] for entry in entries[:3]] == ["mine 2", "mine 1", "mine 0"]
