"""The pages that users see: theirs alone, in no frame, and by no other site's doing (RFC 9700 §4.7 and §4.16)."""

import re
from html import escape, unescape
from urllib.parse import quote, urlencode

import pytest
from httpx2 import AsyncClient, Response

from machpay_gateway.core.oauth.settings import OAuthSettings
from tests.oauth.harness import (
    FORM,
    ISSUER,
    PASSWORD,
    Rig,
    answer_in,
    asks_to_sign_in,
    filled,
    request_of,
    serving_oauth,
    submitted,
)

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&{{7*7}}"


async def consent_page(rig: Rig, browser: AsyncClient) -> Response:
    page = await browser.get("/oauth/authorize", params=request_of(rig.client))
    page = await submitted(browser, page, email=rig.user.email, password=PASSWORD)
    assert page.status_code == 303  # and not 307, which would send the password on
    return await browser.get(page.headers["location"])


async def test_every_page_forbids_frames_scripts_and_caches(rig: Rig) -> None:
    browser = rig.http()
    for page in (
        await rig.authorize(request_of(rig.client)),
        await consent_page(rig, browser),
        await rig.authorize(""),
    ):
        policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
        assert (policy["default-src"], policy["frame-ancestors"], policy["base-uri"]) == ("'none'",) * 3
        assert "unsafe" not in page.headers["content-security-policy"]
        assert policy["form-action"].split()[0] == "'self'"
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["referrer-policy"] == "no-referrer"
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["strict-transport-security"].startswith("max-age=")
        assert "<script" not in page.text


