"""Secrets need a recently entered password, and idle sessions end."""

import re
import time
from typing import Any

import pytest

from machpay_gateway.settings.console import ConsoleSettings
from tests.console.app_records import REDIRECT
from tests.console.crafted import posted
from tests.console.harness import ADMIN, PASSWORD, URL, VIEWER, Rig, forms_of, secret_in, serving_console, submitted

NEW = "/console/keys/new"


def later(rig: Rig, minutes: float) -> None:
    """Set the clock of sessions so many *minutes* ahead of now."""
    users: Any = rig.gateway.users
    users._clock = lambda: time.time() + minutes * 60  # noqa: SLF001 - the tests' way to another time


async def signed_in_before(rig: Rig, minutes: float, email: str = ADMIN) -> Any:  # noqa: ANN401 - a browser
    """Return a browser in which the user signed in so many *minutes* ago, and has been busy since."""
    later(rig, -minutes)
    browser = await rig.signed_in(email)
    for ago in range(int(minutes), -1, -30):
        later(rig, -ago)
        assert (await browser.get("/console/keys")).status_code == 200
    later(rig, 0)
    return browser


async def test_creating_a_secret_asks_for_the_password_again_and_then_continues(rig: Rig) -> None:
    browser = await signed_in_before(rig, 16)
    page = await submitted(browser, await browser.get(NEW), NEW, name='late & "co"', scopes=["skills:list"])
    assert page.status_code == 200
    assert "Confirm your password" in page.text
    assert list(await rig.gateway.keys.list(rig.account.id)) == []
    wrong = await submitted(browser, page, NEW, confirm_password="wrong horse battery")
    assert wrong.status_code == 400
    assert wrong.text.count("This is not your password.") == 1
    assert "wrong horse battery" not in wrong.text
    made = await submitted(browser, wrong, NEW, confirm_password=PASSWORD)
    assert secret_in(made).startswith("sk_live_")
    assert PASSWORD not in made.text
    (key,) = await rig.gateway.keys.list(rig.account.id)
    assert key.name == 'late & "co"'
    # The same page sent twice makes one key, and what comes next asks for nothing.
    again = await submitted(browser, wrong, NEW, confirm_password=PASSWORD)
    assert again.headers["location"] == "/console/keys?told=made-before"
    rotate = f"/console/keys/{key.id}/rotate"
    assert secret_in(await submitted(browser, await browser.get(f"/console/keys/{key.id}"), rotate))
    assert len(list(await rig.gateway.keys.list(rig.account.id))) == 1


async def test_every_form_that_issues_a_secret_asks_and_others_do_not(rig: Rig) -> None:
    key, _ = await rig.key()
    app, _ = await rig.gateway.oauth_clients.create(
        rig.account.id, name="An app", scopes=["skills:list"], redirect_uris=[REDIRECT]
    )
    browser = await signed_in_before(rig, 16)
    before = await rig.gateway.store.audit_head()
    for path in (f"/keys/{key.id}/rotate", "/apps/new", f"/apps/{app.id}/rotate", "/keys/new", "/sessions/pass"):
        assert "Confirm your password" in (await posted(browser, path, name="x", grace="0")).text, path
    assert await rig.gateway.store.audit_head() == before
    for path in (f"/keys/{key.id}", f"/apps/{app.id}", f"/keys/{key.id}/revoke", "/sessions/end-others"):
        assert "Confirm your password" not in (await posted(browser, path, name="x")).text, path


async def test_role_and_csrf_token_are_checked_before_the_password(rig: Rig) -> None:
    viewer, admin = await signed_in_before(rig, 16, VIEWER), await signed_in_before(rig, 16)
    assert (await posted(viewer, "/keys/new", confirm_password=PASSWORD)).status_code == 403
    page = await admin.get(NEW)
    fields = dict(forms_of(page)[NEW]) | {"proof": "0" * 64, "confirm_password": PASSWORD}
    assert (await submitted(admin, page, NEW, **fields)).status_code == 403


async def test_guessing_in_an_unattended_browser_is_throttled(rig: Rig) -> None:
    browser = await signed_in_before(rig, 16)
    statuses = [(await posted(browser, "/keys/new", confirm_password=f"guess {n}")).status_code for n in range(12)]
    assert statuses == [400] * 10 + [429] * 2
    assert "Too many attempts" in (await posted(browser, "/keys/new", confirm_password=PASSWORD)).text
    other = await signed_in_before(rig, 0, VIEWER)
    assert (await other.get("/console/keys")).status_code == 200


@pytest.mark.parametrize(
    "minutes, confirm_minutes, asks", [(14, 15, False), (16, 15, True), (55, 0, False), (3, 2, True)]
)
async def test_confirm_minutes_sets_how_long_a_password_counts(
    minutes: int, confirm_minutes: int, *, asks: bool
) -> None:
    async with serving_console(console=ConsoleSettings(URL, confirm_minutes=confirm_minutes)) as rig:
        browser = await signed_in_before(rig, minutes)
        assert ("Confirm your password" in (await posted(browser, "/keys/new")).text) == asks


@pytest.mark.parametrize("idle_minutes", [60, 5])
async def test_an_idle_session_ends(idle_minutes: int) -> None:
    async with serving_console(console=ConsoleSettings(URL, idle_minutes=idle_minutes)) as rig:
        browser = await rig.signed_in()
        for minutes in (idle_minutes - 2, 2 * idle_minutes - 4):
            later(rig, minutes)
            assert (await browser.get("/console/keys")).status_code == 200
        later(rig, 3 * idle_minutes)
        assert (await browser.get("/console/keys")).status_code == 303
        assert await rig.gateway.users.sign_ins(rig.users[ADMIN]) == []


async def test_background_requests_do_not_extend_a_session(rig: Rig) -> None:
    key, _ = await rig.key()
    browser = await rig.signed_in()
    await submitted(browser, await browser.get(f"/console/keys/{key.id}"), f"/console/keys/{key.id}/rotate")
    page = await browser.get(f"/console/keys/{key.id}")
    (name, value) = re.search(r"""hx-headers='{"([^"]*)": "([^"]*)"}'""", page.text).groups()  # type: ignore[union-attr]
    for minutes in (20, 40, 59):
        later(rig, minutes)
        for path in ("/console/usage.json", f"/console/keys/{key.id}"):
            assert (await browser.get(path, headers={name: value})).status_code == 200
    later(rig, 61)
    assert (await browser.get("/console/usage.json")).status_code == 303


async def test_no_session_lasts_longer_than_twelve_hours(rig: Rig) -> None:
    browser = await signed_in_before(rig, 12 * 60 - 1)
    later(rig, 2)
    assert (await browser.get("/console/keys")).status_code == 303
