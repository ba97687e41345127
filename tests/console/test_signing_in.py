"""Sign-in, sign-out, and the headers of every page."""

import re
from urllib.parse import quote

import pytest

from machpay_gateway.settings.console import ConsoleSettings
from machpay_gateway.web.browser import random_value
from tests.console.harness import (
    ADMIN,
    FORM,
    PASSWORD,
    STRANGER,
    URL,
    VIEWER,
    Rig,
    forms_of,
    serving_console,
    submitted,
)

INSIDE = ("/console/keys", "/console/keys/new", "/console/addresses", "/console/keys/key_x", "/console/nothing/here")


@pytest.mark.parametrize("path", INSIDE)
async def test_nobody_sees_a_page_without_signing_in(rig: Rig, path: str) -> None:
    answer = await rig.http().get(path)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/console/sign-in?next={path.removeprefix('/console')}"
    forged = await rig.http().get(path, headers={"Cookie": f"__Host-machpay-session={random_value()}"})
    assert forged.status_code == 303
    in_part = await rig.http().get(path, headers={"HX-Request": "true"})
    assert in_part.status_code == 204
    assert in_part.headers["hx-redirect"].startswith("/console/sign-in?next=")


async def test_sign_in_returns_to_the_requested_page(rig: Rig) -> None:
    browser = rig.http()
    redirect = await browser.get("/console/keys/new")
    page = await browser.get(redirect.headers["location"])
    answer = await submitted(browser, page, email=ADMIN, password=PASSWORD)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/keys/new")
    assert redirect.headers["cache-control"] == answer.headers["cache-control"] == "no-store"
    assert "__Host-machpay-form" not in browser.cookies
    again = await browser.get(redirect.headers["location"])
    assert (again.status_code, again.headers["location"]) == (303, "/console/keys/new")


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "/keys/../../evil",
        "javascript:alert(1)",
        "/keys\r\nX: 1",
        "",
    ],
)
async def test_sign_in_redirects_to_console_pages_only(rig: Rig, wanted: str) -> None:
    browser = rig.http()
    page = await browser.get(f"/console/sign-in?next={quote(wanted, safe='')}")
    answer = await submitted(browser, page, email=ADMIN, password=PASSWORD)
    assert answer.headers["location"] == "/console/keys"


@pytest.mark.parametrize(
    "email, password", [(ADMIN, "wrong horse battery"), ("nobody@example.org", PASSWORD), ("", "")]
)
async def test_the_error_does_not_say_whether_the_email_exists(rig: Rig, email: str, password: str) -> None:
    browser = rig.http()
    answer = await submitted(browser, await browser.get("/console/sign-in"), email=email, password=password)
    assert answer.status_code == 400
    assert "The email or the password is wrong." in answer.text
    assert "machpay-session" not in str(answer.headers)
    assert not password or password not in answer.text


async def test_guessing_is_throttled(rig: Rig) -> None:
    browser = rig.http("203.0.113.9")
    page = await browser.get("/console/sign-in")
    statuses = [(await submitted(browser, page, email=ADMIN, password=f"guess {n:09}")).status_code for n in range(12)]
    assert statuses[0] == 400
    assert statuses[-1] == 429


async def test_a_disabled_user_is_signed_out_immediately(rig: Rig) -> None:
    browser = await rig.signed_in(VIEWER)
    assert (await browser.get("/console/keys")).status_code == 200
    await rig.gateway.users.disable(rig.users[VIEWER])
    assert (await browser.get("/console/keys")).status_code == 303


async def test_signing_out_ends_the_session_on_the_server(rig: Rig) -> None:
    browser = await rig.signed_in()
    cookies = dict(browser.cookies)
    page = await browser.get("/console/keys")
    answer = await submitted(browser, page, "/console/sign-out")
    assert answer.headers["location"] == "/console/sign-in"
    thief = rig.http()
    thief.cookies.update(cookies)
    assert (await thief.get("/console/keys")).status_code == 303


async def test_nobody_is_signed_out_by_another_site(rig: Rig) -> None:
    browser = await rig.signed_in()
    for headers, proof in (({"Sec-Fetch-Site": "cross-site"}, None), ({}, "forged")):
        fields = dict(forms_of(await browser.get("/console/keys"))["/console/sign-out"])
        body = f"proof={proof or fields['proof']}"
        await browser.post("/console/sign-out", content=body, headers=FORM | headers)
        assert (await browser.get("/console/keys")).status_code == 200


