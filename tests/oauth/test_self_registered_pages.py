"""What a user sees of a client that registered itself, and where no browser is sent before somebody has signed in."""

from typing import Any

import pytest
from httpx2 import AsyncClient, Response

from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.settings import OAuthSettings
from tests.oauth.harness import (
    AUDIENCE,
    ISSUER,
    PASSWORD,
    REDIRECT,
    Rig,
    answer_in,
    asks_to_sign_in,
    request_of,
    submitted,
)

NAME = "MachPay Console"
HOST = "https://app.example.org"
OPEN = OAuthSettings(ISSUER, audience=AUDIENCE, registration_account="acme", registration_scopes=("account:read",))
ERRORS: list[tuple[dict[str, str | None], str]] = [
    ({"scope": "skills:execute"}, "invalid_scope"),
    ({"scope": "made:up"}, "invalid_scope"),
    ({"scope": "account:read  account:read"}, "invalid_scope"),
    ({"code_challenge": None}, "invalid_request"),
    ({"code_challenge": "short"}, "invalid_request"),
    ({"code_challenge_method": "plain"}, "invalid_request"),
    ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
    ({"response_type": "token"}, "unsupported_response_type"),
    ({"response_type": None}, "invalid_request"),
    ({"response_mode": "fragment"}, "invalid_request"),
    ({"resource": "https://elsewhere.example.com"}, "invalid_target"),
    ({"prompt": "made-up"}, "invalid_request"),
    ({"prompt": "none login"}, "invalid_request"),
    ({"request": "x"}, "request_not_supported"),
    ({"request_uri": "https://app.example.org/r"}, "request_uri_not_supported"),
    ({"state": "s" * 4097}, "invalid_request"),
]


@pytest.fixture
def authority() -> OAuthSettings:
    return OPEN


async def registered(rig: Rig, **changes: Any) -> OAuthClient:  # noqa: ANN401 - metadata
    request_authorization = {"client_name": NAME, "redirect_uris": [REDIRECT], **changes}
    made = await rig.http().post("/oauth/register", json=request_authorization)
    client = await rig.gateway.oauth_clients.get(None, made.json()["client_id"])
    assert client is not None
    return client


async def request_authorization(browser: AsyncClient, client: OAuthClient, **changes: str | None) -> Response:
    values = {name: value for name, value in (request_of(client) | changes).items() if value is not None}
    return await browser.get("/oauth/authorize", params=values)


async def signed_in(rig: Rig) -> AsyncClient:
    """Return a browser in which the user has signed in, at another app's request."""
    browser = rig.http()
    page = await browser.get("/oauth/authorize", params=request_of(rig.client))
    answer = await submitted(browser, page, email=rig.user.email, password=PASSWORD)
    assert answer.status_code == 303
    return browser


@pytest.mark.parametrize("changes, code", ERRORS, ids=str)
async def test_a_wrong_request_redirects_only_once_somebody_has_signed_in(
    rig: Rig, changes: dict[str, str | None], code: str
) -> None:
    client = await registered(rig)
    page = await request_authorization(rig.http(), client, **changes)
    assert (page.status_code, page.headers.get("location")) == (400, None)
    assert "was refused" in page.text
    assert not asks_to_sign_in(page)
    answer = await request_authorization(await signed_in(rig), client, **changes)
    assert answer.status_code == 303
    assert answer_in(answer.headers["location"])["error"] == code
    ordinary = await request_authorization(
        rig.http(), rig.client, **changes
    )  # a client of an operator's is answered as ever
    assert ordinary.status_code == 303 or "skills:execute" in changes.values()


async def test_a_repeated_parameter_redirects_only_once_somebody_has_signed_in(rig: Rig) -> None:
    client = await registered(rig)
    pairs = [*request_of(client).items(), ("scope", "account:read")]
    page = await rig.authorize(pairs)
    assert (page.status_code, page.headers.get("location")) == (400, None)


async def test_nobody_is_sent_back_without_a_page_to_say_that_nobody_has_signed_in(rig: Rig) -> None:
    client = await registered(rig)
    page = await request_authorization(rig.http(), client, prompt="none")
    assert (page.status_code, page.headers.get("location")) == (400, None)
    forged = rig.http()
    forged.cookies.set("__Host-machpay-session", "bs_mp1_" + "0" * 38)
    assert (await request_authorization(forged, client, prompt="none")).headers.get("location") is None
    answer = await request_authorization(await signed_in(rig), client, prompt="none")
    assert answer_in(answer.headers["location"])["error"] == "consent_required"


@pytest.mark.parametrize("path", ["sign-in", "consent", "sign-out"])
async def test_no_form_of_a_wrong_request_redirects_to_the_app(rig: Rig, path: str) -> None:
    client = await registered(rig)
    answer = await rig.http().post(f"/oauth/{path}", params=request_of(client) | {"scope": "made:up"})
    assert (answer.status_code, answer.headers.get("location")) == (400, None)


async def test_the_pages_say_that_the_app_registered_itself_and_show_its_host_before_its_name(rig: Rig) -> None:
    client, browser = await registered(rig), rig.http()
    sign_in = await request_authorization(browser, client)
    assert asks_to_sign_in(sign_in)
    answer = await submitted(browser, sign_in, email=rig.user.email, password=PASSWORD)
    consent = await browser.get(answer.headers["location"])
    for page in (sign_in, consent):
        body = page.text[page.text.index("<body>") :]
        assert "registered itself" in body
        assert "Nobody has verified" in body
        assert body.index(HOST) < body.index(NAME)
        assert body.count(NAME) == 1
        assert NAME not in page.text[: page.text.index("<body>")]
        assert NAME not in body[body.index("<h1>") : body.index("</h1>")]


async def test_the_pages_of_an_operators_client_are_without_that(rig: Rig) -> None:
    page = await request_authorization(rig.http(), rig.client)
    assert "registered itself" not in page.text


OTHER = "https://other.example.org/callback"


@pytest.mark.parametrize(
    "metadata, is_asked_again",
    [
        ({"token_endpoint_auth_method": "none"}, True),  # nothing is known of it but where it sends users
        ({"redirect_uris": [REDIRECT, OTHER]}, True),  # the user saw one of its hosts
        ({"redirect_uris": [REDIRECT, f"{HOST}/other"]}, False),
        ({}, False),
    ],
    ids=str,
)
async def test_what_was_allowed_before_is_asked_again_of_an_app_that_cannot_be_told_from_another(
    rig: Rig, metadata: dict[str, Any], *, is_asked_again: bool
) -> None:
    client, browser = await registered(rig, **metadata), rig.http()
    await rig.allowed(browser, client)
    answer = await request_authorization(browser, client)
    assert answer.status_code == (200 if is_asked_again else 303)
