"""Accessibility of the Console (WCAG 2.2): axe, keyboard, small screens, dark mode, and no scripts."""

from dataclasses import dataclass

import pytest
from playwright.sync_api import Page, expect

from machpay_gateway.core.accounts.account import Account
from tests.chromium import BrowserErrors, OpenPage, findings, take_picture
from tests.console.chromium.sites import Site
from tests.console.harness import PASSWORD

LONG = "A key with a name that goes on and on, longer than any screen of a phone, and oneverylongwordbesides"


@dataclass(frozen=True)
class PageCase:
    """A page and its path. *picture_height* is that of its picture in the docs, in pixels; 0 for none."""

    name: str
    path: str
    picture_height: int = 0


def furnished(site: Site, page: Page, role: str = "admin", *, account: Account | None = None) -> list[PageCase]:
    """Sign a user in for whose account there is something on every page, and return the pages."""
    account = account or site.new_account()
    site.sign_in(page, site.new_user(role, account=account))
    site.new_key("staging", account=account, environment="test")
    record, _ = site.new_key("production-api", account=account, scopes=["skills:execute", "account:read"])
    site.portal.call(site.gateway.keys.rotate, account.id, record.id)
    app, _ = site.new_app("Ada's app", account=account)
    site.let_act(app, site.new_user(account=account))
    site.count(account, record.id)
    return [
        PageCase("usage", f"/usage?key={record.id}&period=day", picture_height=1480),
        *(PageCase(f"usage of a {period}", f"/usage?period={period}") for period in ("hour", "week", "month")),
        PageCase("apps", "/apps", picture_height=800),
        PageCase("new app", "/apps/new"),
        PageCase("app", f"/apps/{app.id}"),
        PageCase("delete", f"/apps/{app.id}/delete"),
        PageCase("audit log", "/audit", picture_height=800),
        PageCase("sessions", "/sessions"),
        PageCase("password", "/password"),
        PageCase("quick start", f"/start?key={record.id}", picture_height=800),
        PageCase("keys", "/keys", picture_height=800),
        PageCase("new key", "/keys/new"),
        PageCase("key", f"/keys/{record.id}", picture_height=800),
        PageCase("revoke", f"/keys/{record.id}/revoke"),
        PageCase("nothing", "/nothing"),
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("role", ["admin", "viewer"])
def test_axe_finds_nothing_on_any_page(
    site: Site, open_page: OpenPage, browser_errors: BrowserErrors, scheme: str, role: str
) -> None:
    page = open_page(viewport={"width": 1100, "height": 800}, color_scheme=scheme)
    browser_errors.expect("404 (Not Found)")
    violations = {}
    for case in furnished(site, page, role):
        page.goto(f"{site.url}/console{case.path}")
        violations[case.name] = findings(page)
        if case.picture_height and role == "admin":
            page.set_viewport_size({"width": 1100, "height": case.picture_height})
            take_picture(page, f"console-{case.name.replace(' ', '-')}", scheme)
    assert {name: each for name, each in violations.items() if each} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_the_sign_in_page_and_beside_errors(
    site: Site, open_page: OpenPage, browser_errors: BrowserErrors, scheme: str
) -> None:
    page = open_page(color_scheme=scheme)
    page.goto(f"{site.url}/console/sign-in")
    assert findings(page) == []
    browser_errors.expect("400 (Bad Request)")
    browser_errors.expect("422 (Unprocessable")
    user = site.new_user(account=site.new_account())
    page.get_by_label("Email").fill(user.email)
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert findings(page) == []
    site.sign_in(page, user)
    page.goto(f"{site.url}/console/keys/new")
    page.get_by_label("Name").fill("a")
    page.get_by_label("Allowed IP addresses").fill("10.0.0.1/8")
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_label("Allowed IP addresses")).to_have_attribute("aria-invalid", "true")
    assert findings(page) == []
    page.get_by_label("Allowed IP addresses").fill("10.0.0.0/8")
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Secret of a")
    assert findings(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_a_small_phone_in_the_preferred_color_scheme(
    site: Site, open_page: OpenPage, browser_errors: BrowserErrors, scheme: str
) -> None:
    page = open_page(viewport={"width": 320, "height": 640}, color_scheme=scheme)
    browser_errors.expect("404 (Not Found)")
    widths, backgrounds = {}, set()
    account = site.new_account()
    long, _ = site.new_key(LONG, account=account, owner=LONG, allowed_ips=["2001:db8:aaaa:bbbb:cccc:dddd:eeee:0/112"])
    for case in (*furnished(site, page, account=account), PageCase("long name", f"/keys/{long.id}")):
        page.goto(f"{site.url}/console{case.path}")
        widths[case.name] = page.evaluate("document.documentElement.scrollWidth")
        backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert {name: width for name, width in widths.items() if width > 320} == {}
    (background,) = backgrounds
    red = int(background.removeprefix("rgb(").split(",")[0])
    assert (red > 200, red < 50) == (scheme == "light", scheme == "dark")


def test_a_keyboard_is_enough(site: Site, page: Page) -> None:
    user = site.new_user(account=site.new_account())
    press, write = page.keyboard.press, page.keyboard.type
    page.goto(f"{site.url}/console/keys/new")
    expect(page.get_by_label("Email")).to_be_focused()  # from the next frame on
    write(user.email)
    press("Tab")
    write(PASSWORD)
    press("Enter")
    expect(page).to_have_title("New key · MachPay Console")
    press("Tab")
    expect(page.get_by_role("link", name="Skip to main content")).to_be_focused()
    press("Enter")
    press("Tab")
    press("Tab")
    expect(page.get_by_label("Name")).to_be_focused()
    write("by-keyboard")
    press("Tab")
    press("ArrowDown")
    expect(page.get_by_label("test")).to_be_checked()
    press("Tab")
    press("Space")
    expect(page.get_by_label("skills:execute")).to_be_checked()
    press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Secret of by-keyboard")
    page.get_by_role("link", name="Done").focus()
    press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("by-keyboard")


def test_the_focus_is_visible(site: Site, page: Page) -> None:
    site.sign_in(page, site.new_user(account=site.new_account()))
    page.goto(f"{site.url}/console/keys/new")
    unseen = []
    for _ in range(30):
        page.keyboard.press("Tab")
        style = page.evaluate(
            "() => [document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]"
        )
        if style[0] == "BODY":
            break
        if style[1] == "none":
            unseen.append(style[0])
    assert unseen == []


def test_everything_works_without_scripts(site: Site, open_page: OpenPage) -> None:
    account = site.new_account()
    page = open_page(java_script_enabled=False)
    site.sign_in(page, site.new_user(account=account))
    page.goto(f"{site.url}/console/keys/new")
    page.get_by_label("Name").fill("plain")
    page.get_by_label("skills:list").check()
    page.get_by_role("button", name="Create key").click()
    secret = page.locator("#secret").inner_text()
    assert site.call(secret).status_code == 200
    page.get_by_role("link", name="Done").click()
    page.get_by_label("none").check()
    page.get_by_role("button", name="Rotate key").click()
    assert site.call(secret).status_code == 401
    page.goto(f"{site.url}/console/keys")
    page.get_by_label("Search").fill("nothing like it")
    page.get_by_role("button", name="Search").click()
    expect(page.locator(".empty")).to_have_text("No keys match.")


def test_axe_finds_a_missing_label(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/console/sign-in")
    page.evaluate("document.querySelector('label').remove()")
    assert [finding.partition(": <")[0] for finding in findings(page)] == ["critical: label"]
