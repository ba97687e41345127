"""JWTs of a configured issuer, through the middleware."""

import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from machpay_gateway import ConfigurationError, Issuer, MachPayAuth
from machpay_gateway.core.limits.rate import SharedLimits, Tier
from tests.applications import ok
from tests.gateways import Guarded, guarded

KEY, STRANGER = (RSAKey.generate_key(2048, {"kid": "k1"}) for _ in range(2))
ISSUER, AUDIENCE = "https://id.example.com", "https://api.machpay.xyz"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Guarded]:
    jwks = tmp_path / "jwks.json"
    jwks.write_text(json.dumps({"keys": [KEY.as_dict(private=False)]}))
    async with guarded(ok, issuers=[Issuer(ISSUER, audience=AUDIENCE, jwks=str(jwks), tier="enterprise")]) as it:
        yield it


def token(key: RSAKey = KEY, **changes: object) -> str:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "user-1", "exp": int(time.time()) + 300, "scope": "skills:list"}
    return jwt.encode({"alg": "RS256", "kid": "k1", "typ": "at+jwt"}, claims | changes, key)


async def test_a_token_of_the_issuer_gets_in_with_the_issuers_tier(api: Guarded) -> None:
    client = api.client(token())
    assert (await client.get("/v1/skills")).status_code == 200  # verified
    answer = await client.get("/v1/skills")  # and known from then on
    assert answer.status_code == 200
    assert "q=10000;" in answer.headers["ratelimit-policy"]


async def test_a_token_is_limited_to_its_scopes(api: Guarded) -> None:
    answer = await api.client(token()).post("/v1/skills/execute")
    assert (answer.status_code, answer.json()["required_scopes"]) == (403, ["skills:execute"])


@pytest.mark.parametrize(
    "made",
    [
        lambda: token(STRANGER),
        lambda: token(exp=int(time.time()) - 61),
        lambda: token(aud="https://elsewhere.example"),
        lambda: token(iss="https://elsewhere.example"),
        lambda: token()[:-4] + "AAAA",
    ],
    ids=["another key", "expired", "another audience", "another issuer", "changed signature"],
)
async def test_any_other_token_is_refused_like_a_wrong_key(api: Guarded, made: Callable[[], str]) -> None:
    answer = await api.client(made()).get("/v1/skills")
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_credentials")


async def test_callers_of_one_issuer_have_a_quota_each(api: Guarded) -> None:
    one, other = token(sub="user-1"), token(sub="user-2")
    await api.client(one).get("/v1/skills")
    for presented, left in ((one, 9998), (token(sub="user-1", jti="2"), 9997), (other, 9999)):
        answer = await api.client(presented).get("/v1/skills")
        assert answer.headers["ratelimit"].startswith(f'"minute";r={left};')


async def test_callers_of_one_account_share_its_limit(tmp_path: Path) -> None:
    jwks = tmp_path / "jwks.json"
    jwks.write_text(json.dumps({"keys": [KEY.as_dict(private=False)]}))
    issuer = Issuer(
        ISSUER,
        audience=AUDIENCE,
        jwks=str(jwks),
        account_claim="org",
        owner_claim="team",
        tier_claim="plan",
        tier_map={"gold": "enterprise"},
    )
    shared = Tier("100/minute", 9, account=SharedLimits("4/minute"), owner=SharedLimits("2/minute"))
    async with guarded(ok, issuers=[issuer], tiers={"standard": shared}) as it:
        statuses = [
            (await it.client(token(sub=sub, org=org, team=team, plan=plan)).get("/v1/skills")).status_code
            for sub, org, team, plan in [
                ("user-1", "acme", "core", ""),
                ("user-2", "acme", "core", ""),
                ("user-3", "acme", "core", ""),  # over the limit of the owner
                ("user-3", "acme", "web", ""),
                ("user-4", "acme", "web", ""),
                ("user-5", "acme", "data", ""),  # over the limit of the account
                ("user-1", "other", "core", ""),
                ("user-6", "acme", "data", "gold"),  # whose tier has no such limit
            ]
        ]
        assert statuses == [200, 200, 429, 200, 200, 429, 200, 200]


def test_a_missing_key_set_stops_the_startup(tmp_path: Path) -> None:
    issuer = Issuer(ISSUER, audience=AUDIENCE, jwks=str(tmp_path / "nothing.json"))
    with pytest.raises(ConfigurationError, match=r"nothing\.json"):
        MachPayAuth(ok, database="memory://", issuers=[issuer])
