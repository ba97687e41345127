"""What apps are told when a user is sent back to them, and what they can find out before (RFC 9207, RFC 8414)."""

from urllib.parse import quote

import pytest

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.oauth.settings import OAuthSettings
from tests.oauth.harness import ISSUER, REDIRECT, Rig, answer_in, request_of, serving_oauth, submitted


@pytest.mark.parametrize(
    "state", ["s", "a b+c&d=e", "ä€🔑", "{{7*7}}<script>", "%41", "x" * 2048, "\\'\"", " ", "\t"], ids=ascii
)
async def test_state_comes_back_as_it_was_sent_and_means_nothing(rig: Rig, state: str) -> None:
    assert answer_in(await rig.allowed(rig.http(), rig.client, state=state))["state"] == state


async def test_bytes_of_state_that_are_no_text_come_back_as_they_came(rig: Rig) -> None:
    query = "&".join(f"{name}={quote(value)}" for name, value in request_of(rig.client).items() if name != "state")
    answer = await rig.authorize(f"{query}&response_type=x&state=%FF%00%c3%28")
    assert "state=%FF%00%C3%28" in answer.headers["location"]


async def test_a_state_that_was_not_sent_is_not_there(rig: Rig) -> None:
    assert "state" not in answer_in(await rig.allowed(rig.http(), rig.client, state=""))


@pytest.mark.parametrize(
    "changes, error",
    [
        ({"response_type": ""}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code token"}, "unsupported_response_type"),
        ({"response_type": "id_token code"}, "unsupported_response_type"),
        ({"response_type": "CODE"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"response_mode": "form_post"}, "invalid_request"),
        ({"request": "a.b.c"}, "request_not_supported"),
        ({"request_uri": "https://evil.example/"}, "request_uri_not_supported"),
        ({"scope": "unknown"}, "invalid_scope"),
        ({"scope": "account:write"}, "invalid_scope"),
        ({"scope": "skills:*"}, "invalid_scope"),
        ({"resource": "https://elsewhere.example"}, "invalid_target"),
        ({"state": "s" * 5000}, "invalid_request"),
        ({"prompt": "none"}, "login_required"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"prompt": "unheard"}, "invalid_request"),
    ],
    ids=str,
)
async def test_every_error_goes_back_with_the_issuer_and_state(rig: Rig, changes: dict[str, str], error: str) -> None:
    answer = await rig.authorize(request_of(rig.client) | changes)
    assert answer.status_code == 303
    response = answer_in(answer.headers["location"])
    assert (response["error"], response["iss"]) == (error, ISSUER)
    assert response["state"] == changes.get("state", "s-1")
    assert "code" not in response


async def test_a_refusal_of_the_user_goes_back_so_too(rig: Rig) -> None:
    browser = rig.http()
    await rig.allowed(browser, rig.client)
    page = await browser.get("/oauth/authorize", params=request_of(rig.client) | {"prompt": "consent"})
    location = (await submitted(browser, page, decision="deny")).headers["location"]
    assert answer_in(location).items() >= {"error": "access_denied", "iss": ISSUER, "state": "s-1"}.items()
    assert location.startswith(f"{REDIRECT}?")


@pytest.mark.parametrize("name", ["scope", "state", "response_type", "code_challenge", "nonce", "prompt"])
async def test_a_parameter_that_is_there_twice_is_no_request(rig: Rig, name: str) -> None:
    query = [*request_of(rig.client).items(), (name, "x"), (name, "x")]
    response = answer_in((await rig.authorize(query)).headers["location"])
    assert response["error"] == "invalid_request"


async def test_unknown_parameters_are_ignored(rig: Rig) -> None:
    assert (await rig.authorize(request_of(rig.client) | {"nonce": "n", "display": "page"})).status_code == 200


async def test_a_good_answer_has_the_issuer_that_the_metadata_names(rig: Rig) -> None:
    metadata = (await rig.http().get("/.well-known/oauth-authorization-server")).json()
    response = answer_in(await rig.allowed(rig.http(), rig.client))
    assert response["iss"] == metadata["issuer"] == ISSUER
    assert metadata["authorization_response_iss_parameter_supported"] is True
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    assert metadata["response_types_supported"] == ["code"]
    assert "registration_endpoint" not in metadata
    for name in ("authorization_endpoint", "token_endpoint", "revocation_endpoint", "introspection_endpoint"):
        assert metadata[name].startswith(f"{ISSUER}/oauth/")
        wrong = await rig.http().request("PUT", metadata[name].removeprefix(ISSUER))
        assert (wrong.status_code, wrong.headers["allow"] != "") == (405, True)
    keys = (await rig.http().get(metadata["jwks_uri"].removeprefix(ISSUER))).json()["keys"]
    assert [(key["kty"], key["alg"], key["use"]) for key in keys] == [("RSA", "RS256", "sig")]


async def test_an_issuer_with_a_path_has_it_in_front_of_its_endpoints_and_behind_the_well_known() -> None:
    async with serving_oauth(authority=OAuthSettings(f"{ISSUER}/tenant")) as rig:
        metadata = (await rig.http().get("/.well-known/oauth-authorization-server/tenant")).json()
        assert metadata["issuer"] == f"{ISSUER}/tenant"
        assert metadata["token_endpoint"] == f"{ISSUER}/tenant/oauth/token"
        answer = await rig.http().post("/tenant/oauth/token", data={"grant_type": "x"})
        assert answer.json()["error"] == "invalid_client"
        page = await rig.http().get("/tenant/oauth/authorize", params=request_of(rig.client))
        assert 'action="/tenant/oauth/sign-in?' in page.text


@pytest.mark.parametrize(
    "issuer",
    [
        "https://auth.example.com/", "https://auth.example.com/a/", "https://auth.example.com?a", "auth.example.com",
        "http://auth.example.com", "https://auth.example.com#a", "https://a@auth.example.com", "https://", "ftp://a",
        "https://auth.example.com/\n", "https://äuth.example.com",
    ],
    ids=repr,
)  # fmt: skip
def test_an_issuer_that_could_drift_cannot_be_set(issuer: str) -> None:
    with pytest.raises(ConfigurationError, match="issuer"):
        OAuthSettings(issuer)
