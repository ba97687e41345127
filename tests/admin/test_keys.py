"""The lifecycle of a key over HTTP."""

from typing import Any

from tests.admin.conftest import Caller


def without_use(document: dict[str, Any]) -> dict[str, Any]:
    """Return the key's *document* without its last use, which is stored a second later."""
    secrets = [{**secret, "last_used_at": None} for secret in document["secrets"]]
    return {**document, "secrets": secrets, "last_used_at": None}


async def test_the_lifecycle_of_a_key(admin: Caller) -> None:
    created = await admin.created(allowed_ips=["192.0.2.0/24"], metadata={"team": "ops"})
    path = f"/v1/keys/{created['id']}"
    user = Caller(admin.api, created["id"], created["secret"])
    assert (await user.ask("GET", "/v1/whoami")).json()["id"] == created["id"]

    renamed = await admin.ask("PATCH", path, {"name": "renamed"})
    expected = {**{name: value for name, value in created.items() if name != "secret"}, "name": "renamed"}
    assert without_use(renamed.json()) == expected
    assert renamed.headers["etag"] == '"2"'

    rotated = (await admin.ask("POST", f"{path}/rotate", {"grace_seconds": 60})).json()
    assert rotated["secret"] != created["secret"]
    assert [secret["current"] for secret in rotated["secrets"]] == [True, False]
    after = Caller(admin.api, created["id"], rotated["secret"])
    assert [(await each.ask("GET", "/v1/whoami")).status_code for each in (user, after)] == [200, 200]

    ended = await admin.ask("POST", f"{path}/end-grace")
    assert len(ended.json()["secrets"]) == 1
    assert [(await each.ask("GET", "/v1/whoami")).status_code for each in (user, after)] == [401, 200]

    revoked = await admin.ask("POST", f"{path}/revoke")
    assert revoked.json()["status"] == "revoked"
    assert (await after.ask("GET", "/v1/whoami")).status_code == 401
    assert without_use((await admin.ask("GET", path)).json()) == without_use(revoked.json())

    log = (await admin.ask("GET", "/v1/audit-log?limit=5")).json()["data"]
    assert [entry["action"] for entry in log] == [
        "key.revoke",
        "key.end_grace",
        "key.rotate",
        "key.update",
        "key.create",
    ]
    assert {entry["actor"]["id"] for entry in log} == {admin.id}
    assert {entry["actor"]["address"] for entry in log} == {"192.0.2.1"}
