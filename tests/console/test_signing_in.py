"""Who gets in, who is turned away, and what every page says to browsers."""

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


async def test_the_way_in_leads_on_to_where_one_was_going(rig: Rig) -> None:
    browser = rig.http()
    turned = await browser.get("/console/keys/new")
    page = await browser.get(turned.headers["location"])
    answer = await submitted(browser, page, email=ADMIN, password=PASSWORD)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/keys/new")
    again = await browser.get(turned.headers["location"])
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
async def test_the_way_in_leads_nowhere_else(rig: Rig, wanted: str) -> None:
    browser = rig.http()
    page = await browser.get(f"/console/sign-in?next={quote(wanted, safe='')}")
    answer = await submitted(browser, page, email=ADMIN, password=PASSWORD)
    assert answer.headers["location"] == "/console/keys"


@pytest.mark.parametrize(
    "email, password", [(ADMIN, "wrong horse battery"), ("nobody@example.org", PASSWORD), ("", "")]
)
async def test_which_of_the_two_is_wrong_is_not_told(rig: Rig, email: str, password: str) -> None:
    browser = rig.http()
    answer = await submitted(browser, await browser.get("/console/sign-in"), email=email, password=password)
    assert answer.status_code == 400
    assert "The e-mail or the password is wrong." in answer.text
    assert "machpay-session" not in str(answer.headers)
    assert not password or password not in answer.text


async def test_whoever_guesses_is_slowed(rig: Rig) -> None:
    browser = rig.http("203.0.113.9")
    page = await browser.get("/console/sign-in")
    statuses = [(await submitted(browser, page, email=ADMIN, password=f"guess {n:09}")).status_code for n in range(12)]
    assert statuses[0] == 400
    assert statuses[-1] == 429


async def test_a_disabled_user_is_out_at_once(rig: Rig) -> None:
    browser = await rig.signed_in(VIEWER)
    assert (await browser.get("/console/keys")).status_code == 200
    await rig.gateway.users.disable(rig.users[VIEWER])
    assert (await browser.get("/console/keys")).status_code == 303


async def test_signing_out_ends_the_sign_in_itself(rig: Rig) -> None:
    browser = await rig.signed_in()
    kept = dict(browser.cookies)
    page = await browser.get("/console/keys")
    answer = await submitted(browser, page, "/console/sign-out")
    assert answer.headers["location"] == "/console/sign-in"
    thief = rig.http()
    thief.cookies.update(kept)
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


async def test_what_pages_load_is_here_and_is_kept_by_its_content(rig: Rig) -> None:
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


async def test_cookies_are_for_this_host_over_tls_and_no_script(rig: Rig) -> None:
    browser = rig.http()
    page = await browser.get("/console/sign-in")
    signed_in = await submitted(browser, page, email=ADMIN, password=PASSWORD)
    for cookie in [*page.headers.get_list("set-cookie"), *signed_in.headers.get_list("set-cookie")]:
        assert cookie.startswith("__Host-machpay-")
        assert {"HttpOnly", "Secure", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))


async def test_over_plain_http_on_this_machine_it_works_too() -> None:
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


async def test_below_a_mount_point_every_way_leads_below_it(rig: Rig) -> None:
    browser = await rig.signed_in()
    browser._transport.root_path = "/gateway"  # type: ignore[attr-defined]  # noqa: SLF001 - as a server's --root-path has it
    page = await browser.get("/gateway/console/keys")
    assert page.status_code == 200, page.text
    ways = set(re.findall(r'(?:src|href|action|hx-get)="([^"#]*)"', page.text))
    assert all(way.startswith("/gateway/console/") for way in ways)
    answer = await submitted(browser, page, "/gateway/console/sign-out")
    assert answer.headers["location"] == "/gateway/console/sign-in"


async def test_there_is_no_console_unless_it_is_asked_for() -> None:
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


async def test_a_form_that_another_tab_overtook_goes_on(rig: Rig) -> None:
    browser = rig.http()
    first = await browser.get("/console/sign-in?next=/usage")
    second = await browser.get("/console/sign-in")
    assert (await submitted(browser, second, email=ADMIN, password=PASSWORD)).status_code == 303
    answer = await submitted(browser, first, email=STRANGER, password="looked at by nobody")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/usage")
    assert ADMIN in (await browser.get("/console/keys")).text  # and nobody was swapped in
    assert (await submitted(browser, first, email=STRANGER, password=PASSWORD)).status_code == 303
    assert ADMIN in (await browser.get("/console/keys")).text


async def test_a_form_without_proof_signs_nobody_in(rig: Rig) -> None:
    browser = rig.http()
    page = await browser.get("/console/sign-in")
    browser.cookies.clear()
    answer = await submitted(browser, page, email=ADMIN, password=PASSWORD)
    assert answer.status_code == 200
    assert "lost this page" in answer.text
    assert "__Host-machpay-session" not in browser.cookies


async def test_pages_say_that_subdomains_need_tls_too(rig: Rig) -> None:
    answer = await rig.http().get("/console/sign-in")
    assert answer.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"