async def test_cookies_are_for_this_host_over_tls_and_no_script(rig: Rig) -> None:
    browser = rig.http()
    page = await browser.get("/oauth/authorize", params=request_of(rig.client))
    signed_in = await submitted(browser, page, email=rig.user.email, password=PASSWORD)
    for answer in (page, signed_in):
        for cookie in answer.headers.get_list("set-cookie"):
            assert cookie.startswith("__Host-machpay-")
            assert {"HttpOnly", "Secure", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
            assert "Domain" not in cookie


async def test_over_plain_http_on_this_machine_cookies_work_too() -> None:
    async with serving_oauth(authority=OAuthSettings("http://127.0.0.1:8000")) as rig:
        page = await rig.http(base_url="http://127.0.0.1:8000").get("/oauth/authorize", params=request_of(rig.client))
        (cookie,) = page.headers.get_list("set-cookie")
        assert cookie.startswith("machpay-form=")
        assert "Secure" not in cookie
        assert "strict-transport-security" not in page.headers


async def test_signing_in_gives_the_browser_another_cookie_than_it_came_with(rig: Rig) -> None:
    browser = rig.http()
    page = await browser.get("/oauth/authorize", params=request_of(rig.client))
    form = browser.cookies["__Host-machpay-form"]
    await submitted(browser, page, email=rig.user.email, password=PASSWORD)
    assert browser.cookies["__Host-machpay-session"] != form
    other = rig.http()
    other.cookies.set("__Host-machpay-session", form)  # one that somebody else knows
    assert asks_to_sign_in(await other.get("/oauth/authorize", params=request_of(rig.client)))


@pytest.mark.parametrize("proof", ["", "x", "0" * 64])
async def test_a_sign_in_that_no_page_of_ours_sent_is_not_taken(rig: Rig, proof: str) -> None:
    browser = rig.http()
    page = await browser.get("/oauth/authorize", params=request_of(rig.client))
    action = unescape(re.findall(r'action="([^"]*)"', page.text)[0])
    data = {"email": rig.user.email, "password": PASSWORD, "proof": proof}
    answer = await browser.post(action, data=data)
    assert answer.status_code == 200  # the page again
    assert "__Host-machpay-session" not in browser.cookies
    without_cookie = await rig.http().post(action, data=data)
    assert without_cookie.status_code == 200


async def test_consent_that_no_page_of_ours_sent_is_asked_for_again(rig: Rig) -> None:
    browser, stranger = rig.http(), rig.http()
    page = await consent_page(rig, browser)
    theirs = await consent_page(rig, stranger)
    action = unescape(re.findall(r'action="([^"]*)"', page.text)[0])
    proofs = ["", "x", *re.findall(r'name="proof" value="([^"]*)"', theirs.text)]
    for proof in proofs:
        data = {"proof": proof, "decision": "allow", "scope": "account:read"}
        answer = await browser.post(action, data=data)
        assert (answer.status_code, "code=" in answer.headers["location"]) == (303, False)
        assert answer.headers["location"].startswith("/oauth/authorize?")


async def test_consent_is_to_the_request_that_was_shown(rig: Rig) -> None:
    browser = rig.http()
    page = await consent_page(rig, browser)
    (proof, *_) = re.findall(r'name="proof" value="([^"]*)"', page.text)
    other, _ = await rig.new_client(name="Another app")
    answer = await browser.post(
        "/oauth/consent", params=request_of(other), data={"proof": proof, "decision": "allow", "scope": "account:read"}
    )
    assert "code=" not in answer.headers["location"]


async def test_a_form_that_another_site_sends_is_not_taken(rig: Rig) -> None:
    browser = rig.http()
    page = await consent_page(rig, browser)
    browser.headers["Sec-Fetch-Site"] = "cross-site"
    answer = await submitted(browser, page, decision="allow")
    assert "code=" not in answer.headers["location"]


@pytest.mark.parametrize("decision", ["deny", "", "ALLOW", "yes"])
async def test_anything_but_allow_is_no(rig: Rig, decision: str) -> None:
    browser = rig.http()
    answer = await submitted(browser, await consent_page(rig, browser), decision=decision)
    assert answer_in(answer.headers["location"])["error"] == "access_denied"


async def test_names_states_and_e_mails_are_text_and_nothing_else(rig: Rig) -> None:
    client, _ = await rig.new_client(name=HOSTILE[:90])
    browser = rig.http()
    page = await browser.get("/oauth/authorize", params=request_of(client) | {"state": HOSTILE})
    again = await submitted(browser, page, email=f"{HOSTILE}@example.org", password="wrong")
    signed_in = await submitted(browser, page, email=rig.user.email, password=PASSWORD)
    consent = await browser.get(signed_in.headers["location"])
    for answer in (page, again, consent):
        assert escape(client.name, quote=False).split("&lt;")[1][:6] in answer.text
        assert "<script" not in answer.text
        assert "<img" not in answer.text
        random = rf'value="[0-9a-f]{{64}}"|action="[^"]*"|{rig.user.account_id}'
        assert "49" not in re.sub(random, "", answer.text).partition("<body>")[2]
    assert "onerror" in unescape(consent.text)


async def test_the_consent_page_names_app_account_user_host_and_each_scope_in_words(rig: Rig) -> None:
    page = await consent_page(rig, rig.http())
    text = unescape(page.text)
    for part in (
        "Ada's app",
        rig.user.email,
        rig.user.account_id,
        "https://app.example.org",
        "Execute skills",
        "View balance",
    ):
        assert part in text


async def test_a_wrong_password_and_an_unknown_e_mail_read_the_same(rig: Rig) -> None:
    answers = []
    for email in (rig.user.email, rig.unknown_email):
        browser = rig.http()
        page = await browser.get("/oauth/authorize", params=request_of(rig.client))
        answers.append(await submitted(browser, page, email=email, password="wrong password"))
    texts = [re.sub(r'value="[^"]*"', "", answer.text) for answer in answers]
    assert texts[0] == texts[1]
    assert {answer.status_code for answer in answers} == {400}


@pytest.mark.parametrize("text", [b"%FF", b"%ED%A0%80", b"%00", b"%0D%0A", b"x" * 9000], ids=ascii)
@pytest.mark.parametrize("name", [b"email", b"password", b"proof"])
async def test_a_form_that_no_page_sends_is_answered_by_the_page(rig: Rig, name: bytes, text: bytes) -> None:
    browser = rig.http()
    page = await browser.get("/oauth/authorize", params=request_of(rig.client))
    action, hidden = filled(page.text)
    fields = {b"email": quote(rig.unknown_email).encode(), b"password": b"wrong", name: text}
    body = b"&".join(field + b"=" + value for field, value in fields.items())
    answer = await browser.post(
        action, content=body if name == b"proof" else hidden.encode() + b"&" + body, headers=FORM
    )
    assert (answer.status_code // 100 in {2, 4}, asks_to_sign_in(answer)) == (True, True)


async def test_a_disabled_user_cannot_sign_in_and_is_not_told_why(rig: Rig) -> None:
    await rig.gateway.users.disable(rig.user)
    browser = rig.http()
    page = await browser.get("/oauth/authorize", params=request_of(rig.client))
    answer = await submitted(browser, page, email=rig.user.email, password=PASSWORD)
    assert (answer.status_code, "wrong" in answer.text) == (400, True)


async def test_the_same_is_not_asked_twice_and_more_is(rig: Rig) -> None:
    browser = rig.http()
    first = request_of(rig.client) | {"scope": "account:read"}
    await rig.allowed(browser, rig.client, scope="account:read")
    assert (await browser.get("/oauth/authorize", params=first)).status_code == 303
    assert (await browser.get("/oauth/authorize", params=first | {"prompt": "none"})).status_code == 303
    more = request_of(rig.client)
    assert (await browser.get("/oauth/authorize", params=more)).status_code == 200
    silent = await browser.get("/oauth/authorize", params=more | {"prompt": "none"})
    assert answer_in(silent.headers["location"])["error"] == "consent_required"
    assert (await browser.get("/oauth/authorize", params=first | {"prompt": "consent"})).status_code == 200
    again = await browser.get("/oauth/authorize", params=first | {"prompt": "login"})
    assert asks_to_sign_in(again)
    onward = await submitted(browser, again, email=rig.user.email, password=PASSWORD)
    assert "prompt" not in onward.headers["location"]


async def test_consent_that_was_asked_for_is_asked_for_after_signing_in_too(rig: Rig) -> None:
    await rig.code()  # the user has consented before
    browser = rig.http()
    for prompt in ("consent", "login consent", "select_account consent"):
        page = await browser.get("/oauth/authorize", params=request_of(rig.client) | {"prompt": prompt})
        if asks_to_sign_in(page):
            onward = await submitted(browser, page, email=rig.user.email, password=PASSWORD)
            page = await browser.get(onward.headers["location"])
        assert (page.status_code, asks_to_sign_in(page)) == (200, False)
        assert answer_in((await submitted(browser, page, decision="allow")).headers["location"])["code"]


async def test_however_a_prompt_is_written_signing_in_does_it(rig: Rig) -> None:
    browser = rig.http()
    page = await browser.get(f"/oauth/authorize?{urlencode(request_of(rig.client))}&%70rompt=log%69n")
    onward = await submitted(browser, page, email=rig.user.email, password=PASSWORD)
    assert not asks_to_sign_in(await browser.get(onward.headers["location"]))


async def test_a_public_app_on_the_users_machine_is_asked_about_each_time(rig: Rig) -> None:
    client, _ = await rig.new_client(is_public=True, redirect_uris=["http://127.0.0.1/cb"])
    browser = rig.http()
    await rig.allowed(browser, client)
    assert (await browser.get("/oauth/authorize", params=request_of(client))).status_code == 200
    assert ISSUER.startswith("https")


async def test_consent_says_what_the_settings_say_of_a_scope() -> None:
    scopes = {"account:read": "See the <balance>"}
    async with serving_oauth(scopes=scopes) as rig:
        page = await consent_page(rig, rig.http())
    assert "See the &lt;balance&gt;" in page.text
    assert "View balance and history" not in page.text
