"""PKCE: S256 for everybody, but for a confidential client that was registered without (RFC 7636, RFC 9700 §2.1.1)."""

import pytest

from machpay_gateway.core.errors import InputError
from machpay_gateway.core.oauth.pkce import challenge_of
from tests.oauth.harness import REDIRECT, VERIFIER, Rig, answer_in, request_of

CHALLENGE = challenge_of(VERIFIER)


def test_the_challenge_is_that_of_the_rfcs_example() -> None:  # RFC 7636, appendix B
    assert challenge_of("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@pytest.mark.parametrize(
    "changes",
    [
        {"code_challenge": "", "code_challenge_method": ""},
        {"code_challenge": ""},
        {"code_challenge_method": "plain"},
        {"code_challenge_method": ""},  # RFC 7636 §4.3: left out, it means plain
        {"code_challenge_method": "s256"},
        {"code_challenge_method": "S512"},
        {"code_challenge": CHALLENGE[:-1]},
        {"code_challenge": CHALLENGE + "A"},
        {"code_challenge": CHALLENGE[:-1] + "="},
        {"code_challenge": CHALLENGE[:-1] + "/"},
    ],
    ids=str,
)
@pytest.mark.parametrize("is_public", [False, True])
async def test_a_request_without_s256_is_told_so(rig: Rig, changes: dict[str, str], *, is_public: bool) -> None:
    client, _ = await rig.new_client(is_public=is_public)
    answer = await rig.authorize(request_of(client) | changes)
    assert answer.status_code == 303
    assert answer_in(answer.headers["location"])["error"] == "invalid_request"


@pytest.mark.parametrize(
    "verifier, error",
    [
        ("", "invalid_request"),
        ("v" * 42, "invalid_request"),
        ("v" * 129, "invalid_request"),
        ("v" * 42 + " ", "invalid_request"),
        ("v" * 42 + "é", "invalid_request"),
        ("v" * 42 + "+", "invalid_request"),
        ("w" * 43, "invalid_grant"),
        (CHALLENGE, "invalid_grant"),
    ],
)
async def test_a_verifier_that_does_not_fit_gets_nothing_and_the_right_one_still_does(
    rig: Rig, verifier: str, error: str
) -> None:
    code = await rig.code()
    answer = await rig.exchanged(code, code_verifier=verifier)
    assert (answer.status_code, answer.json()["error"]) == (400, error)
    assert (await rig.exchanged(code)).status_code == 200


@pytest.mark.parametrize("length", [43, 128])
async def test_a_verifier_has_43_to_128_characters(rig: Rig, length: int) -> None:
    verifier = ("aZ09-._~" * 16)[:length]
    code = await rig.code(code_challenge=challenge_of(verifier))
    assert (await rig.exchanged(code, code_verifier=verifier)).status_code == 200


async def test_a_verifier_where_no_challenge_was_is_a_downgrade(rig: Rig) -> None:
    lax, secret = await rig.new_client(requires_pkce=False)
    code = await rig.code(client=lax, code_challenge="", code_challenge_method="")
    sent = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT}
    answer = await rig.token(lax, secret, code_verifier=VERIFIER, **sent)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert (await rig.token(lax, secret, **sent)).status_code == 200


async def test_a_client_that_need_not_prove_has_to_once_it_began(rig: Rig) -> None:
    lax, secret = await rig.new_client(requires_pkce=False)
    sent = {"grant_type": "authorization_code", "code": await rig.code(client=lax), "redirect_uri": REDIRECT}
    assert (await rig.token(lax, secret, **sent)).json()["error"] == "invalid_request"
    assert (await rig.token(lax, secret, code_verifier=VERIFIER, **sent)).status_code == 200


async def test_no_public_client_is_registered_without(rig: Rig) -> None:
    with pytest.raises(InputError, match="PKCE"):
        await rig.new_client(is_public=True, requires_pkce=False)
