"""Grants over HTTP: listing and revoking them."""

from pathlib import Path
from typing import Any

import pytest

from tests.admin.conftest import Api, Caller, in_memory, on_disk, places, status_and_code
from tests.admin.test_pages import walked
from tests.oauth.harness import Rig, serving_oauth


async def grants_of(caller: Caller, query: str = "") -> list[dict[str, Any]]:
    grants: list[dict[str, Any]] = (await caller.ask("GET", f"/v1/oauth/grants{query}")).json()["data"]
    return grants


async def admin_of(rig: Rig) -> Caller:
    """Return a caller with an admin key of the account of the rig's user and app."""
    account = rig.user.account_id
    key, secret = await rig.gateway.keys.create(account, name="admin", scopes=["keys:manage"], environment="live")
    return Caller(Api.of(rig.app), key.id, secret)


async def test_a_revoked_grant_is_refused_from_the_next_request_on(tmp_path: Path) -> None:
    async with serving_oauth(database=f"sqlite:///{tmp_path}/oauth.db") as rig:
        admin, tokens = await admin_of(rig), await rig.tokens()
        assert (await rig.who(tokens["access_token"])).status_code == 200
        (grant,) = await grants_of(admin)
        about = {"client_id": rig.client.id, "user_id": rig.user.id, "status": "active", "environment": "live"}
        assert grant | about == grant
        ended = await admin.ask("POST", f"/v1/oauth/grants/{grant['id']}/revoke")
        assert ended.json() == grant | {"status": "ended"} == (await grants_of(admin))[0]
        assert (await rig.who(tokens["access_token"])).status_code == 401
        assert (await rig.refreshed(tokens["refresh_token"])).json()["error"] == "invalid_grant"
        (entry,) = (await admin.ask("GET", "/v1/audit-log?limit=1")).json()["data"]
        assert (entry["action"], entry["object_id"], entry["actor"]["id"]) == ("grant.revoke", grant["id"], admin.id)
        await admin.api.close()


async def test_tokens_lose_the_scopes_that_their_app_loses(tmp_path: Path) -> None:
    async with serving_oauth(database=f"sqlite:///{tmp_path}/oauth.db") as rig:
        admin, tokens = await admin_of(rig), await rig.tokens()
        path = f"/v1/oauth/clients/{rig.client.id}"
        assert (await admin.ask("PATCH", path, {"scopes": ["account:read"]})).status_code == 200
        assert (await rig.who(tokens["access_token"])).json()["scopes"] == ["account:read"]
        assert (await admin.ask("DELETE", path)).status_code == 200
        assert (await rig.who(tokens["access_token"])).status_code == 401
        assert [grant["status"] for grant in await grants_of(admin)] == ["ended"]
        await admin.api.close()


@on_disk
async def test_revoking_a_grant_is_idempotent(admin: Caller) -> None:
    path = f"/v1/oauth/grants/{await admin.granted(await admin.app())}/revoke"
    first = await admin.ask("POST", path, {})
    before = await admin.api.head()
    again = await admin.ask("POST", path)
    assert (again.status_code, again.json()) == (200, first.json())
    assert await admin.api.head() == before
    assert places(await admin.ask("POST", path, {"reason": "lost"})) == ["reason"]


@on_disk
async def test_a_test_key_lists_and_revokes_only_grants_of_test_apps(api: Api) -> None:
    admin, tester = await api.caller(), await api.caller(environment="test")
    live, test = await admin.granted(await admin.app()), await tester.granted(await tester.app())
    assert [grant["id"] for grant in await grants_of(tester)] == [test]
    assert [grant["id"] for grant in await grants_of(admin)] == [test, live]
    assert status_and_code(await tester.ask("POST", f"/v1/oauth/grants/{live}/revoke")) == (404, "not_found")
    assert (await grants_of(admin))[1]["status"] == "active"
    assert places(await tester.ask("GET", f"/v1/oauth/grants?after={live}")) == ["query.after"]
    assert (await tester.ask("POST", f"/v1/oauth/grants/{test}/revoke")).status_code == 200


@on_disk
@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_pagination_yields_every_grant_once_newest_first(admin: Caller, limit: int) -> None:
    granted = [await admin.granted(await admin.app(name=f"app {n}")) for n in range(4)]
    assert [grant["id"] for grant in await walked(admin, "/v1/oauth/grants?", limit)] == granted[::-1]


@on_disk
async def test_grants_can_be_filtered_by_app(admin: Caller) -> None:
    one, other = await admin.app(), await admin.app()
    granted = [await admin.granted(app) for app in (one, other)]
    assert [grant["id"] for grant in await grants_of(admin, f"?client_id={one['id']}")] == granted[:1]
    assert await grants_of(admin, "?client_id=app_none") == []


@in_memory
@pytest.mark.parametrize(
    "path, mistaken",
    [
        ("/v1/oauth/clients?limit=0", "query.limit"),
        ("/v1/oauth/clients?limit=101", "query.limit"),
        ("/v1/oauth/clients?after=key_1", "query.after"),
        ("/v1/oauth/clients?environment=prod", "query.environment"),
        ("/v1/oauth/clients?client_id=app_1", "query.client_id"),
        ("/v1/oauth/clients/app_1?expand=grants", "query.expand"),
        ("/v1/oauth/grants?limit=101", "query.limit"),
        ("/v1/oauth/grants?after=app_1", "query.after"),
        ("/v1/oauth/grants?client_id=%00", "query.client_id"),
        ("/v1/oauth/grants?client_id=app_1&client_id=app_2", "query.client_id"),
        ("/v1/oauth/grants?environment=live", "query.environment"),
    ],
)
async def test_an_invalid_query_for_apps_is_refused(admin: Caller, path: str, mistaken: str) -> None:
    response = await admin.ask("GET", path)
    assert (response.status_code, places(response)) == (422, [mistaken])
