"""From an app to its user's consent and back, as people do it."""

import pytest
from playwright.sync_api import Page, expect

from tests.chromium import BrowserErrors
from tests.oauth.browser.sites import Site, allow, sign_in


def test_a_person_leaves_a_scope_out_and_the_app_calls_the_api_with_the_others(
    site: Site, page: Page, browser_errors: BrowserErrors, email: str
) -> None:
    page.goto(site.app.url)
    page.get_by_role("link", name="Connect MachPay").click()
    expect(page).to_have_title("Sign in · MachPay")
    expect(page.get_by_text("Ada's app")).to_be_visible()
    browser_errors.expect("400 (Bad Request)")
    sign_in(page, email, "not the password")
    expect(page.get_by_role("alert")).to_have_text("The email or the password is wrong.")
    expect(page.get_by_label("Email")).to_have_value(email)
    expect(page.get_by_label("Password")).to_be_empty()
    expect(page.get_by_label("Password")).to_be_focused()
    sign_in(page, email)
    expect(page).to_have_title("Allow access · MachPay")
    expect(page.get_by_role("heading")).to_have_text("Allow Ada's app to access your account?")
    expect(page.get_by_role("main")).to_contain_text(
        f"Account: {site.client.account_id}. You are signed in as {email}."
    )
    expect(page.get_by_role("main")).to_contain_text(f"You will be redirected to {site.app.url}.")
    expect(page.get_by_label("View balance and history")).to_be_checked()
    page.get_by_label("Execute skills").uncheck()
    allow(page)
    expect(page.get_by_role("heading")).to_have_text("The app")
    assert (site.app.received["iss"], len(site.app.sent)) == (site.url, 1)
    for line in ("scope: account:read", "account: 200", "skills: 403"):
        expect(page.get_by_text(line, exact=True)).to_be_visible()


def test_a_person_who_says_no_is_sent_back_with_that(site: Site, page: Page, email: str) -> None:
    page.goto(site.authorize_url())
    sign_in(page, email)
    page.get_by_role("button", name="Deny").click()
    expect(page.get_by_text("access_denied")).to_be_visible()
    received = site.app.received
    assert (received["error"], received["state"], received["iss"], "code" in received) == (
        "access_denied",
        "s-1",
        site.url,
        False,
    )


def test_an_app_that_was_allowed_before_has_the_user_back_without_a_page(site: Site, page: Page, email: str) -> None:
    page.goto(f"{site.app.url}/start?scope=account:read")
    sign_in(page, email)
    allow(page)
    seen: list[str] = []
    page.on("response", lambda response: seen.append(f"{response.status} {response.url.partition('?')[0]}"))
    page.goto(f"{site.app.url}/start?scope=account:read")
    expect(page.get_by_text("account: 200")).to_be_visible()
    assert seen == [
        f"303 {site.app.url}/start",
        f"303 {site.url}/oauth/authorize",
        f"200 {site.app.callback_url}",
    ]


def test_somebody_else_can_sign_in_and_the_app_acts_for_them(site: Site, page: Page, email: str) -> None:
    other = site.new_user()
    page.goto(f"{site.app.url}/start")
    sign_in(page, email)
    expect(page.get_by_text(f"Not {email}?")).to_be_visible()
    page.get_by_role("button", name="Sign in as a different user").click()
    expect(page).to_have_title("Sign in · MachPay")
    page.go_back()
    expect(page).to_have_title("Sign in · MachPay")  # what the first one was asked is not kept for the second
    sign_in(page, other.email)
    expect(page.get_by_text(f"Not {other.email}?")).to_be_visible()
    allow(page)
    expect(page.get_by_text(f"user: {other.id}")).to_be_visible()


def test_prompt_login_asks_who_is_there_though_somebody_is_signed_in(site: Site, page: Page, email: str) -> None:
    page.goto(site.authorize_url())
    sign_in(page, email)
    allow(page)
    page.goto(site.authorize_url(prompt="login"))
    expect(page).to_have_title("Sign in · MachPay")
    sign_in(page, email)
    expect(page.get_by_role("heading")).to_have_text("The app")
    assert len(site.app.sent) == 2


def test_prompt_none_never_shows_a_page(site: Site, page: Page, email: str) -> None:
    def answer() -> str:
        page.goto(site.authorize_url(prompt="none"))
        expect(page.get_by_role("heading")).to_have_text("The app")
        return site.app.received.get("error", "code")

    assert answer() == "login_required"
    page.goto(site.authorize_url())
    sign_in(page, email)
    expect(page).to_have_title("Allow access · MachPay")
    assert answer() == "consent_required"
    page.goto(site.authorize_url())
    allow(page)
    assert answer() == "code"


@pytest.mark.parametrize("email", ["jörg@bücher.example", "o'neil+pay@example.org", '"two.dots"..x@example.org'])
def test_whoever_is_a_user_can_sign_in_with_their_address(site: Site, page: Page, email: str) -> None:
    site.new_user(email)
    page.goto(site.authorize_url())
    sign_in(page, email.upper())
    expect(page.get_by_text(f"Not {email}?")).to_be_visible()


def test_going_back_after_consent_leads_to_the_app_again_with_another_code(site: Site, page: Page, email: str) -> None:
    page.goto(f"{site.app.url}/start")
    sign_in(page, email)
    allow(page)
    expect(page.get_by_text("account: 200")).to_be_visible()
    page.go_back()
    expect(page.get_by_text("not started here")).to_be_visible()  # the app has used this state, and is told it again
    first, second = (sent.query_params for sent in site.app.sent)
    assert (first["state"], first["code"] != second["code"]) == (second["state"], True)


def test_allowing_once_more_on_a_page_gone_back_to_and_by_a_double_click_does_no_harm(
    site: Site, page: Page, email: str
) -> None:
    page.goto(site.authorize_url())
    sign_in(page, email)
    allow(page)
    page.goto(site.authorize_url(prompt="consent"))
    page.get_by_role("button", name="Allow", exact=True).dblclick(no_wait_after=True)
    expect(page.get_by_role("heading")).to_have_text("The app")
    page.go_back()
    expect(page).to_have_title("Allow access · MachPay")
    allow(page)
    expect(page.get_by_role("heading")).to_have_text("The app")
    codes = [sent.query_params["code"] for sent in site.app.sent]
    assert len(set(codes)) == len(codes) >= 3
    page.goto(f"{site.app.url}/start")
    expect(page.get_by_text("account: 200")).to_be_visible()
