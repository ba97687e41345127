"""Refresh tokens: used once, and used twice the end of all that came of that sign-in (RFC 9700 §4.14)."""

import pytest

from machpay_gateway.core.oauth.grant import Grant, RefreshToken, StoredRefreshToken, TokenFamily
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.core.oauth.token_request import is_retry
from machpay_gateway.core.scopes import Scopes
from tests.oauth.harness import AUDIENCE, ISSUER, Rig, serving_oauth

_DAY = 86_400


async def test_each_refresh_gives_another_refresh_token(rig: Rig) -> None:
    tokens = [(await rig.tokens())["refresh_token"]]
    for _ in range(5):
        tokens.append((await rig.refreshed(tokens[-1])).json()["refresh_token"])
    assert len(set(tokens)) == 6


@pytest.mark.own_gateway
@pytest.mark.parametrize("age", [1, 2, 3])
async def test_the_reuse_of_any_older_token_ends_the_family(rig: Rig, age: int) -> None:
    tokens = [(await rig.tokens())["refresh_token"]]
    access = ""
    for _ in range(3):
        answer = (await rig.refreshed(tokens[-1])).json()
        tokens.append(answer["refresh_token"])
        access = answer["access_token"]
    rig.later(11)
    assert (await rig.refreshed(tokens[-1 - age])).json()["error"] == "invalid_grant"
    assert (await rig.refreshed(tokens[-1])).json()["error"] == "invalid_grant"
    assert (await rig.who(access)).status_code == 401


@pytest.mark.own_gateway
async def test_the_reuse_of_a_token_that_would_have_expired_ends_the_family_too(rig: Rig) -> None:
    first = (await rig.tokens())["refresh_token"]
    second = (await rig.refreshed(first)).json()["refresh_token"]
    rig.later(29 * _DAY)
    third = (await rig.refreshed(second)).json()["refresh_token"]
    rig.later(2 * _DAY)
    for token in (first, third):
        assert (await rig.refreshed(token)).json()["error"] == "invalid_grant"


@pytest.mark.own_gateway
async def test_a_lost_answer_is_given_again_for_ten_seconds_with_the_same_successor(rig: Rig) -> None:
    first = (await rig.tokens())["refresh_token"]
    second = (await rig.refreshed(first)).json()["refresh_token"]
    rig.later(9)
    again = (await rig.refreshed(first)).json()
    assert again["refresh_token"] == second
    assert (await rig.who(again["access_token"])).status_code == 200
    rig.later(2)
    assert (await rig.refreshed(first)).json()["error"] == "invalid_grant"


async def test_the_grace_is_over_once_the_successor_was_used(rig: Rig) -> None:
    first = (await rig.tokens())["refresh_token"]
    second = (await rig.refreshed(first)).json()["refresh_token"]
    third = (await rig.refreshed(second)).json()["refresh_token"]
    assert (await rig.refreshed(first)).json()["error"] == "invalid_grant"
    assert (await rig.refreshed(third)).json()["error"] == "invalid_grant"


async def test_no_grace_may_be_had() -> None:
    async with serving_oauth(authority=OAuthSettings(ISSUER, audience=AUDIENCE, refresh_grace_seconds=0)) as rig:
        first = (await rig.tokens())["refresh_token"]
        second = (await rig.refreshed(first)).json()["refresh_token"]
        assert (await rig.refreshed(first)).json()["error"] == "invalid_grant"
        assert (await rig.refreshed(second)).json()["error"] == "invalid_grant"


async def test_a_refresh_token_is_its_clients_alone_and_is_not_used_up_by_others(rig: Rig) -> None:
    other, secret = await rig.new_client()
    token = (await rig.tokens())["refresh_token"]
    answer = await rig.token(other, secret, grant_type="refresh_token", refresh_token=token)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert (await rig.refreshed(token)).status_code == 200


