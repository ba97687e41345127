"""Requests to the token endpoint, and its responses."""

import json
import logging
import pickle
import socket
from base64 import b64decode
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus, unquote_plus

import httpx2
import machpay
import pytest
from machpay._token_request import Application, exchange_request, refresh_request, revocation_request

from tests.sdk.conftest import Twin
from tests.sdk.scripted import SECRET, Reply

CODE, VERIFIER = "code_" + "q" * 40, "v" * 39 + "wxyz"
ACCESS, REFRESH, CLIENT_SECRET = "at_" + "x" * 40 + "0001", "rt_" + "y" * 40 + "0002", "cs_" + "z" * 40 + "0003"
ISSUED = {
    "access_token": ACCESS,
    "refresh_token": REFRESH,
    "token_type": "Bearer",
    "expires_in": 3600,
    "scope": "skills:execute account:read",
}
CALLBACK = "https://app.example/callback"
Called = Callable[[Any], Any]  # what either client is asked for


def exchanged(client: Any, **given: Any) -> Any:  # noqa: ANN401 - either client, any argument
    return client.oauth.exchange_code(**{"code": CODE, "redirect_uri": CALLBACK, "client_id": "app_1", **given})


def refreshed(client: Any, **given: Any) -> Any:  # noqa: ANN401 - as above
    return client.oauth.refresh_token(**{"refresh_token": REFRESH, "client_id": "app_1", **given})


def revoked(client: Any, **given: Any) -> Any:  # noqa: ANN401 - as above
    return client.oauth.revoke(**{"token": REFRESH, "client_id": "app_1", **given})


CODE_FORM = {"grant_type": "authorization_code", "code": CODE, "redirect_uri": CALLBACK}
REFRESH_FORM = {"grant_type": "refresh_token", "refresh_token": REFRESH}


@pytest.mark.parametrize(
    "call, given, path, form",
    [
        (exchanged, {}, "/oauth/token", CODE_FORM),
        (exchanged, {"code_verifier": VERIFIER}, "/oauth/token", {**CODE_FORM, "code_verifier": VERIFIER}),
        (exchanged, {"code": "a+b&c=é %"}, "/oauth/token", {**CODE_FORM, "code": "a+b&c=é %"}),
        (refreshed, {}, "/oauth/token", REFRESH_FORM),
        (refreshed, {"scopes": ["a:b", "c"]}, "/oauth/token", {**REFRESH_FORM, "scope": "a:b c"}),
        (revoked, {}, "/oauth/revoke", {"token": REFRESH}),
    ],
)
async def test_public_clients_authenticate_in_the_form_and_others_by_basic(
    twin: Twin, call: Callable[..., Any], given: dict[str, Any], path: str, form: dict[str, str]
) -> None:
    twin.script.respond_with(Reply(200, ISSUED))
    for client in (
        twin.client(api_key=None),
        twin.client(),
        twin.client(base_url="https://api.invalid", auth_url=twin.url),
    ):
        await twin.resolve(call(client, **given))
        public = twin.script.last
        assert (public.method, public.path, public.query) == ("POST", path, "")
        assert public.form == {**form, "client_id": "app_1"}
        assert public.headers["accept"] == "application/json"
        assert {"authorization", "idempotency-key"}.isdisjoint(public.headers)
        await twin.resolve(call(client, **given, client_secret=CLIENT_SECRET))
        confidential = twin.script.last
        assert confidential.form == form
        assert confidential.headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    "client_id, secret",
    [
        ("app_1", "plain-Secret_1.~"),
        ("a:b", "c:d"),
        ("a+b", "c d+e"),
        ("100%", "%3A"),
        ("é", "ключ🔑"),
        ('"\\', "a&b=c/d?e#f"),
    ],
)
async def test_unusual_ids_and_secrets_arrive_unchanged(twin: Twin, client_id: str, secret: str) -> None:
    twin.script.respond_with(Reply(200, ISSUED))
    await twin.resolve(exchanged(twin.client(api_key=None), client_id=client_id, client_secret=secret))
    kind, _, encoded = twin.script.last.headers["authorization"].partition(" ")
    pair = b64decode(encoded, validate=True).decode("ascii").split(":")
    assert (kind, [unquote_plus(each, errors="strict") for each in pair]) == ("Basic", [client_id, secret])


async def test_the_authorization_of_a_given_http_client_is_not_sent(twin: Twin) -> None:
    kind: Any = httpx2.AsyncClient if twin.kind is machpay.AsyncMachPay else httpx2.Client
    given = kind(headers={"authorization": "Bearer other"})
    twin.script.respond_with(Reply(200, ISSUED))
    await twin.resolve(exchanged(twin.client(api_key=None, http_client=given)))
    assert "authorization" not in twin.script.last.headers
    await twin.resolve(given.aclose() if kind is httpx2.AsyncClient else given.close())


