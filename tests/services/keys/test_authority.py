"""The use cases ask for the authority of who acts, of the very key that they change."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from machpay_gateway.core.accounts.management import Manager, Role
from machpay_gateway.core.errors import NotPermitted
from machpay_gateway.core.keys.audit import Change
from machpay_gateway.core.keys.idempotency import ResponseFactory
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.services.keys import Keys
from machpay_gateway.stores.sql import SqlStore
from tests.keyrings import ACME, GLOBEX, NOW

HELD = Scopes(frozenset({"keys:manage", "skills:list"}))
CALLER = Manager("api_key", "key_caller", role=Role.API_KEY, account_id=ACME.id, scopes=HELD)
SESSION = replace(CALLER, kind="session", role=Role.TOKEN)
VIEWER = Manager("user", "user_1", role=Role.VIEWER, account_id=ACME.id)
USES: dict[str, Callable[[Keys, str, Manager], Awaitable[object]]] = {
    "update": lambda keys, key_id, actor: keys.update(None, key_id, name="renamed", actor=actor),
    "loosen": lambda keys, key_id, actor: keys.update(None, key_id, expires_at=NOW + 90, actor=actor),
    "rotate": lambda keys, key_id, actor: keys.rotate(None, key_id, actor=actor),
    "end_grace": lambda keys, key_id, actor: keys.end_grace(None, key_id, actor=actor),
    "revoke": lambda keys, key_id, actor: keys.revoke(None, key_id, actor=actor),
}
of_every_use = pytest.mark.parametrize("use", USES)


@of_every_use
@pytest.mark.parametrize("actor", [SESSION, VIEWER], ids=["session", "viewer"])
async def test_who_may_only_read_changes_nothing(keys: Keys, key: KeyRecord, use: str, actor: Manager) -> None:
    for acting in (actor, replace(actor, id=key.id)):  # a session has the id of its key
        with pytest.raises(NotPermitted):
            await USES[use](keys, key.id, acting)
    assert await keys.get(None, key.id) == key
    with pytest.raises(NotPermitted):
        await keys.create(ACME.id, name="new", scopes=[], environment="live", actor=actor)
    assert list(await keys.list(None)) == [key]


@of_every_use
@pytest.mark.parametrize(
    "actor",
    [replace(CALLER, account_id=GLOBEX.id), replace(CALLER, environment="test")],
    ids=["account", "environment"],
)
async def test_a_key_that_is_not_the_callers_to_see_is_absent_even_when_no_account_is_named(
    keys: Keys, key: KeyRecord, use: str, actor: Manager
) -> None:
    assert await USES[use](keys, key.id, actor) is None
    assert await keys.get(None, key.id) == key
    assert await USES[use](keys, key.id, CALLER) is not None


@pytest.mark.parametrize("change", ["rotate", "loosen"])
async def test_a_scope_that_the_key_is_given_meanwhile_counts(
    store: SqlStore, keys: Keys, key: KeyRecord, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keys.update(None, key.id, expires_at=NOW + 60)
    replace_key, given = store.replace_key, False

    async def overtaken(record: KeyRecord, change: Change, keep: ResponseFactory | None = None) -> bool:
        nonlocal given
        if not given:
            given = True
            await keys.update(None, key.id, scopes=["skills:list", "skills:execute"])
        return await replace_key(record, change, keep)

    monkeypatch.setattr(store, "replace_key", overtaken)
    with pytest.raises(NotPermitted, match="does not hold"):
        await USES[change](keys, key.id, CALLER)
    stored = await keys.get(None, key.id)
    assert given
    assert stored is not None
    assert (stored.secrets, stored.expires_at) == (key.secrets, NOW + 60)


@pytest.mark.parametrize(
    "scopes, environment, account_id",
    [
        (["skills:execute"], "live", ACME.id),
        (["keys:manage"], "live", ACME.id),
        ([], "test", ACME.id),
        ([], "live", GLOBEX.id),
    ],
)
async def test_a_key_makes_no_key_beyond_its_own_authority(
    keys: Keys, store: SqlStore, scopes: list[str], environment: str, account_id: str
) -> None:
    head, caller = await store.audit_head(), replace(CALLER, environment="live")
    with pytest.raises(NotPermitted):
        await keys.create(account_id, name="new", scopes=scopes, environment=environment, actor=caller)
    assert await store.audit_head() == head
