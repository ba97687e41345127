"""What ends tokens, and how soon; and what is told of a token (RFC 7009, RFC 7662)."""

from dataclasses import replace
from typing import Any

import pytest

from tests.oauth.harness import PASSWORD, Rig, add_user, asks_to_sign_in, basic, request_of


async def test_revoking_a_refresh_token_ends_its_access_tokens_at_the_next_request(rig: Rig) -> None:
    tokens = await rig.tokens()
    assert (await rig.who(tokens["access_token"])).status_code == 200
    answer = await rig.revoked(tokens["refresh_token"])
    assert (answer.status_code, answer.json()) == (200, {})
    assert (await rig.who(tokens["access_token"])).status_code == 401
    assert (await rig.refreshed(tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_revoking_an_access_token_ends_its_sign_in(rig: Rig) -> None:
    tokens, other = await rig.tokens(), await rig.tokens()
    assert (await rig.revoked(tokens["access_token"], token_type_hint="refresh_token")).status_code == 200
    assert (await rig.who(tokens["access_token"])).status_code == 401
    assert (await rig.refreshed(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await rig.who(other["access_token"])).status_code == 200


async def test_revoking_a_token_that_a_client_got_for_itself_ends_it(rig: Rig) -> None:
    token = (await rig.token(grant_type="client_credentials")).json()["access_token"]
    assert (await rig.who(token)).status_code == 200
    await rig.revoked(token)
    assert (await rig.who(token)).status_code == 401
    again = (await rig.token(grant_type="client_credentials")).json()["access_token"]
    assert (await rig.who(again)).status_code == 200
    assert (await rig.who(token)).status_code == 401


@pytest.mark.parametrize("token", ["unknown", "rt_mp1_x", "a.b.c", "\0", "é" * 100, "x" * 10_000], ids=ascii)
async def test_revoking_what_is_not_there_succeeds(rig: Rig, token: str) -> None:
    assert (await rig.revoked(token)).status_code == 200


async def test_another_clients_token_is_not_revoked(rig: Rig) -> None:
    other, secret = await rig.new_client()
    tokens = await rig.tokens()
    for token in (tokens["refresh_token"], tokens["access_token"]):
        answer = await rig.http().post("/oauth/revoke", data={"token": token}, headers=basic(other.id, secret))
        assert answer.status_code == 200
    assert (await rig.who(tokens["access_token"])).status_code == 200
    assert (await rig.refreshed(tokens["refresh_token"])).status_code == 200


async def test_revoking_needs_the_client_and_a_token(rig: Rig) -> None:
    token = (await rig.tokens())["refresh_token"]
    answer = await rig.http().post("/oauth/revoke", data={"token": token, "client_id": rig.client.id})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert (await rig.revoked("")).json()["error"] == "invalid_request"
    assert (await rig.refreshed(token)).status_code == 200


async def test_a_public_client_revokes_by_its_name(rig: Rig) -> None:
    client, _ = await rig.new_client(is_public=True)
    sent = {"grant_type": "authorization_code", "redirect_uri": client.redirect_uris[0], "code_verifier": "v" * 43}
    tokens = (await rig.token(client, code=await rig.code(client=client), **sent)).json()
    data = {"token": tokens["refresh_token"], "client_id": client.id}
    assert (await rig.http().post("/oauth/revoke", data=data)).status_code == 200
    assert (await rig.who(tokens["access_token"])).status_code == 401


async def test_a_good_token_is_told_of_to_its_own_client(rig: Rig) -> None:
    tokens = await rig.tokens()
    document = (await rig.introspected(tokens["access_token"])).json()
    assert document["active"] is True
    assert (document["client_id"], document["sub"], document["scope"]) == (
        rig.client.id,
        rig.user.id,
        "account:read skills:execute",
    )
    assert document["exp"] - document["iat"] == 3600
    assert {"aud", "iss", "jti", "token_type"} <= document.keys()
    refresh = (await rig.introspected(tokens["refresh_token"])).json()
    assert (refresh["active"], refresh["token_type"]) == (True, "refresh_token")


@pytest.mark.own_gateway
async def test_all_that_is_not_good_reads_the_same(rig: Rig) -> None:
    other, secret = await rig.new_client()
    foreign, revoked, used = await rig.tokens(), await rig.tokens(), await rig.tokens()
    await rig.revoked(revoked["refresh_token"])
    await rig.refreshed(used["refresh_token"])
    answers: list[Any] = [
        await rig.introspected(foreign["access_token"], other.id, secret),
        await rig.introspected(foreign["refresh_token"], other.id, secret),
        await rig.introspected(revoked["access_token"]),
        await rig.introspected(revoked["refresh_token"]),
        await rig.introspected(used["refresh_token"]),
        await rig.introspected("garbage"),
        await rig.introspected("a.b.c"),
        await rig.introspected(foreign["access_token"][:-2]),
    ]
    rig.later(4000)
    answers.append(await rig.introspected(foreign["access_token"]))
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, b'{"active":false}')}


async def test_asking_about_tokens_needs_a_client_that_proves_itself(rig: Rig) -> None:
    token = (await rig.tokens())["access_token"]
    public, _ = await rig.new_client(is_public=True)
    for data in (
        {"token": token},
        {"token": token, "client_id": rig.client.id},
        {"token": token, "client_id": public.id},
    ):
        answer = await rig.http().post("/oauth/introspect", data=data)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
        assert answer.headers["www-authenticate"].startswith("Basic ")
    assert (await rig.http().get("/oauth/introspect", params={"token": token})).status_code == 405


async def test_a_disabled_users_tokens_are_dead_and_come_back_with_the_user(rig: Rig) -> None:
    browser = rig.http()
    await rig.allowed(browser, rig.client)
    tokens = await rig.tokens()
    user = await rig.gateway.users.disable(rig.user)
    assert (await rig.who(tokens["access_token"])).status_code == 401
    assert (await rig.refreshed(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await rig.introspected(tokens["access_token"])).json() == {"active": False}
    # The sign-in ended too: nothing else would be asked in that browser.
    assert asks_to_sign_in(await browser.get("/oauth/authorize", params=request_of(rig.client)))
    await rig.gateway.users.enable(user)
    assert (await rig.who(tokens["access_token"])).status_code == 200


async def test_a_deleted_clients_tokens_are_dead(rig: Rig) -> None:
    tokens = await rig.tokens()
    own = (await rig.token(grant_type="client_credentials")).json()["access_token"]
    await rig.gateway.oauth_clients.delete(None, rig.client.id)
    for token in (tokens["access_token"], own):
        assert (await rig.who(token)).status_code == 401
    answer = await rig.refreshed(tokens["refresh_token"])
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_a_new_password_signs_every_browser_out_and_leaves_apps_alone(rig: Rig) -> None:
    browser = rig.http()
    await rig.allowed(browser, rig.client)
    tokens = await rig.tokens()
    await rig.gateway.users.set_password(rig.user, PASSWORD + "!")
    assert asks_to_sign_in(await browser.get("/oauth/authorize", params=request_of(rig.client)))
    assert (await rig.who(tokens["access_token"])).status_code == 200
    assert (await rig.gateway.users.find(None, rig.user.email)) is not None


async def test_consent_given_again_does_not_wake_what_was_revoked(rig: Rig) -> None:
    before = await rig.tokens()
    (grant,) = await rig.gateway.revocation.list(rig.user.account_id)
    assert await rig.gateway.revocation.revoke_grant(None, grant)
    assert not await rig.gateway.revocation.revoke_grant(None, grant)
    assert (await rig.who(before["access_token"])).status_code == 401
    after = await rig.tokens()
    assert (await rig.who(after["access_token"])).status_code == 200
    assert (await rig.who(before["access_token"])).status_code == 401
    assert (await rig.refreshed(before["refresh_token"])).json()["error"] == "invalid_grant"


async def test_consent_after_a_revocation_does_not_bring_back_other_scopes(rig: Rig) -> None:
    await rig.tokens()
    (grant,) = await rig.gateway.revocation.list(rig.user.account_id)
    assert await rig.gateway.revocation.revoke_grant(None, grant)
    tokens = await rig.tokens(scope="account:read")
    (grant,) = await rig.gateway.revocation.list(rig.user.account_id)
    assert list(grant.scopes) == ["account:read"]
    assert (await rig.who(tokens["access_token"])).json()["scopes"] == ["account:read"]


async def test_a_tier_changes_without_ending_a_token(rig: Rig) -> None:
    token = (await rig.tokens())["access_token"]
    assert (await rig.who(token)).json()["tier"] == "standard"
    await rig.gateway.accounts.set_tier(rig.user.account_id, "enterprise")
    answer = await rig.who(token)
    assert (answer.status_code, answer.json()["tier"]) == (200, "enterprise")


async def test_limits_by_account_come_from_the_tier_of_the_users_account(rig: Rig) -> None:
    globex = await rig.gateway.accounts.create(f"globex of {rig.user.id}", "enterprise")
    user = await add_user(rig.gateway, globex.id, f"{rig.user.id}@globex.example", rig.user)
    token = (await replace(rig, user=user).tokens())["access_token"]
    for tier, clients in (("enterprise", "standard"), ("test", "standard"), ("test", "enterprise")):
        await rig.gateway.accounts.set_tier(globex.id, tier)
        await rig.gateway.accounts.set_tier(rig.user.account_id, clients)
        caller = (await rig.who(token)).json()
        assert (caller["account_id"], caller["account_tier"], caller["tier"]) == (globex.id, tier, clients)


async def test_what_a_client_loses_its_tokens_lose(rig: Rig) -> None:
    token = (await rig.tokens())["access_token"]
    await rig.gateway.oauth_clients.update(None, rig.client.id, scopes=["account:read"])
    assert (await rig.who(token)).json()["scopes"] == ["account:read"]
    assert (await rig.who(token, path="/v1/skills/execute", method="POST")).status_code == 403


async def test_of_a_refresh_token_is_told_what_it_would_get(rig: Rig) -> None:
    token = (await rig.tokens())["refresh_token"]
    await rig.gateway.oauth_clients.update(None, rig.client.id, scopes=["account:read"])
    assert (await rig.introspected(token)).json()["scope"] == "account:read"
    assert (await rig.refreshed(token)).json()["scope"] == "account:read"
