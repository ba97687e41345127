"""The life of a key in the browser, from its creation to its revocation."""

import re

import pytest
from playwright.sync_api import Error, Page, expect

from tests.chromium import BrowserErrors, OpenPage
from tests.console.chromium.sites import Site, let_poll
from tests.console.harness import PASSWORD

CLIPBOARD = ["clipboard-read", "clipboard-write"]


def copied(page: Page, name: str) -> str:
    """Press the button that copies *name*, and return what the clipboard holds then."""
    page.get_by_role("button", name=f"Copy {name}").click()
    expect(page.get_by_role("button", name=f"Copied {name}")).to_be_visible()
    text: str = page.evaluate("navigator.clipboard.readText()")
    return text


def painted(page: Page) -> bytes:
    """Return what the chart of requests looks like."""
    return page.locator("#requests-chart").screenshot()


def test_from_creating_a_key_to_its_last_refusal(site: Site, open_page: OpenPage) -> None:
    page = open_page(permissions=CLIPBOARD)
    page.clock.install()
    site.come_in(page)
    secret = create(site, page)
    assert site.call(secret).status_code == 200
    assert site.call(secret, "/v1/account").status_code == 403
    page.get_by_role("link", name="Done").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("production-api")
    assert secret not in page.content()
    see_calls_on_the_chart(site, page, secret)
    rotated = rotate(site, page, secret)
    site.later(3601)
    assert [site.call(each).status_code for each in (rotated, secret)] == [200, 401]  # as the grace has ended
    site.in_time()
    page.get_by_role("link", name="Revoke key").click()
    page.get_by_label("Type the name of the key to confirm").fill("production-api")
    page.get_by_role("button", name="Revoke key").click()
    expect(page.get_by_role("status")).to_have_text("Key revoked.")
    assert [site.call(each).status_code for each in (rotated, secret)] == [401, 401]


def create(site: Site, page: Page) -> str:
    """Create a key, copy all that is shown once, and return the secret."""
    page.get_by_role("link", name="Create New Key").click()
    page.get_by_label("Name").fill("production-api")
    page.get_by_label("live").check()
    page.get_by_label("skills:list").check()
    page.get_by_label("Allowed IP addresses").fill("127.0.0.0/8\n10.0.0.1/8")
    expect(page.get_by_text("write 10.0.0.0/8 for the network")).to_be_visible()
    page.get_by_label("Allowed IP addresses").fill("127.0.0.0/8\n2001:db8::/32")
    expect(page.locator("#address-checks .valid")).to_have_count(2)
    expect(page.locator("#address-checks .invalid")).to_have_count(0)
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Secret of production-api")
    secret = copied(page, "secret")
    assert re.fullmatch(r"sk_live_mp1_[0-9A-Za-z]{38}", secret)
    assert copied(page, "env") == f"MACHPAY_API_KEY={secret}"
    assert copied(page, "curl") == f'curl {site.api_url}/v1/whoami -H "Authorization: Bearer {secret}"'
    return secret


def see_calls_on_the_chart(site: Site, page: Page, secret: str) -> None:
    """See two calls, one of them refused, and then more of them, without loading the page anew."""
    site.store_usage()
    page.get_by_role("link", name="Usage").last.click()
    page.get_by_role("link", name="Last hour").click()
    figures, kinds = page.locator("#usage > section").first, page.get_by_role("list", name="Requests by kind")
    expect(figures).to_contain_text(re.compile(r"Requests\s*2\b"))
    expect(kinds).to_contain_text(re.compile(r"admitted\s*1\b"))
    expect(kinds).to_contain_text(re.compile(r"forbidden\s*1\b"))
    expect(page.locator("#requests-chart canvas")).to_be_visible()
    before = painted(page)
    assert [site.call(secret).status_code for _ in range(20)] == [200] * 20
    site.store_usage()
    let_poll(page)
    expect(kinds).to_contain_text(re.compile(r"admitted\s*21\b"))
    expect(figures).to_contain_text("979")  # are left of 1,000 in the minute
    assert painted(page) != before
    page.get_by_role("link", name="production-api").click()


