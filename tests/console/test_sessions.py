"""The page on a user's sessions."""

import re
import time
from html import unescape

import pytest
from httpx2 import AsyncClient

from machpay_gateway.core.accounts.user import SignIn
from tests.console.crafted import below, lose, posted, refused_from_elsewhere
from tests.console.harness import ADMIN, PASSWORD, STRANGER, URL, VIEWER, Rig, forms_of, submitted


@pytest.mark.parametrize("email", [ADMIN, VIEWER])
async def test_sessions_are_listed_newest_first_and_this_one_is_marked(rig: Rig, email: str) -> None:
    older = await rig.signed_in(email, "192.0.2.7")
    newer = await rig.signed_in(email, "2001:db8::1")
    await rig.signed_in(STRANGER, "192.0.2.99")
    page = (await older.get("/console/sessions")).text
    rows = re.findall(r'<th scope="row">(.*?)</th>', page)
    assert [re.sub(" <.*", "", row) for row in rows] == ["2001:db8::1", "192.0.2.7"]
    assert ["this browser" in row for row in rows] == [False, True]
    assert page.count("<time ") == 4
    other = (await newer.get("/console/sessions")).text
    assert ["this browser" in row for row in re.findall(r'<th scope="row">(.*?)</th>', other)] == [True, False]
    for browser in (older, newer):
        assert browser.cookies["__Host-machpay-session"] not in page + other


@pytest.mark.parametrize("email", [ADMIN, VIEWER])
async def test_one_session_ends_and_the_others_continue(rig: Rig, email: str) -> None:
    here, lost, third = [await rig.signed_in(email, f"192.0.2.{number}") for number in (1, 2, 3)]
    page = await here.get("/console/sessions")
    (action,) = re.findall(r'action="([^"]*)">\n[^\n]*\n[^\n]*session from 192\.0\.2\.2 ', page.text)
    answer = await submitted(here, page, action)
    assert answer.headers["location"] == "/console/sessions?told=session-ended"
    assert (await lost.get("/console/sessions")).status_code == 303
    for browser in (here, third):
        assert (await browser.get("/console/sessions")).status_code == 200
    assert (await submitted(here, page, action)).status_code == 404


@pytest.mark.parametrize("email", [ADMIN, VIEWER])
async def test_all_other_sessions_of_the_user_end_at_once(rig: Rig, email: str) -> None:
    here, *others = [await rig.signed_in(email, f"192.0.2.{number}") for number in (1, 2, 3)]
    stranger = await rig.signed_in(STRANGER)
    answer = await submitted(here, await here.get("/console/sessions"), "/console/sessions/end-others")
    assert answer.headers["location"] == "/console/sessions?told=sessions-ended"
    page = await here.get(answer.headers["location"])
    assert "All other sessions are signed out." in page.text
    assert "/console/sessions/end-others" not in forms_of(page)
    assert (await stranger.get("/console/sessions")).status_code == 200
    assert [(await browser.get("/console/sessions")).status_code for browser in others] == [303, 303]


async def test_this_session_can_be_signed_out_too(rig: Rig) -> None:
    here = await rig.signed_in()
    answer = await submitted(here, await here.get("/console/sessions"), "/console/sign-out")
    assert answer.headers["location"] == "/console/sign-in"
    assert (await here.get("/console/sessions")).headers["location"].startswith("/console/sign-in")


async def test_another_users_session_is_not_found(rig: Rig) -> None:
    admin, viewer = await rig.signed_in(ADMIN), await rig.signed_in(VIEWER)
    (theirs,) = await rig.gateway.users.sign_ins(rig.users[ADMIN])
    for name in (theirs.name, "0" * 16, "x", theirs.digest.hex()):
        assert (await posted(viewer, f"/sessions/{name}/end")).status_code == 404
    assert (await admin.get("/console/sessions")).status_code == 200


async def test_a_form_of_another_site_ends_nothing(rig: Rig) -> None:
    here, other = await rig.signed_in(), await rig.signed_in()
    for sign_in in await rig.gateway.users.sign_ins(rig.users[ADMIN]):
        assert await refused_from_elsewhere(here, f"/sessions/{sign_in.name}/end")
    assert await refused_from_elsewhere(here, "/sessions/end-others")
    assert [(await browser.get("/console/sessions")).status_code for browser in (here, other)] == [200, 200]


async def test_omitted_sessions_are_counted(rig: Rig) -> None:
    here = await rig.signed_in()
    now = time.time()
    for number in range(101):
        one = SignIn(bytes([number]) * 32, rig.users[ADMIN].id, now - number, now + 60, "198.51.100.1")
        assert await rig.gateway.store.add_sign_in(one, rig.users[ADMIN])
    page = (await here.get("/console/sessions")).text
    assert page.count('<th scope="row">') == 100
    assert "2 older sessions are not shown." in page


async def test_an_unavailable_store_has_an_error_page(rig: Rig) -> None:
    browser = await rig.signed_in()
    await lose(rig, "sign_ins")
    assert (await browser.get("/console/sessions")).status_code == 503


async def test_the_page_works_below_a_root_path(rig: Rig) -> None:
    browser, other = await below(rig, "/machpay"), await rig.signed_in()
    page = await browser.get("/machpay/console/sessions")
    answer = await submitted(browser, page, "/machpay/console/sessions/end-others")
    assert answer.headers["location"] == "/machpay/console/sessions?told=sessions-ended"
    assert (await other.get("/console/sessions")).status_code == 303


async def statuses(browser: AsyncClient, address: str, *passwords: str) -> list[int]:
    page = await browser.get(address)
    return [(await submitted(browser, page, email=VIEWER, password=each)).status_code for each in passwords]


async def test_a_sign_in_pass_works_while_others_use_up_the_attempts(rig: Rig) -> None:
    here = await rig.signed_in(VIEWER)
    for number in range(100):
        await rig.gateway.users.sign_in(VIEWER, "x" * 2000, address=number, display_address=None)
    new = rig.http("198.51.100.9")
    assert await statuses(new, "/console/sign-in", PASSWORD) == [429]
    page = await submitted(here, await here.get("/console/sessions"), "/console/sessions/pass")
    address = unescape(re.search(rf"{URL}/console/sign-in\?pass=[^<]*", page.text)[0])  # type: ignore[index]
    assert await statuses(new, address, "wrong horse battery", PASSWORD) == [400, 303]
    other = rig.http("198.51.100.10")
    page = await other.get(address)
    assert (await submitted(other, page, email=ADMIN, password=PASSWORD)).status_code == 303  # who needs none
    assert (await rig.gateway.users.find(None, VIEWER)) is not None
    rows = [row.action for row in await rig.gateway.store.audit_page(rig.account.id)]
    assert "user.make_pass" in rows
