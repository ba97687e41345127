"""An upstream's pages and the Console's, each on its own host, in a browser in which somebody is signed in."""

import re

from playwright.sync_api import Page, expect
from starlette.responses import HTMLResponse

from tests.chromium import BrowserErrors
from tests.console.chromium.sites import Site

_NO_ICON = '<link rel="icon" href="data:,">'
# What a page of an upstream would do to have a key of its own: read the form, and submit it with its token.
_STEAL = """async url => {
    const seen = [];
    for (const options of [{}, {method: "POST", body: new URLSearchParams({name: "stolen"})}]) {
        try {
            const answer = await fetch(url, {credentials: "include", ...options});
            seen.push(`${answer.status} ${(await answer.text()).includes("proof")}`);
        } catch (error) {
            seen.push("unreadable");
        }
    }
    return seen;
}"""


def test_a_page_of_an_upstream_can_neither_read_nor_submit_a_console_page(
    site: Site, page: Page, browser_errors: BrowserErrors
) -> None:
    browser_errors.expect("404 (Not Found)")
    browser_errors.expect("CORS policy")
    browser_errors.expect("net::ERR_FAILED")
    site.come_in(page)
    site.upstream["/public/page"] = HTMLResponse(f"{_NO_ICON}<h1>An upstream's page</h1>")
    page.goto(f"{site.api_url}/public/page")
    expect(page.get_by_role("heading")).to_have_text("An upstream's page")
    # On its own host there is no such page, and of the Console's host it reads nothing.
    assert page.evaluate(_STEAL, "/console/keys/new") == ["404 false"] * 2
    assert page.evaluate(_STEAL, f"{site.url}/console/keys/new") == ["unreadable"] * 2
    page.goto(f"{site.url}/console/keys")
    expect(page).to_have_title("Keys · MachPay Console")
    assert "stolen" not in page.content()


def test_no_upstream_is_served_on_the_consoles_host(site: Site, page: Page, browser_errors: BrowserErrors) -> None:
    browser_errors.expect("404 (Not Found)")
    site.come_in(page)
    site.upstream["/public/page"] = HTMLResponse(f"{_NO_ICON}<h1>An upstream's page</h1>")
    answer = page.goto(f"{site.url}/public/page")
    assert answer is not None
    assert (answer.status, "upstream" in page.content()) == (404, False)
    assert site.cookies == []


def test_an_upstream_gets_no_cookie_of_the_console_and_can_set_none(site: Site, page: Page) -> None:
    site.come_in(page)
    (session,) = [each for each in page.context.cookies(site.url) if each["name"] == "machpay-session"]
    setting = HTMLResponse(_NO_ICON)
    for cookie in (
        "machpay-session=forged; Path=/",
        "=machpay-session=forged",
        "machpay-form",
        "MachPay-Session=forged",
    ):
        setting.headers.append("Set-Cookie", cookie)
    setting.headers.append("Set-Cookie", "own=1; Path=/")
    site.upstream["/public/set"] = setting
    # As a browser would have them whose user is signed in where the API is too, on another port of the host.
    page.context.add_cookies([{"name": "machpay-session", "value": session["value"], "url": site.api_url}])
    for _ in range(2):
        page.goto(f"{site.api_url}/public/set")
    assert site.cookies == ["own=1"]
    names = {each["name"]: each["value"] for each in page.context.cookies(site.api_url)}
    assert names == {"machpay-session": session["value"], "own": "1"}
    page.goto(f"{site.url}/console/keys")
    expect(page).to_have_title(re.compile("Keys"))
