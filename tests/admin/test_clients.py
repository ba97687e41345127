"""Apps over HTTP: their settings, permissions, and preconditions."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from machpay_gateway.core.keys.audit import APPLICATION
from tests.admin.conftest import REDIRECT, Api, Caller, on_disk, places, status_and_code
from tests.admin.test_pages import walked

NEW: dict[str, Any] = {"name": "a", "scopes": ["skills:list"], "redirect_uris": [REDIRECT]}
CHANGES: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "update": ("PATCH", "", {"name": "renamed"}),
    "rotate": ("POST", "/rotate-secret", {}),
    "delete": ("DELETE", "", None),
}
of_every_change = pytest.mark.parametrize("change", CHANGES)


def at(app: dict[str, Any]) -> str:
    return f"/v1/oauth/clients/{app['id']}"


async def test_the_lifecycle_of_an_app(admin: Caller) -> None:
    made = await admin.ask("POST", "/v1/oauth/clients", NEW)
    created = made.json()
    assert made.headers["location"] == at(created)
    assert created["client_secret"].startswith("cs_mp1_")
    settings = {"public": False, "require_pkce": True, "dpop_bound": False, "environment": "live"}
    assert created | settings == created
    assert created["grant_types"] == ["authorization_code", "refresh_token"]

    renamed = await admin.ask("PATCH", at(created), {"name": "b", "require_pkce": False, "scopes": []})
    expected = {name: value for name, value in created.items() if name != "client_secret"}
    assert renamed.json() == expected | {"name": "b", "require_pkce": False, "scopes": []}
    assert [made.headers["etag"], renamed.headers["etag"]] == ['"1"', '"2"']

    rotated = (await admin.ask("POST", f"{at(created)}/rotate-secret", {"grace_seconds": 60})).json()
    assert rotated["client_secret"] != created["client_secret"]
    assert [secret["current"] for secret in rotated["secrets"]] == [True, False]
    at_once = (await admin.ask("POST", f"{at(created)}/rotate-secret", {"grace_seconds": 0})).json()
    assert len(at_once["secrets"]) == 1

    gone = await admin.ask("DELETE", at(created))
    assert gone.json() == {"id": created["id"], "object": "oauth_client", "deleted": True}
    for method, _, body in CHANGES.values():
        assert status_and_code(await admin.ask(method, at(created), body)) in {
            (404, "not_found"),
            (405, "method_not_allowed"),
        }
    assert status_and_code(await admin.ask("GET", at(created))) == (404, "not_found")

    log = (await admin.ask("GET", "/v1/audit-log?limit=5")).json()["data"]
    actions = ["client.delete", "client.rotate_secret", "client.rotate_secret", "client.update", "client.create"]
    assert [entry["action"] for entry in log] == actions
    assert {entry["actor"]["id"] for entry in log} == {admin.id}


@on_disk
async def test_the_secret_of_an_app_is_shown_once(admin: Caller) -> None:
    created = await admin.app()
    rotated = (await admin.ask("POST", f"{at(created)}/rotate-secret")).json()
    for path in ("/v1/oauth/clients", at(created), "/v1/audit-log"):
        text = (await admin.ask("GET", path)).text
        assert created["client_secret"][7:] not in text
        assert rotated["client_secret"][7:] not in text


@on_disk
@pytest.mark.parametrize(
    "setting, mistaken, why",
    [
        ({"name": ""}, ["name"], "empty"),
        ({"name": "x" * 101}, ["name"], "too long"),
        ({"name": None}, ["name"], "null"),
        ({"scopes": "skills:list"}, ["scopes"], "a text"),
        ({"scopes": ["skills:list", "skills:list"]}, ["scopes"], "twice"),
        ({"scopes": ["skills:*"]}, ["scopes.0"], "held as names, but a wildcard would grow"),
        ({"scopes": ["keys:manage"]}, ["scopes.0"], "held, and never an app's"),
        ({"scopes": ["keys:*"]}, ["scopes.0"], "as wide"),
        ({"scopes": ["skills:list", "skills:x"]}, ["scopes.1"], "nobody defined it"),
        ({"scopes": ["webhooks:manage"]}, ["scopes.0"], "not held"),
        ({"scopes": ["skills:execute", "account:read"]}, [], "held"),
        ({"redirect_uris": ["http://app.example.org/"]}, ["redirect_uris.0"], "no TLS"),
        ({"redirect_uris": [REDIRECT, "https://*.example.org/"]}, ["redirect_uris.1"], "a wildcard"),
        ({"redirect_uris": [f"{REDIRECT}#a"]}, ["redirect_uris.0"], "a fragment"),
        ({"redirect_uris": ["com.example.app:/callback", "http://127.0.0.1/cb"]}, [], "of native apps"),
        ({"redirect_uris": [f"{REDIRECT}?{n}" for n in range(20)]}, [], "as many as can be"),
        ({"redirect_uris": [f"{REDIRECT}?{n}" for n in range(21)]}, ["redirect_uris"], "one more"),
        ({"redirect_uris": []}, ["body"], "authorization_code has none to send users back to"),
        ({"redirect_uris": [], "grant_types": ["client_credentials"]}, [], "nobody is sent back"),
        ({"grant_types": []}, ["body"], "none at all"),
        ({"grant_types": ["password"]}, ["grant_types.0"], "not supported"),
        ({"grant_types": ["authorization_code", "authorization_code"]}, ["grant_types"], "twice"),
        ({"grant_types": ["refresh_token"]}, ["body"], "nothing gives one"),
        ({"grant_types": ["client_credentials"]}, ["body"], "redirect URIs are for another"),
        ({"require_pkce": "no"}, ["require_pkce"], "a text"),
        ({"require_pkce": False, "dpop_bound": True}, [], "both"),
        ({"dpop_bound": 1}, ["dpop_bound"], "a number"),
        ({"tier": "enterprise"}, ["tier"], "the account's"),
        ({"client_secret": "x"}, ["client_secret"], "made here"),
    ],
)
async def test_each_error_in_an_app_is_reported_with_its_place(
    admin: Caller, setting: dict[str, Any], mistaken: list[str], why: str
) -> None:
    app = await admin.app()
    before = await admin.api.head()
    response = await admin.ask("POST", "/v1/oauth/clients", NEW | setting)
    assert (response.status_code, places(response)) == (422 if mistaken else 201, mistaken), why
    if mistaken:
        assert await admin.api.head() == before
    changed = await admin.ask("PATCH", at(app), setting)
    assert (changed.status_code, places(changed)) == (422 if mistaken else 200, mistaken), why


@on_disk
@pytest.mark.parametrize("kinds", [["authorization_code", "client_credentials"], ["client_credentials"]], ids=str)
async def test_a_self_registered_app_never_gets_client_credentials(admin: Caller, kinds: list[str]) -> None:
    of_admin = await admin.app()
    assert of_admin["self_registered"] is False
    made = await admin.api.gateway.oauth_clients.register(
        of_admin["account_id"], name="a", scopes=["skills:list"], redirect_uris=[REDIRECT],
        grant_types=["authorization_code"], is_public=False, binds_tokens=False, max_clients=9, actor=APPLICATION,
    )  # fmt: skip
    assert made is not None
    before = await admin.api.head()
    app = (await admin.ask("GET", f"/v1/oauth/clients/{made[0].id}")).json()
    assert app["self_registered"] is True
    response = await admin.ask("PATCH", at(app), {"grant_types": kinds})
    assert response.status_code == 422
    assert "registered itself" in response.text
    assert (await admin.ask("PATCH", at(app), {"self_registered": False})).status_code == 422
    assert await admin.api.head() == before


@on_disk
@pytest.mark.parametrize("setting", [{"require_pkce": False}, {"grant_types": ["client_credentials"]}], ids=str)
async def test_a_public_app_always_requires_pkce(admin: Caller, setting: dict[str, Any]) -> None:
    app = await admin.app(public=True)
    assert (app["client_secret"], app["secrets"]) == (None, [])
    for method, path, body in (("POST", "/v1/oauth/clients", {**NEW, "public": True}), ("PATCH", at(app), {})):
        response = await admin.ask(method, path, body | setting)
        assert (response.status_code, places(response)) == (422, ["body"])
    assert status_and_code(await admin.ask("POST", f"{at(app)}/rotate-secret")) == (409, "conflict")


@on_disk
@pytest.mark.parametrize("field", ["public", "environment"])
async def test_public_and_environment_of_an_app_cannot_be_changed(admin: Caller, field: str) -> None:
    app = await admin.app()
    assert places(await admin.ask("PATCH", at(app), {field: app[field]})) == [field]


@on_disk
@pytest.mark.parametrize(
    "held, change, status, why",
    [
        (["skills:list"], {"redirect_uris": ["https://evil.example/"]}, 403, "what users allow would come here"),
        (["skills:list"], {"grant_types": ["authorization_code"]}, 403, "who may ask how"),
        (["skills:list"], {"require_pkce": False}, 403, "codes could be swapped"),
        (["skills:list"], {"dpop_bound": False}, 403, "tokens could be taken"),
        (["skills:list"], {"name": "b", "dpop_bound": True}, 403, "with something else"),
        (["skills:list"], {"name": "b"}, 200, "nobody gets anything by that"),
        (["skills:list"], {"scopes": ["account:read"]}, 200, "one dropped, one kept"),
        (["skills:list"], {"scopes": ["account:read", "skills:list", "skills:execute"]}, 200, "one of the caller's"),
        (["skills:list"], {"scopes": ["account:write"]}, 422, "neither's"),
        (["skills:*", "account:*"], {"redirect_uris": ["https://other.example/"]}, 200, "held by wildcards"),
    ],
)
async def test_only_a_key_with_all_scopes_of_an_app_changes_its_trust(
    api: Api, held: Sequence[str], change: dict[str, Any], status: int, why: str
) -> None:
    owner = await api.caller(scopes=("keys:manage", "skills:execute", "account:read"))
    app = await owner.app(scopes=["skills:execute", "account:read"])
    caller = await api.caller(scopes=("keys:manage", *held))
    before = await api.head()
    response = await caller.ask("PATCH", at(app), change)
    assert response.status_code == status, why
    assert (await api.head() == before) is (status != 200)


@on_disk
@pytest.mark.parametrize("held, status", [(["skills:list"], 200), (["skills:*"], 200), (["account:read"], 403)])
async def test_only_a_key_with_all_scopes_of_an_app_rotates_its_secret(
    api: Api, held: Sequence[str], status: int
) -> None:
    app = await (await api.caller()).app(scopes=["skills:list"])
    caller = await api.caller(scopes=("keys:manage", *held))
    before = await api.head()
    response = await caller.ask("POST", f"{at(app)}/rotate-secret")
    assert (response.status_code, "client_secret" in response.json()) == (status, status == 200)
    assert (await api.head() == before) is (status != 200)
    assert (await caller.ask("DELETE", at(app))).status_code == 200  # to end it takes no more than to end a key


@on_disk
async def test_a_scope_that_an_app_loses_concurrently_is_not_restored(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await (await api.caller()).app(scopes=["account:read", "skills:list"])
    admin = await api.caller(scopes=("keys:manage", "skills:list"))
    apps, store = api.gateway.oauth_clients, api.gateway.store
    assert store is not None
    replace_client, taken = store.replace_client, False

    async def overtaken(*arguments: Any) -> Any:  # noqa: ANN401 - as `replace_client`
        nonlocal taken
        if not taken:
            taken = True
            await apps.update(None, app["id"], scopes=["skills:list"])
        return await replace_client(*arguments)

    monkeypatch.setattr(store, "replace_client", overtaken)
    assert status_and_code(await admin.ask("PATCH", at(app), {"scopes": ["account:read"]})) == (409, "conflict")
    assert taken
    assert (await admin.ask("GET", at(app))).json()["scopes"] == ["skills:list"]


@on_disk
@of_every_change
@pytest.mark.parametrize(
    "tag, is_made", [('"2"', True), ("*", True), ('"1", "2"', True), ('"1"', False), ('W/"2"', False), ("2", False)]
)
async def test_if_match_lets_only_the_named_version_of_an_app_be_changed(
    admin: Caller,
    change: str,
    tag: str,
    is_made: bool,  # noqa: FBT001 - a column
) -> None:
    app = await admin.app()
    assert (await admin.ask("PATCH", at(app), {"name": "second"})).headers["etag"] == '"2"'
    before = await admin.api.head()
    method, action, body = CHANGES[change]
    response = await admin.ask(method, at(app) + action, body, headers={"If-Match": tag})
    if is_made:
        assert response.status_code == 200
    else:
        assert status_and_code(response) == (412, "precondition_failed")
    assert (await admin.api.head() == before) is not is_made


@on_disk
async def test_of_concurrent_changes_to_one_version_of_an_app_one_succeeds(admin: Caller) -> None:
    app = await admin.app()
    responses = await asyncio.gather(
        *(admin.ask("PATCH", at(app), {"name": f"name {n}"}, headers={"If-Match": '"1"'}) for n in range(4))
    )
    assert sorted(response.status_code for response in responses) == [200, 412, 412, 412]


@on_disk
async def test_a_test_keys_apps_are_test_apps(api: Api) -> None:
    admin, tester = await api.caller(), await api.caller(environment="test")
    live, test = await admin.app(), await tester.app()
    by_admin = await admin.app(environment="test")
    assert [live["environment"], test["environment"], by_admin["environment"]] == ["live", "test", "test"]
    response = await tester.ask("POST", "/v1/oauth/clients", {**NEW, "environment": "live"})
    assert (response.status_code, places(response)) == (422, ["environment"])
    before = await api.head()
    for method, action, body in (("GET", "", None), *CHANGES.values()):
        responses = [
            await tester.ask(method, f"/v1/oauth/clients/{name}{action}", body) for name in (live["id"], "app_none")
        ]
        assert [status_and_code(response) for response in responses] == [(404, "not_found")] * 2
    assert await api.head() == before

    async def listed(caller: Caller, query: str = "") -> list[str]:
        return [app["id"] for app in (await caller.ask("GET", f"/v1/oauth/clients{query}")).json()["data"]]

    assert await listed(tester) == await listed(tester, "?environment=test") == [by_admin["id"], test["id"]]
    assert await listed(tester, "?environment=live") == []
    assert await listed(admin, "?environment=live") == [live["id"]]
    assert len(await listed(admin)) == 3
    assert places(await tester.ask("GET", f"/v1/oauth/clients?after={live['id']}")) == ["query.after"]


@on_disk
@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_pagination_yields_every_app_once(admin: Caller, limit: int) -> None:
    created = [(await admin.app(name=f"app {n}"))["id"] for n in range(5)]
    assert [app["id"] for app in await walked(admin, "/v1/oauth/clients?", limit)] == created[::-1]


@on_disk
async def test_a_page_can_start_after_a_deleted_app(admin: Caller) -> None:
    first, second = await admin.app(), await admin.app()
    await admin.ask("DELETE", at(second))
    page = (await admin.ask("GET", f"/v1/oauth/clients?after={second['id']}")).json()
    assert [app["id"] for app in page["data"]] == [first["id"]]


@on_disk
@pytest.mark.parametrize("place", ["name", "redirect_uris"])
async def test_a_secret_in_the_wrong_place_of_an_app_is_not_repeated(admin: Caller, place: str) -> None:
    for secret in (admin.secret, (await admin.app())["client_secret"]):
        before = await admin.api.head()
        value = {"name": f"for {secret}", "redirect_uris": [f"{REDIRECT}?key={secret}"]}[place]
        response = await admin.ask("POST", "/v1/oauth/clients", NEW | {place: value})
        assert response.status_code == 422
        assert secret[13:21] not in response.text
        assert await admin.api.head() == before
