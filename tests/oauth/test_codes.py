"""Codes: for one client, one address, one minute and one use."""

import re
from typing import Any

import pytest

from machpay_gateway.core.oauth.grant import CODE_SECONDS
from tests.oauth.harness import REDIRECT, VERIFIER, Rig, request_of


async def test_the_second_use_of_a_code_ends_what_came_of_the_first(rig: Rig) -> None:
    code = await rig.code()
    first = (await rig.exchanged(code)).json()
    assert (await rig.who(first["access_token"])).status_code == 200
    second = await rig.exchanged(code)
    assert (second.status_code, second.json()["error"]) == (400, "invalid_grant")
    assert (await rig.who(first["access_token"])).status_code == 401
    assert (await rig.refreshed(first["refresh_token"])).json()["error"] == "invalid_grant"


@pytest.mark.own_gateway
@pytest.mark.parametrize("seconds", [CODE_SECONDS + 1, 3000.0])
async def test_a_second_use_that_comes_late_ends_it_too(rig: Rig, seconds: float) -> None:
    code = await rig.code()
    first = (await rig.exchanged(code)).json()
    rig.later(seconds)
    assert (await rig.exchanged(code, code_verifier="w" * 43)).json()["error"] == "invalid_grant"
    assert (await rig.who(first["access_token"])).status_code == 200  # whoever cannot prove it ends nothing
    assert (await rig.exchanged(code)).json()["error"] == "invalid_grant"
    assert (await rig.refreshed(first["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await rig.who(first["access_token"])).status_code == 401


async def test_a_replay_ends_no_other_sign_in_of_the_same_user(rig: Rig) -> None:
    other = await rig.tokens()
    code = await rig.code()
    await rig.exchanged(code)
    await rig.exchanged(code)
    assert (await rig.who(other["access_token"])).status_code == 200
    assert (await rig.refreshed(other["refresh_token"])).status_code == 200


async def test_a_code_that_somebody_else_presents_is_not_used_up_and_ends_nothing(rig: Rig) -> None:
    other, secret = await rig.new_client()
    sent = {"grant_type": "authorization_code", "redirect_uri": REDIRECT, "code_verifier": VERIFIER}
    code = await rig.code()
    assert (await rig.token(other, secret, code=code, **sent)).json()["error"] == "invalid_grant"
    tokens = (await rig.exchanged(code)).json()
    assert (await rig.token(other, secret, code=code, **sent)).json()["error"] == "invalid_grant"
    assert (await rig.exchanged(code, code_verifier="w" * 43)).json()["error"] == "invalid_grant"
    assert (await rig.who(tokens["access_token"])).status_code == 200


@pytest.mark.parametrize("uri", [f"{REDIRECT}/", f"{REDIRECT}?", "https://evil.example/", REDIRECT.upper()])
async def test_a_code_is_bound_to_its_redirect_uri(rig: Rig, uri: str) -> None:
    answer = await rig.exchanged(await rig.code(), redirect_uri=uri)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


async def test_a_redirect_uri_may_be_left_out_where_pkce_binds_the_code_and_nowhere_else(rig: Rig) -> None:
    assert (await rig.exchanged(await rig.code(), redirect_uri="")).status_code == 200
    lax, secret = await rig.new_client(requires_pkce=False)
    without_pkce: dict[str, Any] = {"code_challenge": "", "code_challenge_method": ""}
    code = await rig.code(client=lax, **without_pkce)
    answer = await rig.token(lax, secret, grant_type="authorization_code", code=code)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    answer = await rig.token(lax, secret, grant_type="authorization_code", code=code, redirect_uri=REDIRECT)
    assert answer.status_code == 200


@pytest.mark.own_gateway
async def test_a_code_lives_for_a_minute_at_most(rig: Rig) -> None:
    assert CODE_SECONDS <= 60
    code = await rig.code()
    rig.later(CODE_SECONDS + 1)
    answer = await rig.exchanged(code)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


async def test_a_code_of_a_grant_that_was_revoked_gets_nothing(rig: Rig) -> None:
    code = await rig.code()
    (grant,) = await rig.gateway.revocation.list(rig.user.account_id)
    await rig.gateway.revocation.revoke_grant(None, grant)
    assert (await rig.exchanged(code)).json()["error"] == "invalid_grant"


async def test_a_code_from_before_a_revocation_is_dead_after_consent_is_given_again(rig: Rig) -> None:
    code = await rig.code()
    (grant,) = await rig.gateway.revocation.list(rig.user.account_id)
    await rig.gateway.revocation.revoke_grant(None, grant)
    again = await rig.code()
    assert (await rig.exchanged(code)).json()["error"] == "invalid_grant"
    assert (await rig.exchanged(again)).status_code == 200


async def test_no_page_lets_a_code_out_by_its_address(rig: Rig) -> None:
    for answer in (
        await rig.authorize(request_of(rig.client)),
        await rig.authorize(request_of(rig.client) | {"response_type": "token"}),
        await rig.authorize("client_id=x"),
    ):
        assert answer.headers["referrer-policy"] == "no-referrer"
        loading = re.findall(r"<(?:script|img|link|iframe|object|embed)\b|url\(|@import|\bsrc=", answer.text)
        assert loading == []  # nothing of anybody else's
