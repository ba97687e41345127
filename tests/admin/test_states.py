"""Operations on active, expired and revoked keys, and grace periods."""

from typing import Any

import pytest

from machpay_gateway.core.text import parse_moment
from tests.admin.conftest import Caller, status_and_code


async def test_a_key_revokes_itself_only_with_self_true(admin: Caller) -> None:
    path = f"/v1/keys/{admin.id}/revoke"
    before = await admin.api.head()
    for query in ("", "?self=false"):
        assert status_and_code(await admin.ask("POST", path + query)) == (409, "conflict")
    assert await admin.api.head() == before
    response = await admin.ask("POST", f"{path}?self=true")
    assert (response.status_code, response.json()["status"]) == (200, "revoked")
    assert status_and_code(await admin.ask("GET", "/v1/whoami")) == (401, "invalid_credentials")


async def test_revoking_is_idempotent(admin: Caller) -> None:
    path = f"/v1/keys/{(await admin.created())['id']}/revoke"
    first = await admin.ask("POST", path)
    before = await admin.api.head()
    for query in ("", "?self=true", "?self=false"):
        again = await admin.ask("POST", path + query)
        assert (again.status_code, again.json(), again.headers["etag"]) == (200, first.json(), first.headers["etag"])
    assert await admin.api.head() == before


@pytest.mark.parametrize(
    "state, operation, body, status",
    [
        ("revoked", "PATCH ", {"name": "b"}, 409),
        ("revoked", "PATCH ", {}, 409),
        ("revoked", "PATCH ", {"expires_at": None}, 409),
        ("revoked", "POST /rotate", {}, 409),
        ("revoked", "POST /end-grace", {}, 200),
        ("revoked", "POST /revoke", {}, 200),
        ("expired", "PATCH ", {"name": "b"}, 200),
        ("expired", "POST /rotate", {}, 409),
        ("expired", "POST /rotate", {"grace_seconds": 0}, 409),
        ("expired", "POST /end-grace", {}, 200),
        ("expired", "POST /revoke", {}, 200),
    ],
)
async def test_a_revoked_or_expired_key_refuses_most_changes(
    admin: Caller, state: str, operation: str, body: dict[str, Any], status: int
) -> None:
    created = await admin.created()
    path = f"/v1/keys/{created['id']}"
    if state == "revoked":
        await admin.ask("POST", f"{path}/revoke")
    else:
        await admin.api.expire(created["id"])
    assert (await admin.ask("GET", path)).json()["status"] == state
    before = await admin.api.head()
    method, action = operation.split(" ")
    response = await admin.ask(method, path + action, body)
    assert response.status_code == status
    if status == 409:
        assert response.json()["code"] == "conflict"
        assert created["id"] in response.json()["detail"]
        assert await admin.api.head() == before
    assert (await admin.user(created).ask("GET", "/v1/whoami")).status_code == 401


@pytest.mark.parametrize("expires_at", [None, "2099-01-01T00:00:00Z"])
async def test_a_later_expiry_reactivates_an_expired_key(admin: Caller, expires_at: str | None) -> None:
    created = await admin.created()
    path = f"/v1/keys/{created['id']}"
    await admin.api.expire(created["id"])
    assert (await admin.user(created).ask("GET", "/v1/whoami")).status_code == 401
    response = await admin.ask("PATCH", path, {"expires_at": expires_at})
    assert (response.json()["status"], response.json()["expires_at"]) == ("active", expires_at)
    assert (await admin.user(created).ask("GET", "/v1/whoami")).status_code == 200


async def test_a_grace_never_outlasts_the_key(admin: Caller) -> None:
    created = await admin.created(expires_at="2099-01-01T00:00:00Z")
    path = f"/v1/keys/{created['id']}"
    rotated = (await admin.ask("POST", f"{path}/rotate", {"grace_seconds": 604_800})).json()
    assert rotated["secrets"][1]["expires_at"] < "2099"
    # A key that ends sooner than its grace would: its expiry is moved near, then it is rotated.
    near = parse_moment(rotated["secrets"][1]["expires_at"]) - 86_400
    await admin.api.gateway.keys.update(None, created["id"], expires_at=near)
    again = (await admin.ask("POST", f"{path}/rotate", {"grace_seconds": 604_800})).json()
    assert again["secrets"][1]["expires_at"] == again["expires_at"]


async def test_without_a_grace_the_old_secret_ends_at_once(admin: Caller) -> None:
    created = await admin.created()
    response = await admin.ask("POST", f"/v1/keys/{created['id']}/rotate", {"grace_seconds": 0})
    rotated = response.json()
    assert [secret["current"] for secret in rotated["secrets"]] == [True]
    assert (await admin.user(created).ask("GET", "/v1/whoami")).status_code == 401
    assert (await admin.user(rotated).ask("GET", "/v1/whoami")).status_code == 200


async def test_a_second_rotation_ends_the_grace_of_the_first(admin: Caller) -> None:
    created = await admin.created()
    path = f"/v1/keys/{created['id']}/rotate"
    second, third = [(await admin.ask("POST", path, {"grace_seconds": 600})).json() for _ in range(2)]
    statuses = [(await admin.user(key).ask("GET", "/v1/whoami")).status_code for key in (created, second, third)]
    assert statuses == [401, 200, 200]


async def test_ending_a_grace_without_one_changes_nothing(admin: Caller) -> None:
    created = await admin.created()
    before = await admin.api.head()
    response = await admin.ask("POST", f"/v1/keys/{created['id']}/end-grace")
    assert (response.status_code, response.headers["etag"]) == (200, '"1"')
    assert response.json() == {name: value for name, value in created.items() if name != "secret"}
    assert await admin.api.head() == before


async def test_a_change_takes_effect_from_the_next_request_on(admin: Caller) -> None:
    created = await admin.created(scopes=["skills:list"])
    user = admin.user(created)
    assert (await user.ask("GET", "/v1/whoami")).json()["scopes"] == ["skills:list"]
    path = f"/v1/keys/{created['id']}"
    await admin.ask("PATCH", path, {"scopes": ["account:read"], "name": "renamed"})
    told_now = (await user.ask("GET", "/v1/whoami")).json()
    assert (told_now["scopes"], told_now["name"]) == (["account:read"], "renamed")
    await admin.ask("PATCH", path, {"allowed_ips": ["203.0.113.0/24"]})
    assert status_and_code(await user.ask("GET", "/v1/whoami")) == (403, "address_not_allowed")


async def test_the_secret_is_shown_once(admin: Caller) -> None:
    created = await admin.created()
    path = f"/v1/keys/{created['id']}"
    for read in ("/v1/keys", path, "/v1/audit-log", "/v1/whoami"):
        assert created["secret"][8:] not in (await admin.ask("GET", read)).text
    rotated = (await admin.ask("POST", f"{path}/rotate")).json()
    log = (await admin.ask("GET", "/v1/audit-log")).text
    assert rotated["secret"][8:] not in log
