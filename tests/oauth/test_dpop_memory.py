"""Which DPoP proofs are remembered: those of requests that got what they asked for, and no others (RFC 9449 §11.1)."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from machpay_gateway.core.limits.admission import AdmissionRequest, Answer, PendingAnswer
from machpay_gateway.core.limits.ports import Limiter
from machpay_gateway.core.oauth.settings import OAuthSettings
from tests.oauth.harness import AUDIENCE, ISSUER, REDIRECT, VERIFIER, Rig, serving_oauth
from tests.oauth.proofs import Prover
from tests.oauth.test_dpop import TOKEN, WHO, bound, call, token_request
from tests.redises.servers import running_server

PROVER = Prover()
OTHERS = "https://app.example.org/other"


class Counting:
    """A limiter that notes the proofs which it is asked to remember."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self.proofs: list[str] = []

    def admit(self, demand: AdmissionRequest) -> Answer | PendingAnswer:
        if demand.subject.startswith("proof:"):
            self.proofs.append(demand.subject)
        return self._limiter.admit(demand)


@pytest.fixture
def remembered(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hold each proof that was remembered."""
    counting = Counting(rig.gateway.limiter)
    assert rig.gateway.proofs is not None
    monkeypatch.setattr(rig.gateway.proofs, "_limiter", counting)  # it asks for nothing else
    return counting.proofs


def of_code(**changes: str) -> dict[str, Any]:
    return {"grant_type": "authorization_code", "redirect_uri": REDIRECT, "code_verifier": VERIFIER} | changes


OWN: dict[str, Any] = {"grant_type": "client_credentials"}


@pytest.mark.parametrize(
    "sent, error",
    [
        ({}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        (of_code(), "invalid_request"),
        (of_code(code="made up"), "invalid_grant"),
        (of_code(code="ac_mp1_" + "0" * 38), "invalid_grant"),
        (of_code(code="{code}", code_verifier="w" * 43), "invalid_grant"),
        (of_code(code="{code}", code_verifier="short"), "invalid_request"),
        (of_code(code="{code}", redirect_uri=OTHERS), "invalid_grant"),
        (of_code(code="{code}", resource="https://elsewhere.example.com"), "invalid_target"),
        ({"grant_type": "refresh_token"}, "invalid_request"),
        ({"grant_type": "refresh_token", "refresh_token": "rt_mp1_" + "0" * 38}, "invalid_grant"),
        ({"grant_type": "refresh_token", "refresh_token": "{refresh_token}", "scope": "made:up"}, "invalid_scope"),
        (OWN | {"scope": "made:up"}, "invalid_scope"),
        (OWN | {"scope": "webhooks:manage"}, "invalid_scope"),
        (OWN | {"resource": "https://elsewhere.example.com"}, "invalid_target"),
    ],
    ids=str,
)
async def test_a_refused_token_request_has_its_proof_forgotten(
    rig: Rig, remembered: list[str], sent: Mapping[str, str], error: str
) -> None:
    given = {"code": await rig.code(), "refresh_token": (await rig.tokens())["refresh_token"]}
    assert remembered == []
    filled: dict[str, Any] = {name: value.format(**given) for name, value in sent.items()}
    for _ in range(5):
        answer = await token_request(rig, PROVER.proof("POST", TOKEN), **filled)
        assert answer.json()["error"] == error
    assert remembered == []
    # Nothing was used up by that.
    used = await token_request(rig, PROVER.proof("POST", TOKEN), **of_code(code=given["code"]))
    assert (used.status_code, len(remembered)) == (200, 1)


async def test_clients_that_are_not_authenticated_have_their_proofs_forgotten(rig: Rig, remembered: list[str]) -> None:
    public, _ = await rig.new_client(is_public=True)
    http = rig.http()
    for name in (rig.client.id, "app_unknown", public.id):
        sent = {"client_id": name, "grant_type": "client_credentials"}
        answer = await http.post("/oauth/token", data=sent, headers={"DPoP": PROVER.proof("POST", TOKEN)})
        assert answer.status_code in {400, 401}
    assert remembered == []


async def test_a_refresh_token_that_is_bound_to_another_key_has_the_proof_forgotten(
    rig: Rig, remembered: list[str]
) -> None:
    public, _ = await rig.new_client(is_public=True)
    code = await rig.code(client=public)
    first = await token_request(rig, PROVER.proof("POST", TOKEN), client=public, **of_code(code=code))
    remembered.clear()
    sent = {"grant_type": "refresh_token", "refresh_token": first.json()["refresh_token"]}
    answer = await token_request(rig, Prover().proof("POST", TOKEN), client=public, **sent)
    assert (answer.json()["error"], remembered) == ("invalid_dpop_proof", [])


async def test_a_proof_that_was_used_is_refused_and_uses_up_neither_a_code_nor_a_token(
    rig: Rig, remembered: list[str]
) -> None:
    del remembered
    used = PROVER.proof("POST", TOKEN)
    first = await token_request(rig, used, **of_code(code=await rig.code()))
    assert first.status_code == 200
    code, refresh = await rig.code(), {"grant_type": "refresh_token", "refresh_token": first.json()["refresh_token"]}
    for sent in (of_code(code=code), refresh, OWN):
        answer = await token_request(rig, used, **sent)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")
    for sent in (of_code(code=code), refresh, OWN):
        answer = await token_request(rig, PROVER.proof("POST", TOKEN), **sent)
        assert answer.status_code == 200, answer.text


async def test_a_refresh_that_is_sent_once_more_by_a_stranger_ends_nothing(rig: Rig) -> None:
    first = await token_request(rig, PROVER.proof("POST", TOKEN), **of_code(code=await rig.code()))
    sent = {"grant_type": "refresh_token", "refresh_token": first.json()["refresh_token"]}
    proof = PROVER.proof("POST", TOKEN)
    second = await token_request(rig, proof, **sent)
    replayed = await token_request(rig, proof, **sent)
    assert (replayed.status_code, replayed.json()["error"]) == (400, "invalid_dpop_proof")
    sent["refresh_token"] = second.json()["refresh_token"]
    assert (await token_request(rig, PROVER.proof("POST", TOKEN), **sent)).status_code == 200


async def test_a_used_code_ends_what_came_of_it_and_leaves_no_proof(rig: Rig, remembered: list[str]) -> None:
    code = await rig.code()
    token = (await token_request(rig, PROVER.proof("POST", TOKEN), **of_code(code=code))).json()["access_token"]
    remembered.clear()
    for _ in range(3):
        answer = await token_request(rig, PROVER.proof("POST", TOKEN), **of_code(code=code))
        assert answer.json()["error"] == "invalid_grant"
    assert remembered == []
    assert (await call(rig, token, PROVER.proof("GET", WHO, token))).status_code == 401


async def test_one_proof_at_many_codes_at_once_gives_one_token(rig: Rig) -> None:
    codes = [await rig.code() for _ in range(6)]
    proof = PROVER.proof("POST", TOKEN)
    answers = await asyncio.gather(*(token_request(rig, proof, **of_code(code=code)) for code in codes))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 5
    left = [code for code, answer in zip(codes, answers, strict=True) if answer.status_code != 200]
    again = [await token_request(rig, PROVER.proof("POST", TOKEN), **of_code(code=code)) for code in left]
    assert [answer.status_code for answer in again] == [200] * 5


async def test_a_refused_request_to_the_api_has_its_proof_forgotten(rig: Rig, remembered: list[str]) -> None:
    token = (await bound(rig, PROVER))["access_token"]
    narrow = await token_request(rig, PROVER.proof("POST", TOKEN), **OWN, scope="account:read")
    remembered.clear()
    stranger = Prover()
    assert (await call(rig, token, stranger.proof("GET", WHO, token))).status_code == 401  # another key
    assert (await call(rig, token, PROVER.proof("GET", WHO, "another"))).status_code == 401
    assert (await call(rig, "a.b.c", PROVER.proof("GET", WHO, "a.b.c"))).status_code == 401
    scarce = narrow.json()["access_token"]
    skills = f"{AUDIENCE}/v1/skills/execute"
    headers = {"Authorization": f"DPoP {scarce}", "DPoP": PROVER.proof("POST", skills, scarce)}
    answer = await rig.http(base_url=AUDIENCE).post("/v1/skills/execute", headers=headers)
    assert answer.status_code == 403
    assert remembered == []
    proof = PROVER.proof("GET", WHO, token)
    codes = [(await call(rig, token, proof)).status_code for _ in range(2)]
    assert (codes, len(remembered)) == ([200, 401], 2)


async def test_refused_token_requests_leave_no_key_in_redis() -> None:
    with running_server() as redis:
        oauth = OAuthSettings(ISSUER, audience=AUDIENCE)
        async with serving_oauth(authority=oauth, redis=redis.url, failure_limit="900/minute") as rig:
            public, _ = await rig.new_client(is_public=True)
            before: Any = redis.command("DBSIZE")
            for _ in range(40):
                proof = PROVER.proof("POST", TOKEN)
                answer = await token_request(rig, proof, client=public, **of_code(code="ac_mp1_" + "0" * 38))
                assert answer.json()["error"] == "invalid_grant"
            assert redis.command("DBSIZE") == before
            code = await rig.code(client=public)
            before = redis.command("DBSIZE")  # signing in counts attempts
            proof = PROVER.proof("POST", TOKEN)
            answer = await token_request(rig, proof, client=public, **of_code(code=code))
            assert (answer.status_code, redis.command("DBSIZE") - before) == (200, 1)