def rotate(site: Site, page: Page, secret: str) -> str:
    """Rotate the key with a grace of an hour, see that the old secret is still used, and return the new one."""
    page.get_by_label("1 hour").check()
    page.get_by_role("button", name="Rotate key").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Secret of production-api")
    rotated = copied(page, "secret")
    assert rotated != secret
    page.get_by_role("link", name="Done").click()
    expect(page.locator("#secrets")).to_contain_text("not used since the rotation")
    assert [site.call(each).status_code for each in (rotated, secret)] == [200, 200]
    site.store_usage()
    let_poll(page)
    expect(page.locator("#secrets")).to_contain_text("still in use")  # without being loaded anew
    return rotated


def test_a_double_click_makes_one_key(site: Site, page: Page) -> None:
    account = site.new_account()
    site.sign_in(page, site.new_user(account=account))
    page.goto(f"{site.url}/console/keys/new")
    page.get_by_label("Name").fill("once")
    page.get_by_label("skills:list").check()
    page.get_by_role("button", name="Create key").dblclick()
    expect(page.get_by_role("heading", level=1)).to_have_text("Secret of once")
    assert len(site.portal.call(site.gateway.keys.list, account.id)) == 1


def test_going_back_does_not_show_the_secret_again(site: Site, page: Page) -> None:
    site.sign_in(page, site.new_user(account=site.new_account()))
    page.goto(f"{site.url}/console/keys/new")
    page.get_by_label("Name").fill("gone")
    page.get_by_role("button", name="Create key").click()
    secret = page.locator("#secret").inner_text()
    page.get_by_role("link", name="Done").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("gone")
    with pytest.raises(Error, match="ERR_CACHE_MISS"):  # what the browser says of what it was told not to keep
        page.go_back()
    expect(page.get_by_text(secret)).to_have_count(0)


def test_a_temporary_error_keeps_the_page_and_is_retried(site: Site, page: Page, browser_errors: BrowserErrors) -> None:
    account = site.new_account()
    record, _ = site.new_key("production-api", account=account)
    site.sign_in(page, site.new_user(account=account))
    page.clock.install()
    page.goto(f"{site.url}/console/keys/{record.id}")
    browser_errors.expect("503")
    pattern = f"**/console/keys/{record.id}"
    page.route(pattern, lambda route: route.fulfill(status=503, body="<h1>away</h1>"))
    with page.expect_response(lambda answer: answer.status == 503):
        let_poll(page)
        expect(page.locator("#secrets")).to_contain_text("Current")
    page.unroute(pattern)
    with page.expect_response(lambda answer: answer.ok and record.id in answer.url):
        let_poll(page)
        expect(page.locator("#secrets")).to_contain_text("Current")
    expect(page.get_by_role("heading", level=1)).to_have_count(1)


def test_the_list_of_keys_is_filtered_while_typing(site: Site, page: Page) -> None:
    account = site.new_account()
    for name in ("billing", "search-service", "search-worker"):
        site.new_key(name, account=account)
    site.sign_in(page, site.new_user(account=account))
    page.goto(f"{site.url}/console/keys")
    names = page.locator("tbody th")
    expect(names).to_have_text(["search-worker", "search-service", "billing"])
    page.get_by_label("Search").press_sequentially("search-")
    expect(names).to_have_text(["search-worker", "search-service"])
    expect(page.get_by_label("Search")).to_be_focused()
    page.get_by_label("Environment").select_option("test")
    expect(page.locator(".empty")).to_have_text("No keys match.")
    assert "search=search-" in page.url


def test_a_signed_out_user_is_redirected_to_sign_in(site: Site, page: Page, browser_errors: BrowserErrors) -> None:
    user = site.new_user(account=site.new_account())
    site.sign_in(page, user)
    page.goto(f"{site.url}/console/keys")
    site.portal.call(site.gateway.users.set_password, user, PASSWORD)
    page.get_by_label("Search").press_sequentially("x")
    expect(page).to_have_title("Sign in · MachPay Console")
    assert browser_errors.messages == []
