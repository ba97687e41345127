"""Pages against other sites: no frame, no form of theirs, and nothing let out to them (RFC 9700 §4)."""

import html
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect

from tests.chromium import BrowserErrors, OpenPage
from tests.oauth.browser.sites import Site, allow, sign_in
from tests.oauth.harness import PASSWORD, request_of


def proof_in(page: Page) -> str:
    """Return what shows that a form is of a page of ours, to a thief who has got at it somehow."""
    return page.locator("input[name=proof]").first.input_value()


def sent_by_itself(action: str, fields: dict[str, str]) -> str:
    """Return a page that sends a form as soon as it is seen."""
    inputs = "".join(f'<input name="{name}" value="{html.escape(value)}">' for name, value in fields.items())
    form = f'<form method="post" action="{html.escape(action)}">{inputs}</form>'
    return f"{form}<script>document.forms[0].submit()</script>"


@pytest.fixture(params=["another port", "another site"])
def elsewhere(site: Site, request: pytest.FixtureRequest) -> str:
    """Where another site is: on another port, to which cookies are sent all the same, or under another name."""
    return site.app.url if request.param == "another port" else site.app.other_site_url


def test_no_other_site_can_frame_a_page(site: Site, page: Page, browser_errors: BrowserErrors, elsewhere: str) -> None:
    browser_errors.expect("frame-ancestors")
    sandbox = 'sandbox="allow-forms allow-scripts allow-same-origin"'
    address = html.escape(site.authorize_url())
    site.app.pages["/framing"] = f'<iframe name="plain" src="{address}"></iframe><iframe src="{address}" {sandbox}>'
    for _ in ("sign-in", "consent"):
        page.goto(f"{elsewhere}/framing")
        assert len(page.frames) == 3
        for frame in page.frames[1:]:
            assert "MachPay" not in frame.content()
            assert frame.locator("form, input, button[name]").count() == 0
        site.sign_in_as_reader(page)


def test_another_sites_form_signs_nobody_in(
    site: Site, page: Page, open_page: OpenPage, email: str, elsewhere: str
) -> None:
    action = f"{site.url}/oauth/sign-in?{urlencode(request_of(site.client))}"
    proofs = ["0" * 64]
    for browser in (open_page(), page):  # the attacker's own, and the user's
        browser.goto(site.authorize_url())
        proofs.append(proof_in(browser))
    for proof in proofs:
        site.app.pages["/prize"] = sent_by_itself(action, {"email": email, "password": PASSWORD, "proof": proof})
        page.goto(f"{elsewhere}/prize")
        expect(page.get_by_role("alert")).to_contain_text("Try again")
        assert [cookie.get("name") for cookie in page.context.cookies()] == ["machpay-form"]
    sign_in(page, email)
    expect(page).to_have_title("Allow access · MachPay")  # as on the page that came of it, one can


def test_another_sites_form_neither_consents_nor_signs_out(site: Site, page: Page, elsewhere: str) -> None:
    site.sign_in_as_reader(page)
    page.goto(site.authorize_url())
    proof = proof_in(page)
    for path in ("/oauth/consent", "/oauth/sign-out"):
        action = f"{site.url}{path}?{urlencode(request_of(site.client))}"
        fields = {"decision": "allow", "scope": "account:read", "proof": proof}
        site.app.pages["/prize"] = sent_by_itself(action, fields)
        page.goto(f"{elsewhere}/prize")
        expect(page).to_have_title("Allow access · MachPay")  # asked by a page of ours, and still signed in
    assert site.app.sent == []


def test_nothing_is_loaded_from_elsewhere_and_no_address_is_let_out(site: Site, page: Page, email: str) -> None:
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url.partition("?")[0]))
    page.goto(site.authorize_url())
    sign_in(page, email)
    expect(page).to_have_title("Allow access · MachPay")
    allow(page)
    expect(page.get_by_role("heading")).to_have_text("The app")
    paths = ("/oauth/authorize", "/oauth/sign-in", "/oauth/authorize", "/oauth/consent")
    assert requested == [*(f"{site.url}{path}" for path in paths), site.app.callback_url]
    assert "referer" not in site.app.sent[0].headers
    page.goto(site.authorize_url())  # and when nobody is asked anything
    expect(page.get_by_role("heading")).to_have_text("The app")
    assert "referer" not in site.app.sent[1].headers


def test_a_cookie_is_for_no_script_and_not_for_requests_of_other_sites(site: Site, page: Page, email: str) -> None:
    page.goto(site.authorize_url())
    sign_in(page, email)
    expect(page).to_have_title("Allow access · MachPay")
    assert page.evaluate("document.cookie") == ""
    cookies = sorted(page.context.cookies(), key=lambda each: str(each.get("name")))
    attributes = [[cookie.get(name) for name in ("name", "httpOnly", "sameSite", "path")] for cookie in cookies]
    assert attributes == [[f"machpay-{name}", True, "Lax", "/"] for name in ("device", "session")]
    assert cookies[1].get("expires") == -1