async def test_every_page_forbids_frames_foreign_scripts_and_caches(rig: Rig) -> None:
    browser = await rig.signed_in()
    record, _ = await rig.key()
    pages = [
        await rig.http().get("/console/sign-in"),
        *[
            await browser.get(path)
            for path in (*INSIDE, f"/console/keys/{record.id}", f"/console/keys/{record.id}/revoke")
        ],
    ]
    for page in pages:
        policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
        assert policy == {
            "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self'",
            "connect-src": "'self'", "form-action": "'self'", "frame-ancestors": "'none'", "base-uri": "'none'",
        }  # fmt: skip
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["strict-transport-security"].startswith("max-age=")
        assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=|javascript:", page.text)
        assert not re.search(r'(?:src|href|action)="(?!/console|#)', page.text)


async def test_assets_are_local_and_cached_by_content(rig: Rig) -> None:
    page = await rig.http().get("/console/sign-in")
    loaded = re.findall(r'(?:src|href)="(/console/static/[^"]*)"', page.text)
    assert len(loaded) >= 4
    for address in loaded:
        answer = await rig.http().get(address)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["x-content-type-options"] == "nosniff"
    for address in ("/console/static/nothing.js", "/console/static/", "/console/static/..%2fapp.py"):
        assert (await rig.http().get(address)).status_code in {400, 404}


async def test_cookies_are_host_only_secure_and_http_only(rig: Rig) -> None:
    browser = rig.http()
    page = await browser.get("/console/sign-in")
    signed_in = await submitted(browser, page, email=ADMIN, password=PASSWORD)
    for cookie in [*page.headers.get_list("set-cookie"), *signed_in.headers.get_list("set-cookie")]:
        assert cookie.startswith("__Host-machpay-")
        assert {"HttpOnly", "Secure", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))


async def test_plain_http_works_on_the_local_machine() -> None:
    async with serving_console(console=ConsoleSettings("http://127.0.0.1:8000")) as rig:
        browser = rig.http()
        browser.base_url = "http://127.0.0.1:8000"
        page = await browser.get("/console/sign-in")
        answer = await submitted(browser, page, email=ADMIN, password=PASSWORD)
        assert "Secure" not in str(answer.headers.get_list("set-cookie"))
        assert (await browser.get("/console/keys")).status_code == 200


async def test_an_api_key_opens_no_page(rig: Rig) -> None:
    _, secret = await rig.key()
    answer = await rig.http().get("/console/keys", headers={"Authorization": f"Bearer {secret}"})
    assert answer.status_code == 303


async def test_every_link_stays_below_a_mount_point(rig: Rig) -> None:
    browser = await rig.signed_in()
    browser._transport.root_path = "/gateway"  # type: ignore[attr-defined]  # noqa: SLF001 - as a server's --root-path has it
    page = await browser.get("/gateway/console/keys")
    assert page.status_code == 200, page.text
    ways = set(re.findall(r'(?:src|href|action|hx-get)="([^"#]*)"', page.text))
    assert all(way.startswith("/gateway/console/") for way in ways)
    answer = await submitted(browser, page, "/gateway/console/sign-out")
    assert answer.headers["location"] == "/gateway/console/sign-in"


async def test_without_settings_there_is_no_console() -> None:
    async with serving_console(console=None) as rig:
        assert (await rig.http().get("/console/sign-in")).status_code == 401


async def test_two_accounts_do_not_see_each_other(rig: Rig) -> None:
    record, _ = await rig.key("acmes-own")
    browser = await rig.signed_in(STRANGER)
    assert "acmes-own" not in (await browser.get("/console/keys")).text
    for path in (f"/console/keys/{record.id}", f"/console/keys/{record.id}/revoke"):
        answer = await browser.get(path)
        assert answer.status_code == 404
        assert "acmes-own" not in answer.text
    assert "acmes-own" not in (await browser.get(f"/console/keys?after={record.id}")).text
    assert URL not in str(browser.cookies)


async def test_an_outdated_sign_in_form_continues_when_another_tab_signed_in(rig: Rig) -> None:
    browser = rig.http()
    first = await browser.get("/console/sign-in?next=/usage")
    second = await browser.get("/console/sign-in")
    assert (await submitted(browser, second, email=ADMIN, password=PASSWORD)).status_code == 303
    answer = await submitted(browser, first, email=STRANGER, password="looked at by nobody")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/usage")
    assert ADMIN in (await browser.get("/console/keys")).text  # and nobody was swapped in
    assert (await submitted(browser, first, email=STRANGER, password=PASSWORD)).status_code == 303
    assert ADMIN in (await browser.get("/console/keys")).text


async def test_a_form_without_its_cookie_signs_nobody_in(rig: Rig) -> None:
    browser = rig.http()
    page = await browser.get("/console/sign-in")
    browser.cookies.clear()
    answer = await submitted(browser, page, email=ADMIN, password=PASSWORD)
    assert answer.status_code == 200
    assert "lost this page" in answer.text
    assert "__Host-machpay-session" not in browser.cookies


async def test_hsts_includes_subdomains(rig: Rig) -> None:
    answer = await rig.http().get("/console/sign-in")
    assert answer.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"
