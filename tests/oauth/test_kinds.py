"""Tokens of one kind never pass for another, nor those of other audiences, issuers and keys (RFC 8725, RFC 9068 §4)."""

import time
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from machpay_gateway.core.jose.compact import parse_compact
from tests.oauth.harness import AUDIENCE, ISSUER, Rig, serving_oauth


def claims_of(token: str) -> dict[str, Any]:
    compact = parse_compact(token.encode())
    assert not isinstance(compact, str)
    return dict(compact.claims)


async def test_an_access_token_says_what_the_standard_asks_for(rig: Rig) -> None:
    token = (await rig.tokens())["access_token"]
    compact = parse_compact(token.encode())
    assert not isinstance(compact, str)
    assert (compact.type, compact.algorithm) == ("at+jwt", "RS256")
    claims = compact.claims
    assert (claims["iss"], claims["aud"], claims["client_id"]) == (ISSUER, AUDIENCE, rig.client.id)
    assert (claims["sub"], claims["scope"]) == (rig.user.id, "account:read skills:execute")
    assert int(str(claims["exp"])) - int(str(claims["iat"])) == 3600
    assert claims["jti"]


async def test_codes_refresh_tokens_and_secrets_are_no_access_tokens(rig: Rig) -> None:
    refresh = (await rig.tokens())["refresh_token"]
    for other in (await rig.code(), refresh, rig.secret):
        assert (await rig.who(other)).json()["code"] == "invalid_credentials"


async def test_an_access_token_is_neither_a_refresh_token_nor_a_code_nor_a_session(rig: Rig) -> None:
    token = (await rig.tokens())["access_token"]
    assert (await rig.refreshed(token)).json()["error"] == "invalid_grant"
    assert (await rig.exchanged(token)).json()["error"] == "invalid_grant"
    answer = await rig.who(token, path="/v1/sessions", method="POST")
    assert (answer.status_code, answer.json()["code"]) == (403, "not_permitted")


@pytest.mark.own_gateway
async def test_an_access_token_ends_after_an_hour(rig: Rig) -> None:
    token = (await rig.tokens())["access_token"]
    assert (await rig.who(token)).status_code == 200
    rig.later(3600 + 61)  # and the minute that clocks may differ by
    assert (await rig.who(token)).status_code == 401


async def signed(rig: Rig, typ: str, **changes: object) -> str:
    """Return a token with our own signature that says what a good one does, but for *changes*."""
    good = claims_of((await rig.tokens())["access_token"])
    claims = {name: value for name, value in (good | changes).items() if value is not None}
    return await rig.gateway.signing.sign(claims, typ)


@pytest.mark.parametrize(
    "typ, changes",
    [
        ("at+jwt", {"aud": "https://elsewhere.example"}),
        ("at+jwt", {"aud": ["https://elsewhere.example"]}),
        ("at+jwt", {"aud": None}),
        ("at+jwt", {"iss": "https://elsewhere.example"}),
        ("at+jwt", {"iss": f"{ISSUER}/"}),
        ("at+jwt", {"exp": None}),
        ("at+jwt", {"exp": 1_000_000_000}),
        ("at+jwt", {"nbf": 4_000_000_000}),
        ("at+jwt", {"gid": None}),
        ("at+jwt", {"ver": "1"}),
        ("at+jwt", {"scope": None}),
        ("at+jwt", {"cnf": {"x5t#S256": "x"}}),
        ("JWT", {}),
        ("machpay-session+jwt", {}),
        ("dpop+jwt", {}),
        ("machpay-assertion+jwt", {}),
    ],
    ids=str,
)
async def test_even_our_own_signature_is_good_for_what_it_was_made_for_only(
    rig: Rig, typ: str, changes: dict[str, object]
) -> None:
    assert (await rig.who(await signed(rig, "at+jwt"))).status_code == 200
    assert (await rig.who(await signed(rig, typ, **changes))).json()["code"] == "invalid_credentials"


async def test_a_session_is_no_access_token_and_no_access_token_a_session(rig: Rig) -> None:
    _, secret = await rig.gateway.keys.create(
        rig.user.account_id, name="k", scopes=["account:read"], environment="live"
    )
    answer = await rig.http().post("/v1/sessions", json={}, headers={"Authorization": f"Bearer {secret}"})
    session = answer.json()["token"]
    assert (await rig.who(session)).json()["kind"] == "session"
    for typ in ("at+jwt", "JWT"):
        assert (await rig.who(await rig.gateway.signing.sign(claims_of(session), typ))).status_code == 401
    assert (await rig.introspected(session)).json() == {"active": False}
    access = claims_of((await rig.tokens())["access_token"])
    as_session = await rig.gateway.signing.sign(access, "machpay-session+jwt")
    assert (await rig.who(as_session)).status_code == 401


async def test_a_key_that_is_not_ours_signs_nothing(rig: Rig) -> None:
    good = claims_of((await rig.tokens())["access_token"])
    (ours,) = await rig.gateway.store.signing_keys()
    forger = RSAKey.generate_key(2048)
    secret = OctKey.import_key(ours.public)
    for header, key in (
        ({"alg": "RS256", "kid": ours.kid}, forger),
        ({"alg": "RS256", "kid": "unknown"}, forger),
        ({"alg": "RS256"}, forger),
        ({"alg": "RS256", "kid": ours.kid, "jwk": forger.as_dict(private=False)}, forger),
        ({"alg": "PS256", "kid": ours.kid}, forger),
        ({"alg": "HS256", "kid": ours.kid}, secret),
    ):
        token = jwt.encode({"typ": "at+jwt", **header}, good, key, algorithms=[str(header["alg"])])
        assert (await rig.who(token)).json()["code"] == "invalid_credentials"
    unsigned = ".".join((await rig.tokens())["access_token"].split(".")[:2]) + "."
    assert (await rig.who(unsigned)).status_code == 401


async def test_tokens_of_another_authorization_server_with_the_same_issuer_are_not_ours(rig: Rig) -> None:
    async with serving_oauth(database="sqlite://") as other:  # which signs by a key of its own
        token = (await other.tokens())["access_token"]
    assert (await rig.who(token)).status_code == 401
    assert time.time() > 0


async def test_a_client_acts_for_itself_within_its_own_account(rig: Rig) -> None:
    token = (await rig.token(grant_type="client_credentials")).json()["access_token"]
    principal = (await rig.who(token)).json()
    assert (principal["id"], principal["client_id"], principal["account_id"]) == (
        rig.client.id,
        rig.client.id,
        rig.user.account_id,
    )


async def test_all_tokens_of_one_user_and_app_share_a_quota(rig: Rig) -> None:
    first, second = [(await rig.tokens())["access_token"] for _ in range(2)]
    assert (await rig.who(first)).json()["subject"] == (await rig.who(second)).json()["subject"]
    left = [(await rig.who(token)).headers["ratelimit"].split(";")[1] for token in (first, second, first)]
    numbers = [int(text.removeprefix("r=")) for text in left]
    assert numbers == [numbers[0], numbers[0] - 1, numbers[0] - 2]


async def test_a_test_clients_tokens_are_for_the_sandbox_and_have_its_tier(rig: Rig) -> None:
    client, secret = await rig.new_client(environment="test", grant_types=["client_credentials"], redirect_uris=[])
    token = (await rig.token(client, secret, grant_type="client_credentials")).json()["access_token"]
    principal = (await rig.who(token)).json()
    assert (principal["environment"], principal["tier"]) == ("test", "test")
