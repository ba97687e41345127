"""Tokens that are bound to a key (RFC 9449): worth nothing without a proof of it, and a proof is good once."""

import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from httpx2 import Response
from joserfc.jwk import OctKey, OKPKey, RSAKey

from machpay_gateway.core.oauth.client import OAuthClient
from tests.oauth.harness import AUDIENCE, ISSUER, REDIRECT, VERIFIER, Rig, basic
from tests.oauth.proofs import Prover

WHO = f"{AUDIENCE}/who"
TOKEN = f"{ISSUER}/oauth/token"


async def token_request(rig: Rig, *proofs: str, client: OAuthClient | None = None, **sent: str) -> Response:
    """Send a token request of the rig's app, or of a public *client*, with a DPoP header for each of *proofs*."""
    headers = [("DPoP", proof) for proof in proofs]
    if client is None:
        headers += basic(rig.client.id, rig.secret).items()
    else:
        sent["client_id"] = client.id
    return await rig.http().post("/oauth/token", data=sent, headers=headers)


async def bound(rig: Rig, prover: Prover) -> dict[str, Any]:
    code = await rig.code()
    answer = await token_request(
        rig, prover.proof("POST", TOKEN),
        grant_type="authorization_code", code=code, redirect_uri=REDIRECT, code_verifier=VERIFIER,
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def call(rig: Rig, token: str, *proofs: str, scheme: str = "DPoP") -> Response:
    headers = [("Authorization", f"{scheme} {token}"), *(("DPoP", proof) for proof in proofs)]
    return await rig.http(base_url=AUDIENCE).get("/who", headers=headers)


async def test_a_bound_token_works_with_a_proof_of_its_key(rig: Rig) -> None:
    prover = Prover()
    tokens = await bound(rig, prover)
    assert tokens["token_type"] == "DPoP"
    for _ in range(2):
        answer = await call(rig, tokens["access_token"], prover.proof("GET", WHO, tokens["access_token"]))
        assert answer.status_code == 200, answer.text


async def test_a_proof_is_good_once(rig: Rig) -> None:
    prover = Prover()
    token = (await bound(rig, prover))["access_token"]
    proof = prover.proof("GET", WHO, token)
    answers = [await call(rig, token, proof) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 401, 401]
    assert answers[1].json()["code"] == "invalid_proof"
    challenge = answers[1].headers["www-authenticate"]
    assert challenge.startswith('DPoP realm="machpay", algs="ES256 ')
    assert 'error="invalid_dpop_proof"' in challenge


async def test_a_bound_token_is_nothing_as_a_bearers(rig: Rig) -> None:
    prover = Prover()
    token = (await bound(rig, prover))["access_token"]
    assert (await call(rig, token, scheme="Bearer")).json()["code"] == "invalid_credentials"
    proof = prover.proof("GET", WHO, token)
    assert (await call(rig, token, proof, scheme="Bearer")).status_code == 401
    assert (await call(rig, token, proof)).status_code == 200  # and was not used up by that
    assert (await call(rig, token, scheme="Bearer")).status_code == 401  # nor is it one after it was in use


async def test_a_bearers_token_is_nothing_with_a_proof(rig: Rig) -> None:
    token = (await rig.tokens())["access_token"]
    answer = await call(rig, token, Prover().proof("GET", WHO, token))
    assert answer.json()["code"] == "invalid_credentials"


def another_key(prover: Prover, token: str) -> list[str]:
    del prover
    return [Prover().proof("GET", WHO, token)]


def changed(**changes: object) -> Callable[[Prover, str], list[str]]:
    return lambda prover, token: [prover.proof("GET", WHO, token, **changes)]


def header(**changes: object) -> Callable[[Prover, str], list[str]]:
    def make(prover: Prover, token: str) -> list[str]:
        ath = urlsafe_b64encode(sha256(token.encode()).digest()).rstrip(b"=").decode()
        claims = {"jti": "x", "htm": "GET", "htu": WHO, "iat": int(time.time()), "ath": ath}
        return [prover.signed(claims, **changes)]

    return make


@pytest.mark.parametrize(
    "proofs",
    [
        lambda _prover, _token: [],
        lambda prover, token: [prover.proof("GET", WHO, token), prover.proof("GET", WHO, token)],
        lambda _prover, _token: ["not.a.proof"],
        another_key,
        changed(htm="POST"),
        changed(htu=f"{AUDIENCE}/other"),
        changed(htu="https://elsewhere.example.com/who"),
        changed(htu=WHO.replace("https", "http")),
        changed(htu=None),
        changed(ath=None),
        changed(ath="A" * 43),
        changed(jti=None),
        changed(jti=""),
        changed(jti=7),
        changed(jti="j" * 257),
        changed(iat=None),
        changed(iat=1_000_000_000),
        changed(iat=4_000_000_000),
        changed(iat="now"),
        header(typ="JWT"),
        header(jwk=None),
        header(jwk={"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I"}),
    ],
)  # fmt: skip
async def test_what_is_no_proof_of_this_request_is_refused(
    rig: Rig, proofs: Callable[[Prover, str], list[str]]
) -> None:
    prover = Prover()
    token = (await bound(rig, prover))["access_token"]
    answer = await call(rig, token, *proofs(prover, token))
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_proof")


@pytest.mark.parametrize("private, status", [(False, 200), (True, 401)])
async def test_a_proof_that_shows_its_private_key_is_refused(rig: Rig, *, private: bool, status: int) -> None:
    prover = Prover()
    token = (await bound(rig, prover))["access_token"]
    ath = urlsafe_b64encode(sha256(token.encode()).digest()).rstrip(b"=").decode()
    claims = {"jti": "p", "htm": "GET", "htu": WHO, "iat": int(time.time()), "ath": ath}
    jwk = prover.key.as_dict(private=private)
    assert ("d" in jwk) is private  # the only difference
    assert (await call(rig, token, prover.signed(claims, jwk=jwk))).status_code == status


@pytest.mark.parametrize("private, status", [(False, 200), (True, 400)])
async def test_a_token_request_that_shows_its_private_key_gets_nothing(rig: Rig, *, private: bool, status: int) -> None:
    prover = Prover()
    claims = {"jti": "p", "htm": "POST", "htu": TOKEN, "iat": int(time.time())}
    proof = prover.signed(claims, jwk=prover.key.as_dict(private=private))
    assert (await token_request(rig, proof, grant_type="client_credentials")).status_code == status


@pytest.mark.parametrize("url", [f"{WHO}?a=b#c", WHO.replace("api.", "API."), WHO.replace(".com", ".com:443")])
async def test_an_address_is_compared_as_addresses_are(rig: Rig, url: str) -> None:
    prover = Prover()
    token = (await bound(rig, prover))["access_token"]
    assert (await call(rig, token, prover.proof("GET", url, token))).status_code == 200


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "Ed25519"])
async def test_each_algorithm_that_is_told_is_taken(rig: Rig, algorithm: str) -> None:
    key = OKPKey.generate_key("Ed25519") if algorithm == "Ed25519" else RSAKey.generate_key(2048)
    prover = Prover(key, algorithm)
    document = (await rig.http().get("/.well-known/oauth-authorization-server")).json()
    assert prover.algorithm in document["dpop_signing_alg_values_supported"]
    token = (await bound(rig, prover))["access_token"]
    assert (await call(rig, token, prover.proof("GET", WHO, token))).status_code == 200


