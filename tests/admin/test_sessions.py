"""Sessions: what a key is traded for, and what ends it."""

from base64 import urlsafe_b64decode
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from httpx2 import ASGITransport, AsyncClient, Response

from machpay_gateway.core.jose.session import MAX_SECONDS, secret_fingerprint
from machpay_gateway.services.keys import Keys
from tests.admin.conftest import Api, Caller, in_memory, places, told


def part(token: str, number: int) -> dict[str, Any]:
    text = token.split(".")[number]
    document: dict[str, Any] = orjson.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return document


async def traded(caller: Caller, **asked: Any) -> str:  # noqa: ANN401 - as JSON has them
    answer = await caller.ask("POST", "/v1/sessions", asked)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])


async def whoami(api: Api, token: str) -> Response:
    return await api.client(token).get("/v1/whoami")


async def test_a_session_acts_for_its_key_and_counts_against_its_quota(admin: Caller) -> None:
    token = await traded(admin)
    asked = [(await whoami(admin.api, secret)).json() for secret in (admin.secret, token, admin.secret)]
    key, session, again = asked
    assert (session["kind"], session["id"], session["account_id"]) == ("session", key["id"], key["account_id"])
    assert session["scopes"] == key["scopes"]
    left = [answer["remaining"]["requests"] for answer in asked]
    assert left == [left[0], left[0] - 1, left[0] - 2]
    assert again["kind"] == "api_key"


@in_memory
async def test_a_session_has_the_scopes_that_were_asked_for_and_no_others(admin: Caller) -> None:
    token = await traded(admin, scopes=["skills:list"], ttl_seconds=60)
    told_of = (await whoami(admin.api, token)).json()
    assert told_of["scopes"] == ["skills:list"]
    assert told(await admin.api.client(token).get("/v1/keys")) == (403, "insufficient_scope")


@in_memory
@pytest.mark.parametrize(
    "asked, place",
    [
        ({"scopes": ["webhooks:manage"]}, "scopes.0"),  # not held by the key
        ({"scopes": ["skills:list", "skills:list"]}, "scopes"),
        ({"ttl_seconds": 0}, "ttl_seconds"),
        ({"ttl_seconds": MAX_SECONDS + 1}, "ttl_seconds"),
        ({"ttl_seconds": "60"}, "ttl_seconds"),
        ({"tier": "enterprise"}, "tier"),
    ],
    ids=str,
)
async def test_more_than_the_key_has_is_not_to_be_had(admin: Caller, asked: dict[str, Any], place: str) -> None:
    answer = await admin.ask("POST", "/v1/sessions", asked)
    assert told(answer) == (422, "invalid_fields")
    assert places(answer) == [place]


@in_memory
async def test_a_session_has_a_type_an_audience_and_an_end_of_its_own(admin: Caller) -> None:
    token = await traded(admin, ttl_seconds=60)
    header, claims = part(token, 0), part(token, 1)
    assert header["typ"] == "machpay-session+jwt"
    assert claims["exp"] - claims["iat"] == 60
    assert (claims["iss"], claims["aud"]) == ("urn:machpay:gateway", "urn:machpay:sessions")


@in_memory
async def test_a_session_cannot_be_traded_for_another(admin: Caller) -> None:
    token = await traded(admin)
    answer = await admin.api.client(token).post("/v1/sessions", json={})
    assert told(answer) == (403, "not_permitted")


@pytest.mark.parametrize("scopes", [["keys:manage"], ["keys:manage", "account:read", "skills:execute"], None], ids=str)
async def test_a_session_gets_no_secret_of_the_key_that_it_was_made_by(api: Api, scopes: list[str] | None) -> None:
    key = await api.caller(scopes=("keys:manage", "account:read", "skills:execute"))
    asked = {"ttl_seconds": 60} | ({} if scopes is None else {"scopes": scopes})
    session = api.client(await traded(key, **asked))
    before = await api.head()
    answer = await session.post(f"/v1/keys/{key.id}/rotate")
    assert told(answer) == (403, "not_permitted")
    assert "secret" not in answer.json()
    assert await api.head() == before


