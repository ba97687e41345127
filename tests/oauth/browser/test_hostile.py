"""Pages against apps and sites that mean harm: no script, no frame, no form of theirs, and nothing let out."""

import html
from urllib.parse import urlencode

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.oauth.browser.conftest import Site, sign_in
from tests.oauth.rigs import PASSWORD, request_of

NAMES = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "</style><script>alert(1)</script>",
    "{{ 7 * 7 }}${7*7}<%= 7*7 %>",
    "<a href='javascript:alert(1)'>MachPay</a>",
    "&lt;b&gt;not bold&lt;/b&gt;",
]


@pytest.mark.parametrize("name", NAMES)
def test_an_apps_name_is_text_whatever_it_holds(site: Site, page: Page, name: str, email: str) -> None:
    client = site.new_client(name)
    hostile = {"state": f"{name}\"'><script>alert(2)</script>", "prompt": "consent"}
    page.goto(site.authorize_url(client, **hostile))
    expect(page.get_by_text(name, exact=True)).to_be_visible()
    sign_in(page, email)
    page.goto(site.authorize_url(client, **hostile))
    expect(page.get_by_role("heading")).to_have_text(f"Allow {name} to act for you?")
    assert page.locator("script, img, a, iframe, b").count() == 0
    page.get_by_role("button", name="Allow", exact=True).click()
    assert site.sent[-1].query_params["state"] == hostile["state"]


def test_a_script_that_got_into_a_page_would_not_run(site: Site, page: Page) -> None:
    page.goto(site.authorize_url())
    ran = page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            const image = document.createElement("img");
            image.setAttribute("onerror", "window.ran = true");
            image.src = "x";
            document.body.append(image);
            return window.ran === true;
        }"""
    )
    assert ran is False
    page.wait_for_load_state("networkidle")
    assert page.evaluate("window.ran") is None


@pytest.mark.parametrize("what", ["signed out", "signed in"])
def test_no_other_site_can_frame_a_page(site: Site, page: Page, what: str, email: str) -> None:
    url = site.authorize_url(prompt="consent")
    if what == "signed in":
        page.goto(url)
        sign_in(page, email)
    site.pages["/framing"] = f'<iframe name="victim" src="{html.escape(url)}"></iframe>'
    page.goto(f"{site.app_url}/framing")
    page.wait_for_load_state("networkidle")
    frame = page.frame("victim")
    assert frame is not None
    assert "MachPay" not in frame.content()
    assert frame.get_by_role("button").count() == 0


def test_another_sites_form_neither_signs_in_nor_consents(
    site: Site, page: Page, context: BrowserContext, email: str
) -> None:
    query = urlencode(request_of(site.client) | {"prompt": "consent"})
    fields = {
        "/oauth/sign-in": {"email": email, "password": PASSWORD, "proof": "0" * 64},
        "/oauth/consent": {"decision": "allow", "scope": "account:read", "proof": "0" * 64},
    }
    for path, values in fields.items():
        inputs = "".join(f'<input name="{name}" value="{value}">' for name, value in values.items())
        action = html.escape(f"{site.url}{path}?{query}")
        site.pages[path] = f'<form method="post" action="{action}">{inputs}<button>Win a prize</button></form>'
    page.goto(f"{site.app_url}/oauth/sign-in")
    page.get_by_role("button").click()
    expect(page).to_have_title("Sign in · MachPay")
    assert "machpay-session" not in {cookie["name"] for cookie in context.cookies()}
    sign_in(page, email)
    page.goto(f"{site.app_url}/oauth/consent")
    page.get_by_role("button").click()
    expect(page).to_have_title("Allow access · MachPay")  # it is asked by a page of ours
    assert [sent for sent in site.sent if "code" in sent.query_params] == []


def test_nothing_is_loaded_from_elsewhere_and_no_address_is_let_out(site: Site, page: Page, email: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(site.authorize_url(prompt="consent"))
    sign_in(page, email)
    page.goto(site.authorize_url(prompt="consent"))
    assert all(url.startswith(f"{site.url}/") for url in asked)
    page.get_by_role("button", name="Allow", exact=True).click()
    expect(page.get_by_role("heading")).to_have_text("The app")
    assert "referer" not in site.sent[-1].headers


def test_a_cookie_is_for_no_script(site: Site, page: Page, email: str) -> None:
    page.goto(site.authorize_url(prompt="consent"))
    sign_in(page, email)
    page.goto(site.authorize_url(prompt="consent"))
    assert page.evaluate("document.cookie") == ""


def test_going_back_and_allowing_twice_does_no_harm(site: Site, page: Page, email: str) -> None:
    page.goto(site.authorize_url(prompt="consent"))
    sign_in(page, email)
    page.goto(site.authorize_url(prompt="consent"))
    page.get_by_role("button", name="Allow", exact=True).dblclick(no_wait_after=True)
    expect(page.get_by_role("heading")).to_have_text("The app")
    page.go_back()
    expect(page).to_have_title("Allow access · MachPay")
    page.get_by_role("button", name="Allow", exact=True).click()
    expect(page.get_by_role("heading")).to_have_text("The app")
    codes = [sent.query_params["code"] for sent in site.sent]
    assert len(set(codes)) == len(codes) >= 2


def test_an_unknown_app_leaves_the_user_where_they_are(site: Site, page: Page) -> None:
    page.goto(
        f"{site.url}/oauth/authorize?{urlencode(request_of(site.client) | {'redirect_uri': 'https://evil.example'})}"
    )
    expect(page.get_by_role("alert")).to_contain_text("not one that is registered")
    assert page.url.startswith(site.url)
