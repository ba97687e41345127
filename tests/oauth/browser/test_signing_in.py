"""From an app to its user's consent and back, as people do it."""

from urllib.parse import urlencode

import httpx2
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.oauth.browser.conftest import Site, sign_in
from tests.oauth.rigs import PASSWORD, VERIFIER, basic


def exchanged(site: Site, code: str) -> dict[str, str]:
    sent = {
        "grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER,
        "redirect_uri": f"{site.app_url}/callback",
    }  # fmt: skip
    answer = httpx2.post(f"{site.url}/oauth/token", data=sent, headers=basic(site.client.id, site.secret))
    assert answer.status_code == 200, answer.text
    document: dict[str, str] = answer.json()
    return document


def test_a_person_signs_in_leaves_a_scope_out_and_the_app_has_the_others(site: Site, page: Page, email: str) -> None:
    page.goto(site.authorize_url())
    expect(page).to_have_title("Sign in · MachPay")
    expect(page.get_by_text("Ada's app")).to_be_visible()
    sign_in(page, email, "not the password")
    expect(page.get_by_role("alert")).to_have_text("The e-mail or the password is wrong.")
    expect(page.get_by_label("E-mail")).to_have_value(email)
    expect(page.get_by_label("Password")).to_be_focused()
    sign_in(page, email)
    expect(page.get_by_role("heading")).to_have_text("Allow Ada's app to act for you?")
    expect(page.get_by_text(site.client.account_id)).to_be_visible()
    expect(page.get_by_text(site.app_url)).to_be_visible()
    page.get_by_label("Execute skills").uncheck()
    page.get_by_role("button", name="Allow", exact=True).click()
    expect(page.get_by_role("heading")).to_have_text("The app")
    (sent,) = site.sent
    assert (sent.query_params["state"], sent.query_params["iss"]) == ("s-1", site.url)
    tokens = exchanged(site, sent.query_params["code"])
    assert tokens["scope"] == "account:read"
    asked = httpx2.get(f"{site.url}/v1/account", headers={"Authorization": f"Bearer {tokens['access_token']}"})
    assert (asked.status_code, asked.json()["client_id"]) == (200, site.client.id)


def test_a_person_who_says_no_is_sent_back_with_that(site: Site, page: Page, email: str) -> None:
    page.goto(site.authorize_url(prompt="consent"))
    sign_in(page, email)
    page.goto(site.authorize_url(prompt="consent"))
    page.get_by_role("button", name="Do not allow").click()
    expect(page.get_by_role("heading")).to_have_text("The app")
    told = site.sent[-1].query_params
    assert (told["error"], told["state"], told["iss"]) == ("access_denied", "s-1", site.url)


def test_what_was_allowed_is_not_asked_again_and_somebody_else_is(site: Site, page: Page, email: str) -> None:
    page.goto(site.authorize_url(scope="account:read"))
    sign_in(page, email)
    if page.get_by_role("button", name="Allow", exact=True).is_visible():
        page.get_by_role("button", name="Allow", exact=True).click()
    page.goto(site.authorize_url(scope="account:read"))
    expect(page.get_by_role("heading")).to_have_text("The app")
    assert "code" in site.sent[-1].query_params
    page.goto(site.authorize_url(prompt="consent"))
    page.get_by_role("button", name="Sign in as somebody else").click()
    expect(page).to_have_title("Sign in · MachPay")
    page.go_back()
    page.goto(site.authorize_url(prompt="none"))
    assert site.sent[-1].query_params["error"] == "login_required"


def test_a_keyboard_is_enough(site: Site, page: Page, email: str) -> None:
    page.goto(site.authorize_url(prompt="consent"))
    expect(page.get_by_label("E-mail")).to_be_focused()
    page.keyboard.type(email)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page).to_have_title("Allow access · MachPay")
    page.goto(site.authorize_url(prompt="consent"))
    expect(page).to_have_title("Allow access · MachPay")
    page.keyboard.press("Tab")
    expect(page.get_by_label("View balance and history")).to_be_focused()
    page.keyboard.press("Space")
    expect(page.get_by_label("View balance and history")).not_to_be_checked()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    focused = page.get_by_role("button", name="Allow", exact=True)
    expect(focused).to_be_focused()
    assert focused.evaluate("button => getComputedStyle(button).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading")).to_have_text("The app")
    assert exchanged(site, site.sent[-1].query_params["code"])["scope"] == "skills:execute"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_fit_a_small_phone_in_light_and_dark(site: Site, browser: Browser, scheme: str, email: str) -> None:
    client = site.new_client("An app with a name that goes on and on, longer than any screen of a phone is wide")
    context = browser.new_context(viewport={"width": 320, "height": 640}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    backgrounds = set()
    page.goto(site.authorize_url(client))
    for title in ("Sign in · MachPay", "Allow access · MachPay"):
        expect(page).to_have_title(title)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        if title.startswith("Sign in"):
            sign_in(page, email)
    page.goto(f"{site.url}/oauth/authorize?{urlencode({'client_id': 'x'})}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    (background,) = backgrounds
    red = int(background.removeprefix("rgb(").split(",")[0])
    assert (red > 200) is (scheme == "light")
    context.close()
