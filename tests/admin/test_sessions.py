"""Sessions: creation, claims, permissions and expiry."""

import time
from base64 import urlsafe_b64decode
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from httpx2 import ASGITransport, AsyncClient, Response
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from machpay_gateway import Principal
from machpay_gateway.core.jose.session import MAX_SECONDS, secret_fingerprint
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.keysets.signing import SigningKeys
from machpay_gateway.services.keys import Keys
from tests.admin.conftest import Api, Caller, in_memory, places, serving_api, status_and_code
from tests.keyrings import logged


def part(token: str, number: int) -> dict[str, Any]:
    text = token.split(".")[number]
    document: dict[str, Any] = orjson.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return document


async def traded(caller: Caller, **body: Any) -> str:  # noqa: ANN401 - as JSON has them
    response = await caller.ask("POST", "/v1/sessions", body)
    assert response.status_code == 201, response.text
    return str(response.json()["token"])


async def whoami(api: Api, token: str) -> Response:
    return await api.client(token).get("/v1/whoami")


async def test_a_session_acts_for_its_key_and_counts_against_its_quota(admin: Caller) -> None:
    token = await traded(admin)
    body = [(await whoami(admin.api, secret)).json() for secret in (admin.secret, token, admin.secret)]
    key, session, again = body
    assert (session["kind"], session["id"], session["account_id"]) == ("session", key["id"], key["account_id"])
    assert session["scopes"] == key["scopes"]
    left = [response["remaining"]["requests"] for response in body]
    assert left == [left[0], left[0] - 1, left[0] - 2]
    assert again["kind"] == "api_key"


async def caller_seen(request: Request) -> JSONResponse:
    caller = request.user
    assert isinstance(caller, Principal)
    seen = {"owner": caller.owner, "tier": caller.tier, "account_tier": caller.account_tier}
    return JSONResponse({"kind": caller.kind, **seen, "limit": caller.limits.limit})


async def test_the_application_sees_the_owner_of_a_key_and_of_its_sessions_from_the_next_request() -> None:
    application = Starlette(routes=[Route("/seen", caller_seen)])
    async with serving_api(application, unlisted_routes="authenticated") as api:
        admin = await api.caller()
        callers = {"api_key": admin.secret, "session": await traded(admin)}
        for owner in (None, "customer 17", "customer 18", None):
            changed = await admin.ask("PATCH", f"/v1/keys/{admin.id}", {"owner": owner})
            assert (changed.status_code, changed.json()["owner"]) == (200, owner)
            for kind, secret in callers.items():
                seen = (await api.client(secret).get("/seen")).json()
                assert (seen["kind"], seen["owner"]) == (kind, owner)


@pytest.mark.parametrize("environment, accounts", [("live", "standard"), ("test", "test")])
async def test_a_tier_of_its_own_holds_for_a_key_and_its_sessions_from_the_next_request(
    environment: str, accounts: str
) -> None:
    application = Starlette(routes=[Route("/seen", caller_seen)])
    async with serving_api(application, unlisted_routes="authenticated") as api:
        caller = await api.caller(environment=environment)
        callers = {"api_key": caller.secret, "session": await traded(caller)}
        for own in (None, "enterprise", "standard", None):
            await api.gateway.keys.update(None, caller.id, own_tier=own)
            tier = own or accounts
            for kind, secret in callers.items():
                seen = (await api.client(secret).get("/seen")).json()
                assert (seen["kind"], seen["tier"], seen["limit"]) == (kind, tier, TIERS[tier].limit)
                assert seen["account_tier"] == accounts
            document = (await caller.ask("GET", f"/v1/keys/{caller.id}")).json()
            assert (document["tier"], document["own_tier"], document["tier_configured"]) == (tier, own, True)


async def test_a_document_tells_a_tier_that_is_not_configured() -> None:
    async with serving_api() as api:
        admin = await api.caller()
        record = await api.gateway.store.key(None, admin.id)
        assert record is not None
        unknown = replace(record.with_own_tier("gone"), version=record.version + 1)
        assert await api.gateway.store.replace_key(unknown, logged())
        (document,) = (await admin.ask("GET", "/v1/keys")).json()["data"]
        assert (document["tier"], document["own_tier"], document["tier_configured"]) == ("gone", "gone", False)


@in_memory
async def test_a_session_has_exactly_the_requested_scopes(admin: Caller) -> None:
    token = await traded(admin, scopes=["skills:list"], ttl_seconds=60)
    told_of = (await whoami(admin.api, token)).json()
    assert told_of["scopes"] == ["skills:list"]
    assert status_and_code(await admin.api.client(token).get("/v1/keys")) == (403, "insufficient_scope")