async def test_tokens_are_read_into_their_types(twin: Twin) -> None:
    twin.script.respond_with(Reply(200, {**ISSUED, "id_token": "abc"}))
    tokens = await twin.resolve(exchanged(twin.client(api_key=None)))
    assert (tokens.access_token, tokens.refresh_token, tokens.token_type) == (ACCESS, REFRESH, "Bearer")
    assert (tokens.expires_in, tokens.scope) == (3600, "skills:execute account:read")
    assert tokens.scopes == ("skills:execute", "account:read")
    assert (tokens.extra["id_token"], tokens.request_id) == ("abc", "req-1")


async def test_members_of_tokens_that_the_server_omits_have_defaults(twin: Twin) -> None:
    twin.script.respond_with(Reply(200, {"access_token": ACCESS, "token_type": "bearer"}))
    tokens = await twin.resolve(exchanged(twin.client(api_key=None)))
    assert (tokens.refresh_token, tokens.expires_in, tokens.scope, tokens.scopes) == (None, None, None, ())


async def test_a_refresh_token_that_remains_valid_is_in_the_tokens(twin: Twin) -> None:
    twin.script.respond_with(Reply(200, {"access_token": ACCESS, "token_type": "Bearer"}))
    assert (await twin.resolve(refreshed(twin.client(api_key=None)))).refresh_token == REFRESH


@pytest.mark.parametrize(
    "scripted, match",
    [
        (Reply(200, {}), "access_token is missing"),
        (Reply(200, {**ISSUED, "access_token": "a\nb"}), "access_token: not a token"),
        (Reply(200, {**ISSUED, "token_type": "DPoP"}), "token_type: not Bearer"),
        (Reply(200, {**ISSUED, "expires_in": "3600"}), "expires_in: not a whole number"),
        (Reply(200, b"<html>", {"content-type": "text/html"}), "is auth_url right"),
    ],
)
async def test_unusable_tokens_are_an_error(twin: Twin, scripted: Reply, match: str) -> None:
    twin.script.respond_with(scripted)
    with pytest.raises(machpay.InvalidResponseError, match=match) as caught:
        await twin.resolve(exchanged(twin.client(api_key=None)))
    assert ACCESS not in f"{caught.value!r} {caught.value.response!r}"


async def test_revoking_returns_none(twin: Twin) -> None:
    twin.script.respond_with(Reply(200, b""))
    assert await twin.resolve(revoked(twin.client(api_key=None), client_secret=CLIENT_SECRET)) is None


async def test_an_oauth_error_has_code_description_status_and_request_id(twin: Twin) -> None:
    twin.script.respond_with(Reply(400, {"error": "invalid_grant", "error_description": "The code has ended."}))
    with pytest.raises(machpay.OAuthError) as caught:
        await twin.resolve(exchanged(twin.client(api_key=None)))
    error = caught.value
    assert (error.error, error.error_description) == ("invalid_grant", "The code has ended.")
    assert (error.status, error.request_id) == (400, "req-1")
    assert str(error) == "invalid_grant: The code has ended. (status 400, request req-1)"
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - its own
    assert (str(copy), copy.error, copy.status) == (str(error), error.error, 400)


@pytest.mark.parametrize(
    "scripted, expected",
    [
        (Reply(502, b"<html>"), machpay.InternalServerError),
        (Reply(404, {"title": "Not found"}), machpay.NotFoundError),
        (Reply(400, {"error": {"code": 1}}), machpay.BadRequestError),
        (Reply(302, {}, {"location": "/"}), machpay.APIStatusError),
    ],
)
async def test_other_errors_are_raised_by_their_status(twin: Twin, scripted: Reply, expected: type[Exception]) -> None:
    twin.script.respond_with(scripted)
    with pytest.raises(expected):
        await twin.resolve(revoked(twin.client(api_key=None, max_retries=0)))
    assert len(twin.script.requests) == 1


@pytest.mark.parametrize(
    "scripted",
    [
        Reply(503),
        Reply(429, {}, {"retry-after": "1"}),
        Reply(408),
        Reply(cut=True),
    ],
)
async def test_a_code_that_may_have_been_received_is_never_retried(twin: Twin, scripted: Reply) -> None:
    twin.script.respond_with(scripted, Reply(200, ISSUED))
    with pytest.raises(machpay.MachPayError):
        await twin.resolve(exchanged(twin.client(api_key=None)))
    assert len(twin.script.requests) == 1
    assert twin.world.slept == []


async def test_a_code_is_retried_if_the_server_was_not_reached(twin: Twin) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(machpay.APIConnectionError):
        await twin.resolve(exchanged(twin.client(base_url=f"http://127.0.0.1:{port}")))
    assert twin.world.slept == [0.5, 1.0]


