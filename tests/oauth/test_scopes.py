"""Scopes: at most what the client may ask for, what the user allowed, and what the gateway then holds a token to."""

import pytest

from machpay_gateway.core.errors import InputError
from tests.oauth.harness import PASSWORD, Rig, answer_in, request_of, submitted


@pytest.mark.parametrize("scope", ["unknown", "account:read unknown", "account:write", "keys:manage", "account:*"])
async def test_more_than_there_is_or_than_the_client_may_ask_for_is_refused(rig: Rig, scope: str) -> None:
    answer = await rig.authorize(request_of(rig.client) | {"scope": scope})
    assert answer_in(answer.headers["location"])["error"] == "invalid_scope"
    assert (await rig.token(grant_type="client_credentials", scope=scope)).json()["error"] == "invalid_scope"


@pytest.mark.parametrize("scope", [" ", "account:read ", " account:read", "account:read  skills:execute"], ids=repr)
async def test_names_with_another_space_than_one_in_between_are_no_scope(rig: Rig, scope: str) -> None:
    answer = await rig.authorize(request_of(rig.client) | {"scope": scope})
    assert answer_in(answer.headers["location"])["error"] == "invalid_scope"
    assert (await rig.token(grant_type="client_credentials", scope=scope)).json()["error"] == "invalid_scope"


async def test_without_a_scope_all_that_the_client_may_ask_for_is_meant(rig: Rig) -> None:
    assert (await rig.tokens(scope=""))["scope"] == "account:read skills:execute"


async def test_what_the_user_leaves_out_the_gateway_refuses(rig: Rig) -> None:
    browser = rig.http()
    page = await browser.get("/oauth/authorize", params=request_of(rig.client))
    signed_in = await submitted(browser, page, email=rig.user.email, password=PASSWORD)
    page = await browser.get(signed_in.headers["location"])
    assert page.text.count('name="scope"') == 2
    shorter = page.text.replace('value="skills:execute" checked', 'value="skills:execute"')
    page._content = shorter.encode()  # noqa: SLF001 - as a user unticks a box
    page = type(page)(200, content=shorter.encode(), headers={"content-type": "text/html"}, request=page.request)
    location = (await submitted(browser, page, decision="allow")).headers["location"]
    tokens = (await rig.exchanged(answer_in(location)["code"])).json()
    assert tokens["scope"] == "account:read"
    assert (await rig.who(tokens["access_token"], path="/v1/account")).status_code == 200
    refused = await rig.who(tokens["access_token"], path="/v1/skills/execute", method="POST")
    assert (refused.status_code, refused.json()["required_scopes"]) == (403, ["skills:execute"])
    assert (await rig.refreshed(tokens["refresh_token"])).json()["scope"] == "account:read"  # remembered
    again = await browser.get("/oauth/authorize", params=request_of(rig.client))
    assert again.status_code == 200  # what was left out is asked for, and not taken


async def test_scopes_that_the_form_adds_are_not_given(rig: Rig) -> None:
    browser = rig.http()
    page = await browser.get("/oauth/authorize", params=request_of(rig.client) | {"scope": "account:read"})
    signed_in = await submitted(browser, page, email=rig.user.email, password=PASSWORD)
    page = await browser.get(signed_in.headers["location"])
    location = (await submitted(browser, page, decision="allow", scope="skills:execute")).headers["location"]
    assert (await rig.exchanged(answer_in(location)["code"])).json()["scope"] == "account:read"


@pytest.mark.parametrize("scopes", [["keys:manage"], ["skills:*"], ["unknown"], ["account:read", "account:read"]])
async def test_no_client_is_registered_for_what_no_user_can_consent_to(rig: Rig, scopes: list[str]) -> None:
    with pytest.raises(InputError, match="cope"):
        await rig.new_client(scopes=scopes)


async def test_a_refreshed_token_lacks_the_scopes_that_the_client_has_lost(rig: Rig) -> None:
    tokens = await rig.tokens()
    assert tokens["scope"] == "account:read skills:execute"
    assert await rig.gateway.oauth_clients.update(None, rig.client.id, scopes=["account:read"]) is not None
    refreshed = (await rig.refreshed(tokens["refresh_token"])).json()
    assert refreshed["scope"] == "account:read"
    assert (await rig.who(refreshed["access_token"])).json()["scopes"] == ["account:read"]
