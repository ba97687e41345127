"""Clients that register themselves, where somebody lets them (RFC 7591)."""

from typing import Any

import pytest

from machpay_gateway.core.oauth.authority import Authority
from tests.oauth.rigs import AUDIENCE, ISSUER, REDIRECT, Rig, basic, serving_oauth

OPEN = Authority(ISSUER, audience=AUDIENCE, registration_account="acme")
ASKED = {"client_name": "A new app", "redirect_uris": [REDIRECT], "scope": "account:read"}


async def test_nobody_can_unless_an_account_is_named_for_it(rig: Rig) -> None:
    answer = await rig.http().post("/oauth/register", json=ASKED)
    assert answer.status_code in {401, 404}
    async with serving_oauth(authority=OPEN) as other:
        told = (await other.http().get("/.well-known/oauth-authorization-server")).json()
        assert told["registration_endpoint"] == f"{ISSUER}/oauth/register"


async def test_a_registered_client_can_do_what_any_other_can() -> None:
    async with serving_oauth(authority=OPEN) as rig:
        answer = await rig.http().post("/oauth/register", json=ASKED)
        assert answer.status_code == 201, answer.text
        assert answer.headers["cache-control"] == "no-store"
        made = answer.json()
        assert (made["client_name"], made["scope"], made["client_secret_expires_at"]) == (
            "A new app",
            "account:read",
            0,
        )
        assert (made["grant_types"], made["response_types"]) == (["authorization_code"], ["code"])
        client = await rig.gateway.apps.get(None, made["client_id"])
        assert client is not None
        assert client.requires_pkce
        code = await rig.code(client=client)
        sent = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT, "code_verifier": "v" * 43}
        headers = basic(made["client_id"], made["client_secret"])
        tokens = await rig.http().post("/oauth/token", data=sent, headers=headers)
        assert tokens.json()["scope"] == "account:read"


@pytest.mark.parametrize(
    "changes, error",
    [
        ({"redirect_uris": ["http://app.example.org"]}, "invalid_redirect_uri"),
        ({"redirect_uris": []}, "invalid_redirect_uri"),
        ({"redirect_uris": "https://app.example.org"}, "invalid_client_metadata"),
        ({"scope": "keys:manage"}, "invalid_client_metadata"),
        ({"scope": "unknown"}, "invalid_client_metadata"),
        ({"grant_types": ["password"]}, "invalid_client_metadata"),
        ({"grant_types": ["client_credentials"], "token_endpoint_auth_method": "none"}, "invalid_client_metadata"),
        ({"response_types": ["token"]}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "private_key_jwt"}, "invalid_client_metadata"),
        ({"client_name": "x" * 101}, "invalid_client_metadata"),
        ({"client_name": "\u202ereversed"}, "invalid_client_metadata"),
        ({"client_name": 7}, "invalid_client_metadata"),
    ],
    ids=str,
)
async def test_what_cannot_be_registered_is_told_by_the_standards_codes(changes: dict[str, Any], error: str) -> None:
    async with serving_oauth(authority=OPEN) as rig:
        answer = await rig.http().post("/oauth/register", json=ASKED | changes)
        assert (answer.status_code, answer.json()["error"]) == (400, error)
        assert len(await rig.gateway.apps.list(None)) == 1


@pytest.mark.parametrize("body", [b"", b"[]", b"x", b"{" * 20_000, b'"x"'], ids=lambda body: str(body[:10]))
async def test_what_is_no_metadata_is_told_so(body: bytes) -> None:
    async with serving_oauth(authority=OPEN) as rig:
        answer = await rig.http().post("/oauth/register", content=body)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata")
