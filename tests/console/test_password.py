"""Users change their own password, which ends every other session."""

import pytest

from tests.console.crafted import posted, refused_from_elsewhere
from tests.console.harness import ADMIN, PASSWORD, VIEWER, Rig, forms_of, submitted

NEW = "a wholly different passphrase"


@pytest.mark.parametrize("email", [ADMIN, VIEWER])
async def test_a_user_changes_their_password_and_stays_signed_in_here_alone(rig: Rig, email: str) -> None:
    here, other = await rig.signed_in(email), await rig.signed_in(email)
    before = here.cookies["__Host-machpay-session"]
    device = here.cookies["__Host-machpay-device"]
    page = await here.get("/console/password")
    answer = await submitted(here, page, "/console/password", current=PASSWORD, new=NEW, again=NEW)
    assert answer.headers["location"] == "/console/sessions?told=password-changed"
    assert here.cookies["__Host-machpay-session"] != before
    assert here.cookies["__Host-machpay-device"] != device
    assert "Password changed." in (await here.get(answer.headers["location"])).text
    assert (await other.get("/console/sessions")).status_code == 303
    thief = rig.http()
    thief.cookies.set("__Host-machpay-session", before)
    assert (await thief.get("/console/keys")).status_code == 303
    for password, status in ((PASSWORD, 400), (NEW, 303)):
        fresh = rig.http()
        answer = await submitted(fresh, await fresh.get("/console/sign-in"), email=email, password=password)
        assert answer.status_code == status


@pytest.mark.parametrize(
    "current, new, again, status, message",
    [
        ("wrong horse battery", NEW, NEW, 400, "This is not your password."),
        (PASSWORD, NEW, NEW + "x", 422, "The passwords do not match."),
        (PASSWORD, PASSWORD, PASSWORD, 422, "The new password is the current one."),
        (PASSWORD, "password1234", "password1234", 422, "it is common, or close to a common one"),
        (PASSWORD, "acme-acme-2026", "acme-acme-2026", 422, "it is common, or close to a common one"),
        (PASSWORD, f"{ADMIN}1", f"{ADMIN}1", 422, "it is made of your email"),
        (PASSWORD, "short", "short", 422, "has 5 characters"),
        (PASSWORD, "x" * 1025, "x" * 1025, 422, "has 1025 characters"),
        ("", "", "", 400, "This is not your password."),
    ],
)
async def test_a_refused_password_has_an_error_and_changes_nothing(
    rig: Rig, current: str, new: str, again: str, *, status: int, message: str
) -> None:
    browser = await rig.signed_in()
    user = await rig.gateway.users.find(None, ADMIN)
    page = await browser.get("/console/password")
    answer = await submitted(browser, page, "/console/password", current=current, new=new, again=again)
    assert answer.status_code == status
    assert message in answer.text
    assert not new or new == ADMIN or new not in answer.text
    assert await rig.gateway.users.find(None, ADMIN) == user
    assert (await browser.get("/console/keys")).status_code == 200


async def test_guessing_the_current_password_is_throttled(rig: Rig) -> None:
    browser = await rig.signed_in()
    fields = {"new": NEW, "again": NEW}
    statuses = [(await posted(browser, "/password", current=f"guess {n}", **fields)).status_code for n in range(11)]
    assert statuses == [400] * 10 + [429]


async def test_no_other_site_can_change_the_password(rig: Rig) -> None:
    browser = await rig.signed_in()
    assert await refused_from_elsewhere(browser, "/password", current=PASSWORD, new=NEW, again=NEW)


async def test_a_change_does_not_overwrite_a_password_that_an_operator_set_meanwhile(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, users = await rig.signed_in(), rig.gateway.users
    is_right = users._passwords.is_right  # noqa: SLF001 - to come in between

    async def overtaken(password: str, digest: str | None, _owner: object) -> bool:
        result = await is_right(password, digest)
        await users.set_password(rig.users[ADMIN], "the operator chose this one")
        return result

    monkeypatch.setattr(users._passwords, "is_right", overtaken)  # noqa: SLF001 - as above
    answer = await posted(browser, "/password", current=PASSWORD, new=NEW, again=NEW)
    assert answer.status_code in {303, 422}
    monkeypatch.undo()
    fresh = rig.http()
    page = await fresh.get("/console/sign-in")
    assert (await submitted(fresh, page, email=ADMIN, password="the operator chose this one")).status_code == 303


async def test_every_page_links_to_the_form(rig: Rig) -> None:
    browser = await rig.signed_in(VIEWER)
    for path in ("/console/keys", "/console/sessions", "/console/password"):
        assert 'href="/console/password"' in (await browser.get(path)).text
    assert "/console/password" in forms_of(await browser.get("/console/password"))
