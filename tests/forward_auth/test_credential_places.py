"""The credential of a check request, wherever the client's request has it."""

import json

import pytest

from machpay_gateway.core.keys.key import mint_secret
from tests.forward_auth.check_client import every_peer, forward_auth_gateway

PLACES = {"headers": ["Authorization", "X-API-Key"], "query": "api_key"}
OTHER = mint_secret("live", bytes(32))


@every_peer
async def test_a_credential_is_accepted_in_each_place(peer: str) -> None:
    async with forward_auth_gateway(credentials=PLACES) as gateway:
        key_id, secret = await gateway.key()
        for request, headers in (
            ("GET /v1/skills", {"X-API-Key": secret}),
            (f"GET /v1/skills?api_key={secret}", {}),
            (f"GET /v1/skills?a=1&api_key={secret}", {"X-API-Key": secret}),
            ("GET /v1/skills", {"Sec-WebSocket-Protocol": f"chat, machpay.bearer.{secret}"}),
        ):
            answer = await gateway.ask(peer, request, headers=headers)
            assert (answer.status_code, answer.headers["x-machpay-key-id"]) == (200, key_id)
            assert secret not in json.dumps(dict(answer.headers))


@every_peer
@pytest.mark.parametrize(
    "request_, headers, code",
    [
        (f"GET /v1/skills?api_key={OTHER}", {"X-API-Key": "{}"}, "conflicting_credentials"),
        ("GET /v1/skills?api_key={}&api_key={}", {}, "malformed_request"),
        ("GET /v1/skills?API_KEY={}", {}, "missing_credentials"),
    ],
)
async def test_more_than_one_credential_is_refused(
    peer: str, request_: str, headers: dict[str, str], code: str
) -> None:
    async with forward_auth_gateway(credentials=PLACES) as gateway:
        _, secret = await gateway.key()
        given = {name: value.replace("{}", secret) for name, value in headers.items()}
        answer = await gateway.ask(peer, request_.replace("{}", secret), headers=given)
        assert answer.json()["code"] == code
