"""Users, changed by two at once."""

import asyncio
import re
from dataclasses import replace
from typing import Any

import pytest

from machpay_gateway.core.errors import InputError
from tests.oauth.harness import PASSWORD, Rig, asks_to_sign_in, request_of, submitted


async def test_who_is_shut_out_while_a_password_is_hashed_stays_shut_out(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, passwords = rig.gateway.users, rig.gateway.users._passwords  # noqa: SLF001 - to come in between
    hashed = passwords.compute_hash

    async def overtaken(password: str) -> str:
        await users.disable(rig.user)
        return await hashed(password)

    monkeypatch.setattr(passwords, "compute_hash", overtaken)
    changed = await users.set_password(rig.user, PASSWORD + "!")
    assert changed.disabled_at is not None
    stored = await users.find(None, rig.user.id)
    assert stored == changed
    assert stored.password != rig.user.password


async def test_changes_that_overtake_one_another_are_all_kept(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    users, store = rig.gateway.users, rig.gateway.store
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


@pytest.mark.parametrize("prompt", ["login", "select_account"])
async def test_signing_in_anew_ends_the_session_that_was_there(rig: Rig, prompt: str) -> None:
    browser, parameters = rig.http(), request_of(rig.client)
    page = await browser.get("/oauth/authorize", params=parameters)
    assert (await submitted(browser, page, email=rig.user.email, password=PASSWORD)).status_code == 303
    before = browser.cookies["__Host-machpay-session"]
    page = await browser.get("/oauth/authorize", params=parameters | {"prompt": prompt})
    assert asks_to_sign_in(page)
    assert (await submitted(browser, page, email=rig.user.email, password=PASSWORD)).status_code == 303
    assert browser.cookies["__Host-machpay-session"] != before
    assert await rig.gateway.users.signed_in(before) is None
    assert len(await rig.gateway.users.sign_ins(rig.user)) == 1


async def test_a_form_that_another_tab_overtook_goes_on_unless_the_app_wants_it(rig: Rig) -> None:
    browser, parameters = rig.http(), request_of(rig.client)
    pages = [await browser.get("/oauth/authorize", params=parameters | more) for more in ({}, {"prompt": "login"}, {})]
    assert (await submitted(browser, pages[2], email=rig.user.email, password=PASSWORD)).status_code == 303
    answer = await submitted(browser, pages[0], email="other@example.org", password="looked at by nobody")
    assert answer.status_code == 303
    assert not asks_to_sign_in(await browser.get(answer.headers["location"]))
    answer = await submitted(browser, pages[1], email=rig.user.email, password=PASSWORD)
    assert answer.status_code == 200
    assert asks_to_sign_in(answer)
    assert len(await rig.gateway.users.sign_ins(rig.user)) == 1


async def test_signing_out_of_the_consent_page_clears_what_the_site_kept(rig: Rig) -> None:
    browser = rig.http()
    page = await browser.get("/oauth/authorize", params=request_of(rig.client))
    page = await browser.get(
        (await submitted(browser, page, email=rig.user.email, password=PASSWORD)).headers["location"]
    )
    form = next(
        n for n, action in enumerate(re.findall(r'<form[^>]*action="([^"]*)"', page.text)) if "sign-out" in action
    )
    answer = await submitted(browser, page, form=form)
    assert answer.headers["clear-site-data"] == '"cache", "storage"'
    assert "__Host-machpay-session" not in browser.cookies
