"""No other site can sign a user out of the authorization server (logout CSRF)."""

from urllib.parse import parse_qsl, urlencode

import pytest

from tests.oauth.harness import FORM, PASSWORD, Rig, filled, request_of, submitted


@pytest.mark.parametrize(
    "headers, token",
    [
        ({"Sec-Fetch-Site": "cross-site"}, None),  # with the right token
        ({}, ""),
        ({}, "0" * 64),
    ],
    ids=["cross-site", "no token", "forged token"],
)
async def test_signing_out_takes_the_token_of_the_consent_page(
    rig: Rig, headers: dict[str, str], token: str | None
) -> None:
    browser = rig.http()
    page = await browser.get("/oauth/authorize", params=request_of(rig.client))
    page = await browser.get(
        (await submitted(browser, page, email=rig.user.email, password=PASSWORD)).headers["location"]
    )
    forms = [filled(page.text, form=number) for number in range(page.text.count("<form"))]
    action, body = next(form for form in forms if form[0].startswith("/oauth/sign-out"))
    fields = dict(parse_qsl(body)) | ({} if token is None else {"proof": token})
    response = await browser.post(action, content=urlencode(fields), headers=FORM | headers)
    assert "clear-site-data" not in response.headers
    assert browser.cookies["__Host-machpay-session"]
    assert len(await rig.gateway.users.sign_ins(rig.user)) == 1