async def test_a_secret_is_no_key_to_prove(rig: Rig) -> None:
    prover = Prover(OctKey.generate_key(256), "HS256")
    proof = prover.signed(
        {"jti": "p", "htm": "POST", "htu": TOKEN, "iat": int(time.time())}, jwk=prover.key.as_dict(private=True)
    )
    answer = await token_request(rig, proof, grant_type="client_credentials")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")


async def test_a_token_request_with_a_bad_proof_gets_nothing(rig: Rig) -> None:
    prover = Prover()
    proof = prover.proof("POST", TOKEN)
    bad = [[prover.proof("GET", TOKEN)], [prover.proof("POST", WHO)], ["x"], [proof, prover.proof("POST", TOKEN)]]
    for proofs in bad:
        answer = await token_request(rig, *proofs, grant_type="client_credentials")
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")
    answers = [await token_request(rig, proof, grant_type="client_credentials") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 400]


async def test_a_confidential_client_may_change_its_key(rig: Rig) -> None:
    # RFC 9449 §5: its secret protects the refresh token, so only access tokens are bound.
    response = await token_request(
        rig, Prover().proof("POST", TOKEN), grant_type="authorization_code", code=await rig.code(),
        redirect_uri=REDIRECT, code_verifier=VERIFIER,
    )  # fmt: skip
    first = response.json()
    other = Prover()
    second = await token_request(
        rig, other.proof("POST", TOKEN), grant_type="refresh_token", refresh_token=first["refresh_token"]
    )
    assert (second.status_code, second.json()["token_type"]) == (200, "DPoP")
    token = second.json()["access_token"]
    assert (await call(rig, token, other.proof("GET", WHO, token))).status_code == 200


async def test_a_public_clients_refresh_token_is_bound_to_its_key(rig: Rig) -> None:
    client, _ = await rig.new_client(is_public=True)
    prover = Prover()
    sent = {"grant_type": "authorization_code", "redirect_uri": REDIRECT, "code_verifier": VERIFIER}
    code = await rig.code(client=client)
    first = (await token_request(rig, prover.proof("POST", TOKEN), client=client, code=code, **sent)).json()
    refresh = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    for proofs in ((), (Prover().proof("POST", TOKEN),)):
        answer = await token_request(rig, *proofs, client=client, **refresh)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")
    answer = await token_request(rig, prover.proof("POST", TOKEN), client=client, **refresh)
    assert (answer.status_code, answer.json()["token_type"]) == (200, "DPoP")


async def test_a_client_whose_tokens_are_bound_gets_no_others(rig: Rig) -> None:
    await rig.gateway.oauth_clients.update(None, rig.client.id, binds_tokens=True)
    refused = await token_request(rig, grant_type="client_credentials")
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_dpop_proof")
    given = await token_request(rig, Prover().proof("POST", TOKEN), grant_type="client_credentials")
    assert given.json()["token_type"] == "DPoP"


async def test_a_bound_token_says_so_when_it_is_asked_about(rig: Rig) -> None:
    prover = Prover()
    token = (await bound(rig, prover))["access_token"]
    answer = await rig.http().post("/oauth/introspect", data={"token": token}, headers=basic(rig.client.id, rig.secret))
    document = answer.json()
    assert (document["active"], document["token_type"], document["cnf"]) == (True, "DPoP", {"jkt": prover.thumbprint})


async def test_without_an_authorization_server_the_scheme_is_unknown() -> None:
    from tests.gateways import guarded  # noqa: PLC0415 - this test's alone
    from tests.oauth.harness import telling  # noqa: PLC0415 - as above

    async with guarded(telling) as api, api.client() as client:
        answer = await client.get("/v1/skills", headers={"Authorization": "DPoP a.b.c"})
    assert answer.json()["code"] == "missing_credentials"
