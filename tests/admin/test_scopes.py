"""A key can assign only scopes that it holds."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from machpay_gateway.core.keys.audit import Change
from machpay_gateway.core.keys.idempotency import ResponseFactory
from machpay_gateway.core.keys.key import KeyRecord
from tests.admin.conftest import Api, Caller, in_memory, places, serving_api, status_and_code


@in_memory
@pytest.mark.parametrize(
    "held, requested, mistaken, why",
    [
        (["skills:list"], ["skills:list"], [], "the same scope"),
        (["skills:list"], [], [], "none at all"),
        (["skills:*"], ["skills:list", "skills:execute"], [], "a wildcard covers its family"),
        (["skills:*"], ["skills:*"], [], "the wildcard itself"),
        (["skills:*", "skills:list"], ["skills:*", "skills:list"], [], "both"),
        (["skills:list"], ["skills:*"], ["scopes.0"], "one scope is not its family"),
        (["skills:list", "skills:execute"], ["skills:*"], ["scopes.0"], "all there are today are not all to come"),
        (["skills:list"], ["skills:list", "skills:execute"], ["scopes.1"], "not held"),
        (["skills:*"], ["account:read"], ["scopes.0"], "another family"),
        ([], ["keys:manage"], ["scopes.0"], "held, and an operator's to give"),
        ([], ["keys:*"], ["scopes.0"], "as wide"),
        (["keys:*"], ["keys:manage"], ["scopes.0"], "held through its wildcard"),
        (["keys:*"], ["keys:*"], ["scopes.0"], "held as the wildcard itself"),
        (["skills:*"], ["*"], ["scopes.0"], "no such wildcard"),
        (["skills:*"], ["*:*"], ["scopes.0"], "no such wildcard"),
        (["skills:*"], ["skills:*:*"], ["scopes.0"], "no such wildcard"),
        (["skills:*"], ["skills:x"], ["scopes.0"], "nobody defined it"),
        (["skills:*"], ["SKILLS:list"], ["scopes.0"], "names are case-sensitive"),
        (["skills:list"], ["skills:list "], ["scopes.0"], "a blank is part of a name"),
        (["skills:list"], [""], ["scopes.0"], "an empty name"),
        (["skills:list"], ["skills:list account:read"], ["scopes.0"], "two names in one"),
    ],
)
async def test_a_new_key_gets_at_most_the_scopes_of_its_creator(
    api: Api, held: Sequence[str], requested: Sequence[str], mistaken: Sequence[str], why: str
) -> None:
    caller = await api.caller(scopes=("keys:manage", *held))
    before = await api.head()
    response = await caller.ask("POST", "/v1/keys", {"name": "child", "scopes": requested})
    assert (response.status_code, places(response)) == (422 if mistaken else 201, mistaken), why
    assert (await api.head() == before) is bool(mistaken)
    if not mistaken:
        assert response.json()["scopes"] == sorted(requested)


async def test_an_update_may_keep_the_keys_scopes_and_add_the_callers(api: Api) -> None:
    admin = await api.caller(scopes=("keys:manage", "skills:list"))
    other_id, _ = await api.guarded.key(scopes=["keys:manage", "account:read", "account:write"])
    path = f"/v1/keys/{other_id}"
    for scopes in (
        ["keys:manage", "account:read", "account:write"],  # as they are
        ["keys:manage", "account:read", "skills:list"],  # one dropped, one given
        ["account:read"],
    ):
        response = await admin.ask("PATCH", path, {"scopes": scopes})
        assert (response.status_code, response.json()["scopes"]) == (200, sorted(scopes))
    before = await api.head()
    for scopes in (["keys:manage"], ["account:read", "account:write"], ["account:*"]):  # gone is gone
        assert status_and_code(await admin.ask("PATCH", path, {"scopes": scopes})) == (422, "invalid_fields")
    assert await api.head() == before


async def test_a_scope_that_is_removed_concurrently_is_not_restored(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = await api.caller(scopes=("keys:manage", "skills:list"))
    key_id, _ = await api.guarded.key(scopes=["account:read", "skills:list"])
    store, keyring = api.gateway.store, api.gateway.keys
    replace_key, taken = store.replace_key, False

    async def overtaken(record: KeyRecord, change: Change, keep: ResponseFactory | None = None) -> bool:
        nonlocal taken
        if not taken:
            taken = True
            await keyring.update(None, key_id, scopes=["skills:list"])
        return await replace_key(record, change, keep)

    monkeypatch.setattr(store, "replace_key", overtaken)
    response = await admin.ask("PATCH", f"/v1/keys/{key_id}", {"scopes": ["account:read"]})
    assert taken
    assert status_and_code(response) == (409, "conflict")
    record = await keyring.get(None, key_id)
    assert record is not None
    assert list(record.scopes) == ["skills:list"]


@pytest.mark.parametrize(
    "held, scopes, status",
    [
        (["skills:list"], ["skills:list"], 200),
        (["skills:*"], ["skills:list", "skills:execute"], 200),
        (["skills:list"], [], 200),
        (["skills:list"], ["account:read"], 403),
        (["skills:list"], ["skills:*"], 403),
        (["skills:list"], ["keys:manage", "skills:list"], 200),  # a secret for what the caller holds anyway
        (["skills:list"], ["keys:*"], 403),
    ],
)
async def test_only_a_key_within_the_callers_scopes_is_rotated_for_it(
    api: Api, held: Sequence[str], scopes: Sequence[str], status: int
) -> None:
    caller = await api.caller(scopes=("keys:manage", *held))
    key_id, _ = await api.guarded.key(scopes=scopes)
    before = await api.head()
    response = await caller.ask("POST", f"/v1/keys/{key_id}/rotate")
    assert response.status_code == status
    assert ("secret" in response.json(), await api.head() != before) == (status == 200, status == 200)


async def test_any_manager_may_rotate_itself(api: Api) -> None:
    caller = await api.caller(scopes=("keys:*", "account:write"))
    response = await caller.ask("POST", f"/v1/keys/{caller.id}/rotate")
    assert response.status_code == 200
    assert (await caller.user(response.json()).ask("GET", "/v1/keys")).status_code == 200


@in_memory
@pytest.mark.parametrize(
    "field, value", [("tier", "enterprise"), ("account_id", "acct_1"), ("id", "key_1"), ("revoked_at", None)]
)
async def test_read_only_fields_are_refused(admin: Caller, field: str, value: Any) -> None:  # noqa: ANN401 - JSON
    created = await admin.created()
    assert created["tier"] == "standard"
    for method, path, body in (
        ("POST", "/v1/keys", {"name": "a", "scopes": [], field: value}),
        ("PATCH", f"/v1/keys/{created['id']}", {field: value}),
        ("POST", f"/v1/keys/{created['id']}/rotate", {field: value}),
        ("POST", f"/v1/keys/{created['id']}/revoke", {field: value}),
    ):
        response = await admin.ask(method, path, body)
        assert (response.status_code, places(response)) == (422, [field])


async def test_concurrent_changes_by_two_managers_never_combine_their_scopes(api: Api) -> None:
    one = await api.caller(scopes=("keys:manage", "skills:list"))
    two = await api.caller(scopes=("keys:manage", "account:read"))
    created = await one.created(scopes=[])
    path = f"/v1/keys/{created['id']}"
    responses = await asyncio.gather(
        *(
            caller.ask("PATCH", path, {"scopes": [name]})
            for caller, name in ((one, "skills:list"), (two, "account:read"))
        )
    )
    assert [response.status_code for response in responses] == [200, 200]
    assert (await one.ask("GET", path)).json()["scopes"] in (["skills:list"], ["account:read"])


@pytest.mark.own_gateway
@pytest.mark.parametrize("path", ["/v1/keys", "/v1/oauth/clients"])
async def test_a_scope_that_is_not_defined_is_told_with_the_line_to_add(tmp_path: Path, path: str) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text("", encoding="utf-8")
    async with serving_api(config=config) as api:
        caller = await api.caller(scopes=["keys:manage", "skills:*"])
        body = {"name": "a", "scopes": ["orders:read"], "environment": "live", "redirect_uris": ["https://a.example/x"]}
        response = await caller.ask("POST", path, body)

    (error,) = [error for error in response.json()["errors"] if error["place"] == "scopes.0"]
    line = '"orders:read" = "What it allows"'
    assert error["reason"].endswith(f"An operator defines it in gateway.toml, below [scopes]: {line}.")
    assert str(tmp_path) not in response.text
