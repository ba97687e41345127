"""Users, changed by two at once."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from machpay_gateway.core.errors import InputError
from tests.oauth.rigs import PASSWORD, Rig


async def test_who_is_shut_out_while_a_password_is_hashed_stays_shut_out(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, passwords = rig.gateway.users, rig.gateway.users._passwords  # noqa: SLF001 - to come in between
    hashed = passwords.hashed

    async def overtaken(password: str) -> str:
        await users.disable(rig.user)
        return await hashed(password)

    monkeypatch.setattr(passwords, "hashed", overtaken)
    changed = await users.set_password(rig.user, PASSWORD + "!")
    assert changed.disabled_at is not None
    known = await users.find(None, rig.user.id)
    assert known == changed
    assert known.password != rig.user.password


async def test_changes_that_overtake_one_another_are_all_kept(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    users, store = rig.gateway.users, rig.gateway.store.oauth
    assert store is not None
    replace_user, taken = store.replace_user, False

    async def overtaken(*arguments: Any) -> Any:  # noqa: ANN401 - as `replace_user`
        nonlocal taken
        if not taken:
            taken = True
            await users.disable(rig.user)
        return await replace_user(*arguments)

    monkeypatch.setattr(store, "replace_user", overtaken)
    changed = await users.set_password(rig.user, PASSWORD + "!")
    assert taken
    assert changed.disabled_at is not None
    assert await users.find(None, rig.user.id) == changed


async def test_shutting_out_twice_is_shutting_out_once(rig: Rig) -> None:
    users = rig.gateway.users
    first = await users.disable(rig.user)
    before = await rig.gateway.store.audit_head()
    again = await asyncio.gather(*(users.disable(rig.user) for _ in range(3)))
    assert again == [first] * 3
    assert await rig.gateway.store.audit_head() == before
    assert (await users.enable(first)).disabled_at is None


async def test_a_user_of_another_account_is_not_changed(rig: Rig) -> None:
    other = await rig.gateway.accounts.create("globex", "standard")
    with pytest.raises(InputError, match="There is no user"):
        await rig.gateway.users.disable(replace(rig.user, account_id=other.id))