@pytest.mark.parametrize("scripted", [Reply(503), Reply(429, {}, {"retry-after": "9"}), Reply(cut=True)])
@pytest.mark.parametrize("call", [refreshed, revoked])
async def test_refreshing_and_revoking_are_retried(twin: Twin, call: Callable[..., Any], scripted: Reply) -> None:
    twin.script.respond_with(scripted, Reply(200, ISSUED))
    await twin.resolve(call(twin.client(api_key=None)))
    assert len({request.body for request in twin.script.requests}) == 1
    assert len(twin.script.requests) == 2


async def test_a_refresh_is_not_retried_once_it_would_look_like_theft(twin: Twin) -> None:
    twin.script.respond_with(Reply(503, {}, {"retry-after": "5"}))
    with pytest.raises(machpay.InternalServerError):
        await twin.resolve(refreshed(twin.client(api_key=None)))
    assert twin.world.slept == [5.0]  # the next one would come ten seconds after the first
    with pytest.raises(machpay.InternalServerError):
        await twin.resolve(revoked(twin.client(api_key=None)))
    assert twin.world.slept == [5.0, 5.0, 5.0]


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda c: exchanged(c, code=""), "code is empty"),
        (lambda c: exchanged(c, code=None), "code is a NoneType"),
        (lambda c: exchanged(c, client_id=""), "client_id is empty"),
        (lambda c: exchanged(c, client_secret=""), "client_secret is empty"),
        (lambda c: exchanged(c, code_verifier=""), "code_verifier is empty"),
        (lambda c: exchanged(c, client_secret="hidden\ud800"), "client_secret is not valid Unicode"),
        (lambda c: refreshed(c, refresh_token=b"hidden"), "refresh_token is a bytes"),
        (lambda c: refreshed(c, scopes="a b"), r"write scopes=\[…\]"),
        (lambda c: revoked(c, token=""), "token is empty"),
    ],
)
async def test_an_invalid_form_is_refused_before_it_is_sent(twin: Twin, call: Called, match: str) -> None:
    with pytest.raises(machpay.InvalidArgumentError, match=match) as caught:
        await twin.resolve(call(twin.client(api_key=None)))
    assert twin.script.requests == []
    assert "hidden" not in str(caught.value)


ODD = 'odd "secret" \\ +%:é ' + "1234"


@pytest.mark.parametrize("secret", [CLIENT_SECRET, ODD])
@pytest.mark.parametrize("token", [REFRESH, ODD + "5678"])
@pytest.mark.parametrize("call", [exchanged, refreshed, revoked])
async def test_no_secret_that_is_echoed_gets_into_error_log_or_repr(
    twin: Twin, call: Callable[..., Any], secret: str, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    name = {exchanged: "code", refreshed: "refresh_token", revoked: "token"}[call]
    given = {name: token, "client_secret": secret, **({"code_verifier": VERIFIER} if name == "code" else {})}
    secrets = (token, secret, VERIFIER)

    async def echo(request: Any) -> Reply:  # noqa: ANN401 - SentRequest
        shapes = [*secrets, *map(quote_plus, secrets), request.headers["authorization"], request.body.decode()]
        return Reply(400, json.dumps({"error": "invalid_request", "error_description": " ".join(shapes)}).encode())

    twin.script.on = {"/oauth/token": echo, "/oauth/revoke": echo}
    client = twin.client()
    with pytest.raises(machpay.OAuthError) as caught:
        await twin.resolve(call(client, **given))
    error = caught.value
    assert error.response is not None
    shown = f"{error!r} {error} {error.error_description} {error.response.body!r} {caplog.text} {vars(client)!r}"
    basic = twin.script.last.headers["authorization"].removeprefix("Basic ")
    sent = [token, secret, *([VERIFIER] if name == "code" else [])]
    for hidden in (*sent, *map(quote_plus, sent), *(json.dumps(each)[1:-1] for each in sent), basic):
        assert hidden not in shown
    assert error.error == "invalid_request"


def test_the_repr_of_a_token_request_shows_no_token() -> None:
    application = Application("app_1", CLIENT_SECRET)
    exchange = exchange_request(application, code=CODE, redirect_uri=CALLBACK, code_verifier=VERIFIER)
    refresh = refresh_request(application, refresh_token=REFRESH)
    shown = f"{application} {exchange} {refresh} {revocation_request(application, token=ACCESS)}"
    assert not [secret for secret in (CODE, VERIFIER, REFRESH, ACCESS, CLIENT_SECRET) if secret in shown]


async def test_the_repr_of_tokens_shows_no_token(twin: Twin) -> None:
    twin.script.respond_with(Reply(200, {**ISSUED, "id_token": SECRET}))
    tokens = await twin.resolve(exchanged(twin.client(api_key=None)))
    for shown in (repr(tokens), str(tokens), repr(tokens.response)):
        assert not [secret for secret in (ACCESS, REFRESH, SECRET) if secret in shown]
    assert "access_token='…0001', refresh_token='…0002', token_type='Bearer', expires_in=3600" in repr(tokens)