async def test_a_scope_can_be_narrowed_never_widened_and_the_refresh_token_keeps_its_own(rig: Rig) -> None:
    tokens = await rig.tokens(scope="account:read")
    wider = await rig.refreshed(tokens["refresh_token"], scope="account:read skills:execute")
    assert (wider.status_code, wider.json()["error"]) == (400, "invalid_scope")
    both = await rig.tokens()
    narrow = (await rig.refreshed(both["refresh_token"], scope="account:read")).json()
    assert narrow["scope"] == "account:read"
    assert (await rig.who(narrow["access_token"])).json()["scopes"] == ["account:read"]
    whole = (await rig.refreshed(narrow["refresh_token"])).json()  # RFC 6749 §6: identical to the one before
    assert whole["scope"] == "account:read skills:execute"


@pytest.mark.own_gateway
async def test_a_refresh_token_ends_thirty_days_after_its_last_use(rig: Rig) -> None:
    token = (await rig.tokens())["refresh_token"]
    rig.later(29 * _DAY)
    token = (await rig.refreshed(token)).json()["refresh_token"]
    rig.later(29 * _DAY)
    token = (await rig.refreshed(token)).json()["refresh_token"]
    rig.later(31 * _DAY)
    assert (await rig.refreshed(token)).json()["error"] == "invalid_grant"


@pytest.mark.own_gateway
async def test_a_family_ends_for_good_however_often_it_is_refreshed(rig: Rig) -> None:
    token = (await rig.tokens())["refresh_token"]
    for _ in range(8):
        rig.later(22 * _DAY)
        token = (await rig.refreshed(token)).json()["refresh_token"]
    rig.later(22 * _DAY)
    assert (await rig.refreshed(token)).json()["error"] == "invalid_grant"


async def test_a_client_without_the_grant_gets_no_refresh_token_and_cannot_refresh(rig: Rig) -> None:
    token = (await rig.tokens())["refresh_token"]
    client, secret = await rig.new_client(grant_types=["authorization_code"])
    answer = await rig.token(client, secret, grant_type="refresh_token", refresh_token=token)
    assert answer.json()["error"] == "unauthorized_client"
    code = await rig.code(client=client)
    given = await rig.token(
        client, secret, grant_type="authorization_code", code=code,
        redirect_uri=client.redirect_uris[0], code_verifier="v" * 43,
    )  # fmt: skip
    assert "refresh_token" not in given.json()


async def test_resources_can_be_narrowed_at_each_step_and_never_widened() -> None:
    other = "https://files.example.com"
    authority = OAuthSettings(ISSUER, audience=AUDIENCE, resources=[other])
    async with serving_oauth(authority=authority) as rig:
        tokens = await rig.tokens()
        assert (await rig.refreshed(tokens["refresh_token"], resource=other)).json()["error"] == "invalid_target"
        own = await rig.token(grant_type="client_credentials", resource=other)
        assert (await rig.who(own.json()["access_token"])).status_code == 401  # it is for somebody else
        unknown = await rig.token(grant_type="client_credentials", resource="https://unknown.example")
        assert unknown.json()["error"] == "invalid_target"


@pytest.mark.parametrize(
    "used_at, next_used_at, grace_seconds, expected",
    [
        (100.0, None, 10.0, True),
        (90.1, None, 10.0, True),
        (90.0, None, 10.0, False),  # the grace is over
        (100.5, None, 10.0, True),  # a concurrent request read the clock later and stored its use first
        (100.5, None, 0.0, False),  # no grace: not even for that one
        (100.0, 100.0, 10.0, False),  # its successor was used
    ],
)
def test_a_retry_is_a_second_use_within_the_grace_and_before_the_next_one(
    *, used_at: float, next_used_at: float | None, grace_seconds: float, expected: bool
) -> None:
    scopes = Scopes(frozenset({"account:read"}))
    token = RefreshToken(b"d" * 32, "family_1", 50.0, 1000.0, used_at=used_at, seed=b"s" * 32)
    family = TokenFamily("family_1", "grant_1", "app_1", scopes, (AUDIENCE,), 50.0, 1000.0)
    grant = Grant("grant_1", "app_1", "user_1", "acct_1", "live", "standard", scopes, 50.0)
    assert is_retry(StoredRefreshToken(token, family, grant, next_used_at), 100.0, grace_seconds) is expected
