"""Hostile names and other sites: no script injection, no frames, no forged forms (RFC 9700 §4)."""

import html

import pytest
from playwright.sync_api import Page, expect

from tests.chromium import BrowserErrors, OpenPage
from tests.console.chromium.sites import Site

NAMES = [
    "<script>alert(1)</script><!--<form action=//evil.example><base href=//evil.example>",
    "\"><img src=x onerror=alert(1)><meta http-equiv=refresh content='0;url=//evil.example'>",
    "'-alert(1)-' autofocus onfocus=alert(1) x='</title></style><script>alert(1)</script>",
    "{{ 7 * 7 }}${7*7}<%= 7*7 %>{% raw %}&lt;b&gt;not bold&lt;/b&gt;",
    "<a href='javascript:alert(1)' hx-get='/console/keys' hx-trigger='load'>MachPay</a>",
    "W" * 100,
]
_SKELETON = "() => [...document.all].map(it => [it.tagName, ...it.getAttributeNames()].join(' '))"
# What no page of ours has.
_FOREIGN = "img, iframe, base, object, embed, script:not([src]), [onerror], [onload], [onfocus], [href^=javascript]"
_VARIED = ("/usage", "/audit")  # by the moment, and by how long a name is
_PLAIN = "An honest name"


def skeletons(site: Site, page: Page, name: str) -> dict[str, list[str]]:
    """Return what the pages about a key of this *name* are made of: each element with the names of its attributes."""
    account = site.new_account()
    site.sign_in(page, site.new_user(account=account))
    record, _ = site.new_key(name, account=account, metadata={"team": name, name[:40]: "x"})
    app, _ = site.new_app(name, account=account)
    seen = {}
    for path in (
        "/keys", f"/keys/{record.id}", f"/keys/{record.id}/revoke", f"/keys/{record.id}?told={name[:20]}",
        f"/usage?key={record.id}", "/apps", f"/apps/{app.id}", f"/apps/{app.id}/delete", "/audit",
        f"/start?key={record.id}", f"/start?app={app.id}",
    ):  # fmt: skip
        page.goto(f"{site.url}/console{path}")
        expect(page.get_by_text(name).first).to_be_attached()  # the audit log folds what is long
        expect(page.locator(_FOREIGN)).to_have_count(0)
        if not path.startswith(_VARIED):
            place = path.replace(record.id, "key_1").replace(app.id, "app_1").partition("told")[0]
            seen[place] = page.evaluate(_SKELETON)
    page.goto(f"{site.url}/console/keys")
    page.get_by_label("Search").fill(name)
    expect(page.get_by_text(name, exact=True).first).to_be_visible()
    return seen


@pytest.fixture(scope="package")
def plain() -> dict[str, list[str]]:
    """The pages for a name that means no harm, once a test has seen them."""
    return {}


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:12])
def test_hostile_names_are_shown_as_text(site: Site, page: Page, plain: dict[str, list[str]], name: str) -> None:
    if not plain:
        plain |= skeletons(site, page, _PLAIN)
        page.context.clear_cookies()
    assert skeletons(site, page, name) == plain


def test_invalid_input_is_shown_again_as_text(site: Site, page: Page, browser_errors: BrowserErrors) -> None:
    site.sign_in(page, site.new_user(account=site.new_account()))
    browser_errors.expect("422 (Unprocessable")
    page.goto(f"{site.url}/console/keys/new")
    page.get_by_label("Name").fill(NAMES[0])
    page.get_by_label("Allowed IP addresses").fill("</textarea><script>alert(1)</script>")
    expect(page.locator("#address-checks .invalid").first).to_be_visible()
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_label("Name")).to_have_value(NAMES[0])
    expect(page.get_by_label("Allowed IP addresses")).to_have_value("</textarea><script>alert(1)</script>")


def test_no_other_site_can_frame_a_page(site: Site, page: Page, browser_errors: BrowserErrors) -> None:
    browser_errors.expect("frame-ancestors")
    site.sign_in(page, site.new_user(account=site.new_account()))
    sandbox = 'sandbox="allow-forms allow-scripts allow-same-origin"'
    for path in ("/console/keys/new", "/console/sign-in"):
        address = f"{site.url}{path}"
        site.elsewhere["/framing"] = f'<iframe src="{address}"></iframe><iframe src="{address}" {sandbox}></iframe>'
        page.goto(f"{site.other_url}/framing")
        assert len(page.frames) == 3
        for frame in page.frames[1:]:
            assert "MachPay" not in frame.content()


@pytest.mark.parametrize("elsewhere", ["another port", "another site"])
def test_another_sites_form_changes_nothing(
    site: Site, page: Page, open_page: OpenPage, browser_errors: BrowserErrors, elsewhere: str
) -> None:
    account = site.new_account()
    user = site.new_user(account=account)
    site.sign_in(page, user)
    record, secret = site.new_key("production-api", account=account)
    path = f"/console/keys/{record.id}/revoke"
    page.goto(f"{site.url}{path}")
    stolen = page.locator(f"form[action='{path}'] input[name=proof]").input_value()
    attacker = open_page()
    site.sign_in(attacker, site.new_user(account=account))
    attacker.goto(f"{site.url}{path}")
    own = attacker.locator(f"form[action='{path}'] input[name=proof]").input_value()
    other = site.other_url.replace("127.0.0.1", "localhost") if elsewhere == "another port" else site.other_url
    # A port is no other site to cookies: what comes from there is refused. From another site no cookie comes along, so
    # that nobody is signed in, and the browser is led to a page as by any link.
    expected = "Something went wrong" if elsewhere == "another port" else "Keys"
    if elsewhere == "another port":
        browser_errors.expect("403 (Forbidden)")
    for proof in ("0" * 64, own, stolen):
        fields = {"proof": proof, "typed": "production-api"}
        inputs = "".join(f'<input name="{name}" value="{html.escape(value)}">' for name, value in fields.items())
        form = (
            f'<form method="post" action="{site.url}{path}">{inputs}</form><script>document.forms[0].submit()</script>'
        )
        site.elsewhere["/prize"] = form
        page.goto(f"{other}/prize")
        expect(page).to_have_title(f"{expected} · MachPay Console")
        assert site.call(secret).status_code == 200


def test_an_injected_script_can_neither_load_nor_send_anything(
    site: Site, page: Page, browser_errors: BrowserErrors
) -> None:
    browser_errors.expect("Content Security Policy")
    site.sign_in(page, site.new_user(account=site.new_account()))
    page.goto(f"{site.url}/console/keys")
    page.evaluate(
        """(url) => {
            const add = (tag, settings) => document.body.append(Object.assign(document.createElement(tag), settings));
            add("script", {textContent: "window.ran = true"});
            add("script", {src: url});
            add("img", {src: url});
            add("a", {href: "javascript:window.ran = true", id: "evil"});
            document.getElementById("evil").click();
        }""",
        f"{site.other_url}/x",
    )
    result = page.evaluate("(url) => fetch(url, {mode: 'no-cors'}).then(() => 'told', () => 'stopped')", site.other_url)
    assert result == "stopped"
    assert page.evaluate("window.ran") is None
    assert page.evaluate("document.cookie") == ""