async def revoke(keyring: Keys, key_id: str) -> None:
    await keyring.revoke(None, key_id)


async def rotate_at_once(keyring: Keys, key_id: str) -> None:
    await keyring.rotate(None, key_id, grace_seconds=0)


async def rotate_and_end_grace(keyring: Keys, key_id: str) -> None:
    await keyring.rotate(None, key_id)
    await keyring.end_grace(None, key_id)


@pytest.mark.parametrize("end", [revoke, rotate_at_once, rotate_and_end_grace])
async def test_a_session_ends_with_the_secret_that_it_was_made_by(admin: Caller, end: Any) -> None:  # noqa: ANN401 - one of the above
    token = await traded(admin)
    assert (await whoami(admin.api, token)).status_code == 200
    await end(admin.api.gateway.keys, admin.id)
    assert told(await whoami(admin.api, token)) == (401, "invalid_credentials")


async def test_a_session_goes_on_through_a_grace(admin: Caller) -> None:
    token = await traded(admin)
    await admin.api.gateway.keys.rotate(None, admin.id, grace_seconds=3600)
    assert (await whoami(admin.api, token)).status_code == 200


@pytest.mark.parametrize("names, held", [(["skills:list"], ["skills:list"]), (["account:read"], [])], ids=str)
async def test_a_scope_that_the_key_loses_is_lost_to_its_sessions(
    admin: Caller, names: Sequence[str], held: list[str]
) -> None:
    token = await traded(admin, scopes=["skills:list"])
    await admin.api.gateway.keys.update(None, admin.id, scopes=names)
    assert (await whoami(admin.api, token)).json()["scopes"] == held


async def test_the_keys_addresses_hold_for_its_sessions(admin: Caller) -> None:
    await admin.api.gateway.keys.update(None, admin.id, allowed_ips=["192.0.2.0/24"])
    token = await traded(admin)
    assert (await whoami(admin.api, token)).status_code == 200
    transport = ASGITransport(app=admin.api.guarded.app, client=("198.51.100.1", 50000))
    async with AsyncClient(transport=transport, base_url="http://api.test") as elsewhere:
        answer = await elsewhere.get("/v1/whoami", headers={"Authorization": f"Bearer {token}"})
    assert told(answer) == (403, "address_not_allowed")


async def test_a_session_never_outlives_its_key(admin: Caller) -> None:
    token = await traded(admin)
    assert (await whoami(admin.api, token)).status_code == 200
    await admin.api.expire(admin.id)
    assert told(await whoami(admin.api, token)) == (401, "invalid_credentials")


@in_memory
@pytest.mark.parametrize("changed", [0, 1, 2], ids=["header", "claims", "signature"])
async def test_a_session_that_somebody_touched_is_none(admin: Caller, changed: int) -> None:
    parts = (await traded(admin)).split(".")
    first = parts[changed][10]
    parts[changed] = parts[changed][:10] + ("A" if first != "A" else "B") + parts[changed][11:]
    answer = await whoami(admin.api, ".".join(parts))
    assert told(answer) == (401, "invalid_credentials")


@in_memory
async def test_what_a_session_says_of_the_secret_leads_nowhere(admin: Caller) -> None:
    record = await admin.api.gateway.store.key(None, admin.id)
    assert record is not None
    claims = part(await traded(admin), 1)
    assert claims["sec"] == secret_fingerprint(record.secrets[0].digest)
    assert record.secrets[0].digest.hex() not in orjson.dumps(claims).decode()


async def test_the_key_that_signs_sessions_is_published_and_its_private_part_is_not(admin: Caller) -> None:
    token = await traded(admin)
    (stored,) = await admin.api.gateway.store.signing_keys()
    published = orjson.loads(stored.public)
    assert part(token, 0) == {"alg": "RS256", "kid": published["kid"], "typ": "machpay-session+jwt"}
    answer = await admin.api.client(None).get("/.well-known/jwks.json")
    assert published in answer.json()["keys"]
    assert not {"d", "p", "q", "dp", "dq", "qi"} & published.keys()
    assert b"PRIVATE KEY" not in stored.sealed
