"""Two tabs at the way in, a password that is asked for again, and one that is changed: with and without scripts."""

import time

import pytest
from playwright.sync_api import Page, expect

from machpay_gateway.core.accounts.user import User
from tests.chromium import OpenPage, findings
from tests.console.chromium.sites import Site, let_poll
from tests.console.harness import PASSWORD

NEW = "a wholly different passphrase"


def fill_in(page: Page, user: User, password: str = PASSWORD) -> None:
    """Fill in the page to sign in by."""
    page.get_by_label("Email").fill(user.email)
    page.get_by_label("Password").fill(password)


def test_the_first_tab_continues_when_the_second_has_signed_in(site: Site, open_page: OpenPage) -> None:
    first = open_page()
    user = site.new_user(account=site.new_account())
    first.goto(f"{site.url}/console/sign-in?next=/usage")
    second = first.context.new_page()
    second.goto(f"{site.url}/console/sign-in")
    fill_in(second, user)
    second.get_by_role("button", name="Sign in").click()
    expect(second.get_by_role("heading", name="Keys", exact=True)).to_be_visible()
    fill_in(first, user, "looked at by nobody")
    first.get_by_role("button", name="Sign in").click()
    expect(first.get_by_role("heading", name="Usage", exact=True)).to_be_visible()


def forget_the_password(site: Site, user: User) -> None:
    """Let it be an hour ago that the user gave the password, and now that they were seen."""
    gateway = site.gateway
    assert gateway.store is not None
    for sign_in in site.portal.call(gateway.users.sign_ins, user):
        earlier = {"confirmed_at": time.time() - 3600, "seen_at": time.time()}
        marked = type(sign_in)(**{name: getattr(sign_in, name) for name in sign_in.__slots__} | earlier)
        site.portal.call(gateway.store.update_sign_in, marked)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("has_scripts", [True, False], ids=["scripts", "no scripts"])
def test_a_key_is_created_after_the_password_is_confirmed(
    site: Site, open_page: OpenPage, scheme: str, *, has_scripts: bool
) -> None:
    page = open_page(viewport={"width": 320, "height": 640}, color_scheme=scheme, java_script_enabled=has_scripts)
    user = site.new_user(account=site.new_account())
    site.sign_in(page, user)
    forget_the_password(site, user)
    page.goto(f"{site.url}/console/keys/new")
    page.get_by_label("Name").fill("made late")
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_role("heading", name="Confirm your password")).to_be_visible()
    if has_scripts:
        assert findings(page) == []
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#secret")).to_contain_text("sk_live_")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_password_is_changed(site: Site, open_page: OpenPage, scheme: str) -> None:
    page = open_page(viewport={"width": 320, "height": 640}, color_scheme=scheme)
    user = site.new_user("viewer", account=site.new_account())
    site.sign_in(page, user)
    page.goto(f"{site.url}/console/keys")
    page.get_by_role("link", name="Password").click()
    assert findings(page) == []
    page.get_by_label("Current password").fill(PASSWORD)
    page.get_by_label("New password", exact=True).fill(NEW)
    page.get_by_label("Confirm new password").fill(NEW)
    page.get_by_role("button", name="Change password").click()
    expect(page.get_by_role("status")).to_contain_text("Password changed.")
    expect(page.get_by_text("this browser")).to_be_visible()


def test_background_requests_are_marked(site: Site, open_page: OpenPage) -> None:
    page = open_page(viewport={"width": 320, "height": 640})
    account = site.new_account()
    key, _ = site.new_key("production-api", account=account)
    site.sign_in(page, site.new_user(account=account))
    page.clock.install()
    page.goto(f"{site.url}/console/sessions")
    page.get_by_role("button", name="Sign in elsewhere").click()
    assert findings(page) == []
    page.goto(f"{site.url}/console/keys/{key.id}")
    with page.expect_request(lambda request: request.headers.get("x-machpay-automatic") == "yes"):
        let_poll(page)
        expect(page.locator("#secrets")).to_contain_text("Current")