@in_memory
@pytest.mark.parametrize(
    "body, place",
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
async def test_a_session_cannot_exceed_its_key(admin: Caller, body: dict[str, Any], place: str) -> None:
    response = await admin.ask("POST", "/v1/sessions", body)
    assert status_and_code(response) == (422, "invalid_fields")
    assert places(response) == [place]


@in_memory
async def test_a_session_token_has_its_own_type_audience_and_expiry(admin: Caller) -> None:
    token = await traded(admin, ttl_seconds=60)
    header, claims = part(token, 0), part(token, 1)
    assert header["typ"] == "machpay-session+jwt"
    assert claims["exp"] - claims["iat"] == 60
    assert (claims["iss"], claims["aud"]) == ("urn:machpay:gateway", "urn:machpay:sessions")


@in_memory
async def test_a_session_cannot_be_traded_for_another(admin: Caller) -> None:
    token = await traded(admin)
    response = await admin.api.client(token).post("/v1/sessions", json={})
    assert status_and_code(response) == (403, "not_permitted")


@pytest.mark.parametrize("scopes", [["keys:manage"], ["keys:manage", "account:read", "skills:execute"], None], ids=str)
async def test_a_session_cannot_rotate_its_key(api: Api, scopes: list[str] | None) -> None:
    key = await api.caller(scopes=("keys:manage", "account:read", "skills:execute"))
    body = {"ttl_seconds": 60} | ({} if scopes is None else {"scopes": scopes})
    session = api.client(await traded(key, **body))
    before = await api.head()
    response = await session.post(f"/v1/keys/{key.id}/rotate")
    assert status_and_code(response) == (403, "not_permitted")
    assert "secret" not in response.json()
    assert await api.head() == before


async def revoke(keyring: Keys, key_id: str) -> None:
    await keyring.revoke(None, key_id)


async def rotate_at_once(keyring: Keys, key_id: str) -> None:
    await keyring.rotate(None, key_id, grace_seconds=0)


async def rotate_and_end_grace(keyring: Keys, key_id: str) -> None:
    await keyring.rotate(None, key_id)
    await keyring.end_grace(None, key_id)


@pytest.mark.parametrize("end", [revoke, rotate_at_once, rotate_and_end_grace])
async def test_a_session_ends_with_the_secret_it_was_created_with(admin: Caller, end: Any) -> None:  # noqa: ANN401 - one of the above
    token = await traded(admin)
    assert (await whoami(admin.api, token)).status_code == 200
    await end(admin.api.gateway.keys, admin.id)
    assert status_and_code(await whoami(admin.api, token)) == (401, "invalid_credentials")


async def test_a_session_survives_the_grace_period(admin: Caller) -> None:
    token = await traded(admin)
    await admin.api.gateway.keys.rotate(None, admin.id, grace_seconds=3600)
    assert (await whoami(admin.api, token)).status_code == 200


@pytest.mark.parametrize("names, held", [(["skills:list"], ["skills:list"]), (["account:read"], [])], ids=str)
async def test_sessions_lose_the_scopes_that_their_key_loses(
    admin: Caller, names: Sequence[str], held: list[str]
) -> None:
    token = await traded(admin, scopes=["skills:list"])
    await admin.api.gateway.keys.update(None, admin.id, scopes=names)
    assert (await whoami(admin.api, token)).json()["scopes"] == held


async def test_the_allowlist_of_a_key_applies_to_its_sessions(admin: Caller) -> None:
    await admin.api.gateway.keys.update(None, admin.id, allowed_ips=["192.0.2.0/24"])
    token = await traded(admin)
    assert (await whoami(admin.api, token)).status_code == 200
    transport = ASGITransport(app=admin.api.guarded.app, client=("198.51.100.1", 50000))
    async with AsyncClient(transport=transport, base_url="http://api.test") as elsewhere:
        response = await elsewhere.get("/v1/whoami", headers={"Authorization": f"Bearer {token}"})
    assert status_and_code(response) == (403, "address_not_allowed")


async def test_a_session_never_outlives_its_key(admin: Caller) -> None:
    token = await traded(admin)
    assert (await whoami(admin.api, token)).status_code == 200
    await admin.api.expire(admin.id)
    assert status_and_code(await whoami(admin.api, token)) == (401, "invalid_credentials")


@in_memory
@pytest.mark.parametrize("changed", [0, 1, 2], ids=["header", "claims", "signature"])
async def test_a_tampered_session_token_is_refused(admin: Caller, changed: int) -> None:
    parts = (await traded(admin)).split(".")
    first = parts[changed][10]
    parts[changed] = parts[changed][:10] + ("A" if first != "A" else "B") + parts[changed][11:]
    response = await whoami(admin.api, ".".join(parts))
    assert status_and_code(response) == (401, "invalid_credentials")


@in_memory
async def test_the_claims_of_a_session_reveal_nothing_about_the_secret(admin: Caller) -> None:
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
    response = await admin.api.client(None).get("/.well-known/jwks.json")
    assert published in response.json()["keys"]
    assert not {"d", "p", "q", "dp", "dq", "qi"} & published.keys()
    assert b"PRIVATE KEY" not in stored.sealed


@pytest.mark.own_gateway
async def test_a_caller_is_not_told_how_the_signing_keys_are_repaired(caplog: pytest.LogCaptureFixture) -> None:
    async with serving_api(database="memory://") as api:
        admin = await api.caller()
        assert (await admin.ask("GET", "/v1/whoami")).status_code == 200, "it has started"
        other = SigningKeys(api.gateway.store, secret_key=lambda: b"t" * 32, life_seconds=60, clock=time.time)
        await other.rotate(at_once=True)
        await api.gateway.signing.all()
        response = await admin.ask("POST", "/v1/sessions", {})

    assert status_and_code(response) == (503, "unavailable")
    assert response.headers["retry-after"] == "1"
    assert response.json()["detail"] == "No session can be issued now."
    assert "A token could not be signed: The signing key" in caplog.text
