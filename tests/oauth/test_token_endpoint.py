"""The token endpoint as HTTP: what it takes, and how it answers (RFC 6749 §3.2 and §5)."""

import time

import pytest

from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.keysets.signing import SigningKeys
from tests.oauth.harness import Rig, basic

FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
async def test_only_post_gets_tokens(rig: Rig, method: str) -> None:
    answer = await rig.http().request(method, "/oauth/token", headers=basic(rig.client.id, rig.secret))
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("declared", ["application/json", "multipart/form-data; boundary=x", "text/plain", ""])
async def test_a_body_of_another_type_is_no_request(rig: Rig, declared: str) -> None:
    headers = basic(rig.client.id, rig.secret) | ({"Content-Type": declared} if declared else {})
    answer = await rig.http().post("/oauth/token", content=b"grant_type=client_credentials", headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


@pytest.mark.parametrize("declared", [FORM, f"{FORM}; charset=UTF-8", FORM.upper()])
async def test_the_type_may_have_its_parameter_and_any_case(rig: Rig, declared: str) -> None:
    headers = basic(rig.client.id, rig.secret) | {"Content-Type": declared}
    answer = await rig.http().post("/oauth/token", content=b"grant_type=client_credentials", headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "body, error",
    [
        (b"", "invalid_request"),
        (b"grant_type=", "invalid_request"),
        (b"grant_type=client_credentials&grant_type=client_credentials", "invalid_request"),
        (b"grant_type=client_credentials&scope=a&scope=b", "invalid_request"),
        (b"grant_type=client_credentials&" + b"a=1&" * 300, "invalid_request"),
        (b"grant_type=" + b"x" * 70_000, "invalid_request"),
        (b"grant_type=client_credentials\xff", "invalid_request"),
        (b"grant_type=password&username=a&password=b", "unsupported_grant_type"),
        (b"grant_type=implicit", "unsupported_grant_type"),
        (b"grant_type=token", "unsupported_grant_type"),
        (b"grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer", "unsupported_grant_type"),
        (b"grant_type=%FF", "unsupported_grant_type"),
        (b"grant_type=authorization_code", "invalid_request"),
        (b"grant_type=refresh_token", "invalid_request"),
        (b"grant_type=client_credentials&scope=unknown", "invalid_scope"),
        (b"grant_type=client_credentials&scope=account:write", "invalid_scope"),
    ],
    ids=lambda value: str(value[:40]),
)
async def test_what_is_wrong_is_told_by_its_code_in_json_that_no_cache_keeps(rig: Rig, body: bytes, error: str) -> None:
    headers = basic(rig.client.id, rig.secret) | {"Content-Type": FORM}
    answer = await rig.http().post("/oauth/token", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, error)
    assert answer.headers["content-type"] == "application/json"
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    assert answer.json()["error_description"].isascii()


@pytest.mark.parametrize(
    "value", ["%FF", "%00", "%ED%A0%80", "%0D%0A", "%E2%80%AE", "%22%3E%3Cscript%3E", "x" * 9000], ids=lambda v: v[:9]
)
async def test_no_parameter_of_any_bytes_brings_an_endpoint_down(rig: Rig, value: str) -> None:
    http = rig.http()
    for path, kind in (
        ("token", "grant_type=authorization_code&code=x"), ("token", "grant_type=refresh_token&refresh_token=x"),
        ("token", "grant_type=client_credentials"), ("revoke", "token=x"), ("introspect", "token=x"),
    ):  # fmt: skip
        usual = dict(pair.split("=") for pair in kind.split("&")) | {"client_secret": rig.secret}
        for name in (*usual, "client_id", "redirect_uri", "code_verifier", "scope", "resource", "token_type_hint"):
            sent = {"client_id": rig.client.id, **usual, name: value}
            body = "&".join(f"{field}={text}" for field, text in sent.items())
            answer = await http.post(f"/oauth/{path}", content=body, headers={"Content-Type": FORM})
            assert answer.status_code in {200, 400, 401}, (path, name)
            assert answer.json() is not None


async def test_unknown_parameters_are_ignored_and_an_answer_is_kept_by_no_cache(rig: Rig) -> None:
    answer = await rig.token(grant_type="client_credentials", unheard_of="x", audience="y")
    assert answer.status_code == 200
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    assert answer.json().keys() == {"access_token", "token_type", "expires_in", "scope"}


async def test_a_client_has_the_grant_types_that_it_was_registered_for(rig: Rig) -> None:
    client, secret = await rig.new_client()
    answer = await rig.token(client, secret, grant_type="client_credentials")
    assert (answer.status_code, answer.json()["error"]) == (400, "unauthorized_client")


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/revoke", "/.well-known/oauth-authorization-server"])
async def test_scripts_of_any_origin_may_ask_where_no_cookie_counts(rig: Rig, path: str) -> None:
    headers = {"Origin": "https://spa.example", "Access-Control-Request-Method": "POST"}
    preflight_headers = headers | {"Access-Control-Request-Headers": "authorization, content-type, dpop"}
    preflight = await rig.http().options(path, headers=preflight_headers)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, "*")
    assert "access-control-allow-credentials" not in preflight.headers
    answer = await rig.http().post("/oauth/token", data={}, headers={"Origin": "https://spa.example"})
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("path", ["/oauth/authorize", "/oauth/sign-in", "/oauth/consent", "/oauth/introspect"])
async def test_scripts_of_other_origins_may_not_ask_where_users_are_known(rig: Rig, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        headers = {"Origin": "https://spa.example", "Access-Control-Request-Method": "POST"}
        answer = await rig.http().request(method, path, headers=headers)
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.own_gateway
async def test_with_another_secret_key_than_the_signing_keys_it_says_to_come_again_and_the_log_why(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    other = SigningKeys(rig.gateway.store, secret_key=lambda: b"t" * 32, life_seconds=60, clock=time.time)
    await other.rotate(at_once=True)  # by an operator whose environment has another one
    await rig.gateway.signing.all()
    for _ in range(2):
        answer = await rig.token(grant_type="client_credentials")
        assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert "MACHPAY_SECRET_KEY" in caplog.text


async def test_without_its_database_it_says_to_come_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("client")

    monkeypatch.setattr(rig.gateway.oauth_clients, "get", away)
    answer = await rig.token(grant_type="client_credentials")
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert answer.headers["retry-after"] == "1"
    page = await rig.authorize({"client_id": rig.client.id})
    assert (page.status_code, "try again in a moment" in page.text) == (503, True)
