"""The pages by keyboard, by ear, on small screens, in light and in dark (WCAG 2.2)."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.chromium import BrowserErrors, OpenPage, findings, take_picture
from tests.oauth.browser.sites import Site, sign_in
from tests.oauth.harness import PASSWORD

LONG = "An app with a name that goes on and on, longer than any screen of a phone is wide, and oneverylongword"
ERROR_PATH = "/oauth/authorize?client_id=app_unknown"
_PAINTED = "it => getComputedStyle(it).{}"


def contrast(one: str, other: str) -> float:
    """Return how much lighter one of two colours is, from 1 to 21 (WCAG 2.2)."""

    def luminance(colour: str) -> float:
        parts = (int(part) / 255 for part in re.findall(r"\d+", colour)[:3])
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    darker, lighter = sorted(luminance(colour) for colour in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(site: Site, open_page: OpenPage, browser_errors: BrowserErrors, scheme: str) -> None:
    page = open_page(viewport={"width": 480, "height": 720}, color_scheme=scheme)
    client = site.new_client("Ada's app", redirect_uris=["https://app.example.org/callback"])
    email = site.new_user("" if scheme == "dark" else "ada@example.org").email
    page.goto(site.authorize_url(client))
    assert findings(page) == []
    take_picture(page.get_by_role("main"), "sign-in", scheme)
    browser_errors.expect("400 (Bad Request)")
    sign_in(page, email, "not the password")
    expect(page.get_by_role("alert")).to_be_visible()
    assert findings(page) == []
    sign_in(page, email)
    expect(page).to_have_title("Allow access · MachPay")
    assert findings(page) == []
    take_picture(page.get_by_role("main"), "consent", scheme)
    page.goto(f"{site.url}{ERROR_PATH}")
    expect(page).to_have_title("Something went wrong · MachPay")
    assert findings(page) == []


def test_axe_would_find_something(site: Site, page: Page) -> None:
    page.goto(site.authorize_url())
    page.evaluate("document.querySelector('label').remove()")
    assert [finding.partition(": <")[0] for finding in findings(page)] == ["critical: label"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_fit_a_small_phone_in_the_scheme_that_the_user_likes(
    site: Site, open_page: OpenPage, browser_errors: BrowserErrors, scheme: str
) -> None:
    page = open_page(viewport={"width": 320, "height": 640}, color_scheme=scheme)
    client = site.new_client(LONG[:100])
    seen = set()

    def look(title: str) -> None:
        expect(page).to_have_title(f"{title} · MachPay")
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        seen.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    page.goto(site.authorize_url(client))
    look("Sign in")
    site.sign_in_as_reader(page)
    page.reload()
    look("Allow access")
    browser_errors.expect("400 (Bad Request)")
    page.goto(f"{site.url}{ERROR_PATH}")
    look("Something went wrong")
    (background,) = seen
    red = int(background.removeprefix("rgb(").split(",")[0])
    assert (red > 200, red < 50) == (scheme == "light", scheme == "dark")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_edges_of_what_can_be_filled_in_and_pressed_are_seen(site: Site, open_page: OpenPage, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    page.goto(site.authorize_url())
    card = page.get_by_role("main").evaluate(_PAINTED.format("backgroundColor"))
    seen = [page.get_by_label("Email").evaluate(_PAINTED.format("borderColor"))]
    site.sign_in_as_reader(page)
    page.reload()
    expect(page).to_have_title("Allow access · MachPay")
    seen += [button.evaluate(_PAINTED.format("borderColor")) for button in page.locator(".choice button").all()]
    assert [edge for edge in seen if contrast(edge, card) < 3] == []  # WCAG 2.2, 1.4.11, which axe leaves to others


def test_a_keyboard_is_enough_from_the_app_and_back(site: Site, page: Page, email: str) -> None:
    press = page.keyboard.press
    page.goto(site.app.url)
    press("Tab")
    press("Enter")
    expect(page).to_have_title("Sign in · MachPay")
    expect(page.get_by_label("Email")).to_be_focused()
    page.keyboard.type(email)
    press("Tab")
    page.keyboard.type(PASSWORD)
    press("Enter")
    expect(page).to_have_title("Allow access · MachPay")
    press("Tab")
    expect(page.get_by_label("View balance and history")).to_be_focused()
    press("Space")
    expect(page.get_by_label("View balance and history")).not_to_be_checked()
    press("Tab")
    press("Tab")
    expect(page.get_by_role("button", name="Allow", exact=True)).to_be_focused()
    press("Enter")
    expect(page.get_by_text("scope: skills:execute")).to_be_visible()


def test_what_has_the_focus_is_seen_to_have_it_and_none_is_left_out(site: Site, page: Page) -> None:
    def stops() -> list[str]:
        """Return where Tab leads from here to the page's end."""
        labels: list[str] = []
        while True:
            page.keyboard.press("Tab")
            focused = page.locator(":focus")
            if not focused.count():
                return labels
            assert focused.evaluate("it => parseInt(getComputedStyle(it).outlineWidth)") >= 2
            assert focused.evaluate("it => getComputedStyle(it).outlineStyle") == "solid"
            labels.append(focused.evaluate("it => it.labels?.[0]?.textContent.trim() || it.textContent"))

    page.goto(site.authorize_url())
    expect(page.get_by_label("Email")).to_be_focused()  # from the next frame on
    assert stops() == ["Password", "Sign in"]
    assert stops() == ["Email", "Password", "Sign in"]
    site.sign_in_as_reader(page)
    page.reload()
    expect(page).to_have_title("Allow access · MachPay")
    assert stops() == [
        "View balance and history account:read",
        "Execute skills skills:execute",
        "Allow",
        "Deny",
        "Sign in as a different user",
    ]


def test_pages_read_aloud_say_what_they_show(site: Site, page: Page, browser_errors: BrowserErrors, email: str) -> None:
    page.goto(site.authorize_url())
    browser_errors.expect("400 (Bad Request)")
    sign_in(page, email, "not the password")
    # A page that is new has its alert passed over by some readers: so the field with the focus says it, too.
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_label("Password")).to_have_accessible_description("The email or the password is wrong.")
    expect(page.locator("main")).to_match_aria_snapshot(f"""
        - paragraph: MachPay
        - heading "Sign in" [level=1]
        - paragraph: to continue to Ada's app
        - alert: The email or the password is wrong.
        - text: Email
        - textbox "Email": {email}
        - text: Password
        - textbox "Password"
        - button "Sign in"
    """)
    sign_in(page, email)
    expect(page.locator("form").first).to_match_aria_snapshot("""
        - group "This app wants to":
          - list:
            - listitem:
              - checkbox "View balance and history account:read" [checked]
            - listitem:
              - checkbox "Execute skills skills:execute" [checked]
        - paragraph: /You are signed in as/
        - button "Allow"
        - button "Deny"
    """)
