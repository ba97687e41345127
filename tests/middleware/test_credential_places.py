"""Where the middleware finds a credential, and what of it the application sees."""

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from httpx2 import BasicAuth
from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import WS_PROTOCOLS
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from machpay_gateway import Route
from machpay_gateway.core.keys.key import mint_secret
from machpay_gateway.server import create_app
from machpay_gateway.settings import load_settings
from machpay_gateway.web.request_facts import request_facts_with_query
from tests.gateways import Guarded, guarded
from tests.servers import serving

PLACES = {"headers": ["Authorization", "X-API-Key"], "query": "api_key"}
RULES = [Route("* /v1/{rest:path}", scopes="skills:execute"), Route("GET /open", public=True)]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what the application sees of a request; accept a WebSocket with the first protocol."""
    seen = {
        "query": scope["query_string"].decode(),
        "headers": [[name.decode(), value.decode()] for name, value in scope["headers"]],
        "protocols": list(scope.get("subprotocols", ())),
    }
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept", "subprotocol": next(iter(seen["protocols"]), None)})
        await send({"type": "websocket.send", "text": json.dumps(seen)})
        await send({"type": "websocket.close"})
        return
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})


@pytest.fixture(scope="module")
async def api() -> AsyncIterator[Guarded]:
    async with guarded(echo, routes=RULES, credentials=PLACES) as it:
        yield it


@pytest.fixture(scope="module")
async def secret(api: Guarded) -> str:
    return (await api.key())[1]


@pytest.fixture(scope="module")
async def other(api: Guarded) -> str:
    return (await api.key())[1]


@pytest.mark.parametrize(
    "how",
    [
        {"headers": {"Authorization": "Bearer {}"}},
        {"headers": {"X-API-Key": "{}"}},
        {"headers": {"x-api-key": "{}"}},
        {"params": {"api_key": "{}"}},
        {"params": {"api_key": "{}"}, "headers": {"X-API-Key": "{}"}},
        {"params": {"api_key": "{}"}, "headers": {"X-API-Key": "{}", "Authorization": "Bearer {}"}},
    ],
)
async def test_a_credential_is_accepted_in_each_place(
    api: Guarded, secret: str, how: dict[str, dict[str, str]]
) -> None:
    params, headers = (
        {name: value.format(secret) for name, value in how.get(kind, {}).items()} for kind in ("params", "headers")
    )
    assert (await api.client().get("/v1/x", params=params, headers=headers)).status_code == 200


async def test_basic_takes_the_key_as_user_name(api: Guarded, secret: str) -> None:
    assert (await api.client().get("/v1/x", auth=BasicAuth(secret, ""))).status_code == 200
    assert (await api.client().get("/v1/x", auth=BasicAuth(secret, "x"))).status_code == 401
    assert (await api.client().get("/v1/x", auth=BasicAuth("user", "password"))).status_code == 401


async def test_two_different_credentials_are_refused(api: Guarded, secret: str, other: str) -> None:
    answer = await api.client(secret).get("/v1/x", headers={"X-API-Key": other})
    assert (answer.status_code, answer.json()["code"]) == (400, "conflicting_credentials")
    assert answer.headers["www-authenticate"].startswith('Bearer realm="machpay", error="invalid_request"')
    answer = await api.client(secret).get("/v1/x", params={"api_key": other})
    assert (answer.status_code, answer.json()["code"]) == (400, "conflicting_credentials")
    twice = [("X-API-Key", secret), ("X-API-Key", other)]
    answer = await api.client().get("/v1/x", headers=twice)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")


async def test_by_default_only_authorization_counts() -> None:
    async with guarded(echo, routes=RULES) as api:
        _, secret = await api.key()
        for answer in (
            await api.client().get("/v1/x", headers={"X-API-Key": secret}),
            await api.client().get("/v1/x", params={"api_key": secret}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (401, "missing_credentials")
            assert answer.json()["detail"] == "Send an API key or a token as `Authorization: Bearer …`."
            assert answer.headers["www-authenticate"] == 'Bearer realm="machpay"'
        assert (await api.client(secret).get("/v1/x", headers={"X-API-Key": "another"})).status_code == 200


async def test_authorization_is_the_applications_own_where_another_header_is_named() -> None:
    async with guarded(echo, routes=RULES, credentials={"headers": ["X-API-Key"]}) as api:
        _, secret = await api.key()
        answer = await api.client(secret).get("/v1/x")
        assert answer.headers["www-authenticate"] == 'ApiKey realm="machpay", header="X-API-Key"'
        assert answer.json()["detail"] == "Send an API key or a token as `X-API-Key: …`."
        answer = await api.client("of the application").get("/v1/x", headers={"X-API-Key": secret})
        assert ["authorization", "Bearer of the application"] in answer.json()["headers"]


async def test_the_application_does_not_see_the_credential_in_a_url(api: Guarded, secret: str) -> None:
    url = f"/v1/x?a=1&api_key={secret}&b=2"
    referer = f"http://api.test/v1/y?api_key={secret}&c=3"
    seen = (await api.client().get(url, headers={"Referer": referer})).json()
    assert seen["query"] == "a=1&b=2"
    assert ["referer", "http://api.test/v1/y?c=3"] in seen["headers"]
    assert secret not in json.dumps(seen)
    assert (await api.client().get(f"/open?api_key={secret}")).json()["query"] == ""


async def test_a_preflight_of_a_url_with_a_credential_is_still_one(api: Guarded, secret: str) -> None:
    headers = {"Origin": "https://app.test", "Access-Control-Request-Method": "POST"}
    answer = await api.client().options(f"/v1/x?api_key={secret}", headers=headers)
    assert (answer.status_code, answer.json()["query"]) == (200, "")


async def test_the_servers_access_log_has_no_credential(
    api: Guarded, secret: str, caplog: pytest.LogCaptureFixture
) -> None:
    scope: Scope = {
        "type": "http", "method": "GET", "path": "/v1/x", "raw_path": b"/v1/x", "headers": [], "client": None,
        "query_string": b"api_key=" + secret.encode(),
    }  # fmt: skip
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    with caplog.at_level(logging.DEBUG):
        await api.app(scope, _nothing, send)
        scope = {**scope, "query_string": b"api_key=" + secret.encode() + b"x", "path": f"/v1/{secret}"}
        await api.app(scope, _nothing, send)
    assert [message["status"] for message in sent if "status" in message] == [200, 401]
    assert scope["query_string"] == b""  # a server writes its log from its own scope
    assert secret not in caplog.text


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


@pytest.mark.parametrize("implementation", ["websockets-sansio", "wsproto"])
async def test_a_websocket_has_its_credential_among_its_subprotocols(implementation: str) -> None:
    if implementation not in WS_PROTOCOLS:
        pytest.skip("this uvicorn does not have it")
    async with guarded(echo, routes=RULES) as api:
        _, secret = await api.key()
        offered = f"machpay.bearer.{secret}"
        with serving(api.app, ws=implementation) as (host, port):
            url = f"ws://{host}:{port}/v1/live"
            async with connect(url, subprotocols=_protocols(offered, "chat.v2", "chat.v1")) as socket:
                seen = json.loads(await socket.recv())
                assert socket.subprotocol == "chat.v2"
            assert seen["protocols"] == ["chat.v2", "chat.v1"]
            assert ["sec-websocket-protocol", "chat.v2, chat.v1"] in seen["headers"]
            assert secret not in json.dumps(seen)
            async with connect(url, subprotocols=_protocols(offered)) as socket:
                assert (json.loads(await socket.recv())["protocols"], socket.subprotocol) == ([], None)
            for refused in ("chat", f"machpay.bearer.{mint_secret('live', bytes(32))}"):
                with pytest.raises(InvalidStatus) as refusal:
                    await connect(url, subprotocols=_protocols(refused))
                assert refusal.value.response.status_code == 401


def _protocols(*names: str) -> list[Subprotocol]:
    return [Subprotocol(name) for name in names]


async def test_subprotocols_can_be_left_to_the_application() -> None:
    async with guarded(echo, routes=RULES, credentials={"subprotocol": False}) as api:
        _, secret = await api.key()
        with serving(api.app) as (host, port), pytest.raises(InvalidStatus):
            await connect(f"ws://{host}:{port}/v1/live", subprotocols=_protocols(f"machpay.bearer.{secret}"))


async def test_the_key_api_reads_credentials_from_the_same_places() -> None:
    async with guarded(echo, credentials=PLACES) as api:
        _, secret = await api.key(scopes=["keys:manage"])
        app = Guarded(create_app(gateway=api.gateway), api.gateway)
        assert (await app.client().get("/v1/keys", headers={"X-API-Key": secret})).status_code == 200
        assert (await app.client().get("/v1/keys", params={"api_key": secret})).status_code == 200
        document = (await app.client().get("/v1/openapi.json")).json()
        assert document["components"]["securitySchemes"] == {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "query": {"type": "apiKey", "in": "query", "name": "api_key"},
        }
        assert document["security"] == [{"bearer": []}, {"header": []}, {"query": []}]


async def test_a_stream_is_checked_again_by_the_credential_that_it_began_with(api: Guarded, secret: str) -> None:
    scope: Scope = {"path": "/v1/x", "headers": [], "client": None, "query_string": f"api_key={secret}".encode()}
    facts = request_facts_with_query(scope, api.app.trust, iter([b"id"]))
    assert await api.gateway.gate.is_still_allowed(facts, RULES[0])


def test_the_settings_are_the_same_from_each_source(tmp_path: Path) -> None:
    file = tmp_path / "machpay.toml"
    file.write_text('[credentials]\nheaders = ["Authorization", "X-API-Key"]\nquery = "api_key"\nsubprotocol = false\n')
    environ = {
        "MACHPAY_CREDENTIALS__HEADERS": "Authorization, X-API-Key",
        "MACHPAY_CREDENTIALS__QUERY": "api_key",
        "MACHPAY_CREDENTIALS__SUBPROTOCOL": "false",
        "MACHPAY_CONFIG": "/dev/null",
    }
    by_file = load_settings({"config": file}, {}).credentials
    by_environment = load_settings({}, environ).credentials
    by_python = load_settings({"config": "/dev/null", "credentials": {**PLACES, "subprotocol": False}}, {}).credentials
    assert by_file == by_environment == by_python
