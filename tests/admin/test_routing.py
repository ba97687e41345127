"""Routing: the paths of the key API, and responses at other paths."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from httpx2 import ASGITransport, AsyncClient, Response
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.routing import Route as StarletteRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from machpay_gateway import ConfigurationError, Gateway, MachPayAuth, Route
from machpay_gateway.admin.operations import DESCRIPTION_PATH, OPERATIONS, Operation
from machpay_gateway.core.network.address import parse_allowlist
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.server import create_app
from machpay_gateway.web.request_facts import Trust
from tests.admin.conftest import Api, Caller, in_memory, over, serving_api, status_and_code
from tests.applications import ok
from tests.prepared import SECRET_KEY

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
PATHS = sorted({operation.path for operation in OPERATIONS} | {DESCRIPTION_PATH})


def allowed(path: str) -> set[str]:
    """Return the methods that the table has for *path*."""
    methods = {operation.method for operation in OPERATIONS if operation.path == path} or {"GET"}
    return methods | ({"HEAD"} if "GET" in methods else set())


@in_memory
@pytest.mark.parametrize("path", PATHS)
async def test_an_unknown_method_gets_the_allowed_ones(admin: Caller, path: str) -> None:
    for method in METHODS:
        if method not in allowed(path):
            response = await admin.ask(method, path.format(id=admin.id))
            assert response.status_code == 405
            assert method == "HEAD" or status_and_code(response) == (405, "method_not_allowed")
            assert set(response.headers["allow"].split(", ")) == allowed(path)
            assert response.headers["content-type"] == "application/problem+json"


@over(operation for operation in OPERATIONS if operation.method == "GET")
async def test_head_is_get_without_its_body(admin: Caller, operation: Operation) -> None:
    name = (await admin.made(operation.about))[0] if "{id}" in operation.path else ""
    get, head = [await admin.ask(method, operation.path.format(id=name)) for method in ("GET", "HEAD")]
    assert (head.status_code, head.content) == (200, b"")
    names = ("content-type", "etag", "cache-control")
    assert [head.headers.get(name) for name in names] == [get.headers.get(name) for name in names]


@in_memory
@pytest.mark.parametrize(
    "path",
    [
        "/v1/keys/", "/v1/keys/{id}/", "/v1/keys/{id}/rotate/", "/v1/keys/{id}/nothing", "/v1/keys/{id}/rotate/rotate",
        "/v1/oauth", "/v1/oauth/token", "/v1/oauth/clients/", "/v1/oauth/clients/{id}/rotate", "/v1/oauth/grants/{id}",
        "/v1/whoami/", "/v1/whoami/me", "/v1/audit-log/1", "/v1/openapi.json/", "/v1/openapi.json/x",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_unknown_paths_below_the_key_api_are_not_found(admin: Caller, method: str, path: str) -> None:
    response = await admin.ask(method, path.format(id=admin.id))
    assert status_and_code(response) == (404, "not_found")
    assert "x-app" not in response.headers


@in_memory
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/",
        "/v1/oauthx",
        "/oauth/token",
        "/v1/key",
        "/v1/keysx",
        "/V1/keys",
        "/v1/Keys",
        "/v2/keys",
        "/x/v1/keys",
    ],
)
async def test_all_other_paths_belong_to_the_application(admin: Caller, path: str) -> None:
    response = await admin.ask("GET", path)
    assert (response.status_code, response.text) == (200, "ok")


async def test_without_an_application_only_the_key_api_is_served() -> None:
    app = create_app(database="memory://")
    async with app.gateway:
        api = Api.of(app)
        caller = await api.caller()
        assert (await caller.ask("GET", "/v1/keys")).status_code == 200
        assert status_and_code(await caller.ask("GET", "/v1/skills")) == (404, "not_found")
        assert status_and_code(await api.client(None).get("/v1/skills")) == (401, "missing_credentials")
        await api.close()
    with TestClient(app) as client:
        assert client.get("/v1/openapi.json").status_code == 200
        with (
            pytest.raises(WebSocketDisconnect),
            client.websocket_connect("/v1/keys", headers={"Authorization": f"Bearer {caller.secret}"}),
        ):
            pass


@pytest.mark.parametrize("scopes, is_let_in", [((), False), (("keys:manage",), True)])
async def test_a_websocket_at_the_key_apis_paths_is_the_applications_and_guarded(
    scopes: tuple[str, ...],
    is_let_in: bool,  # noqa: FBT001 - a column
) -> None:
    async with serving_api() as api:
        caller = await api.caller(scopes=scopes)
        sent: list[Any] = []

        async def receive() -> dict[str, str]:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:  # noqa: ANN401 - ASGI's
            sent.append(message["type"])

        headers = [(b"authorization", f"Bearer {caller.secret}".encode())]
        scope = {"type": "websocket", "path": "/v1/keys", "headers": headers, "client": ("192.0.2.1", 1)}
        await api.guarded.app(scope, receive, send)
        assert sent == (["websocket.accept", "websocket.close"] if is_let_in else ["websocket.close"])


@pytest.mark.parametrize("is_kept_in_path", [True, False])
async def test_below_a_root_path_it_is_the_same_api(is_kept_in_path: bool) -> None:  # noqa: FBT001 - a column
    async with serving_api() as api:
        caller = await api.caller()
        transport = ASGITransport(app=api.guarded.app, client=("192.0.2.1", 1), root_path="/gateway")
        prefix = "/gateway" if is_kept_in_path else ""
        headers = {"Authorization": f"Bearer {caller.secret}", "Idempotency-Key": "a"}
        async with AsyncClient(transport=transport, base_url=f"http://api.test{prefix}", headers=headers) as client:
            made, again = [await client.post("/v1/keys", json={"name": "a", "scopes": []}) for _ in range(2)]
            key_id = made.json()["id"]
            for response in (made, again):
                assert (response.status_code, response.headers["location"]) == (201, f"/gateway/v1/keys/{key_id}")
            assert (await client.get(f"/v1/keys/{key_id}")).status_code == 200
            assert status_and_code(await client.get("/v1/keys/")) == (404, "not_found")
            assert status_and_code(await client.delete("/v1/keys")) == (405, "method_not_allowed")


async def test_mounted_in_another_application_it_is_the_same_api() -> None:
    async with serving_api() as api:
        caller = await api.caller()
        outer = Starlette(routes=[Mount("/gateway", app=api.guarded.app)])
        headers = {"Authorization": f"Bearer {caller.secret}"}
        transport = ASGITransport(app=outer, client=("192.0.2.1", 1))
        async with AsyncClient(transport=transport, base_url="http://api.test/gateway", headers=headers) as client:
            created = await client.post("/v1/keys", json={"name": "a", "scopes": []})
            assert created.headers["location"] == f"/gateway/v1/keys/{created.json()['id']}"
            assert (await client.get("/v1/whoami")).json()["id"] == caller.id


async def test_where_unlisted_routes_are_denied_the_key_api_is_listed() -> None:
    async with serving_api(unlisted_routes="deny") as api:
        caller = await api.caller()
        created = await caller.created()
        for path in ("/v1/keys", f"/v1/keys/{created['id']}", "/v1/audit-log", "/v1/whoami", "/v1/openapi.json"):
            assert (await caller.ask("GET", path)).status_code == 200
        for method, path in (("GET", "/v1/skills"), ("GET", f"/v1/keys/{created['id']}/x"), ("DELETE", "/v1/keys")):
            assert status_and_code(await caller.ask(method, path)) == (404, "route_not_found")


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_route_of_the_applications_own_in_the_same_place_stops_the_start(operation: Operation) -> None:
    match = f"{operation.method} {operation.path.replace('{id}', '{key}')}"
    with pytest.raises(ConfigurationError, match=r"matches the same requests"):
        create_app(database="memory://", routes=[Route(match, scopes="skills:list")])


async def test_the_applications_own_rule_for_every_method_does_not_open_the_key_api() -> None:
    async with serving_api(
        routes=[Route("* /v1/{rest:path}", scopes="skills:list"), Route("* /v1/keys", public=True)]
    ) as api:
        caller = await api.caller(scopes=["skills:list"])
        for operation in OPERATIONS:
            response = await caller.ask(
                operation.method, operation.path.format(id=caller.id), {} if operation.body else None
            )
            assert response.status_code == (403 if operation.scopes else operation.status)
        # Public, by the application's own rule: told of no key, since there is nothing by that method.
        assert status_and_code(await api.client(None).put("/v1/keys")) == (405, "method_not_allowed")


async def test_a_gateway_that_an_application_shares_gets_the_key_api_beside_it() -> None:
    routes = [Route("GET /v1/skills", scopes="skills:list")]
    shared = Gateway(database="memory://", secret_key=SECRET_KEY, routes=routes, unlisted_routes="deny")
    app = create_app(ok, gateway=shared)
    assert app.gateway.keys is shared.keys
    async with shared:
        api = Api.of(app)
        caller = await api.caller(scopes=["keys:manage", "skills:list"])
        for path, expected in (("/v1/skills", 200), ("/v1/whoami", 200), ("/v1/keys", 200), ("/v1/else", 404)):
            assert (await caller.ask("GET", path)).status_code == expected
        created = await caller.created()
        key = await shared.store.key(None, created["id"])
        assert key is not None
        await shared.keys.revoke(key.account_id, key.id)
        assert (await caller.user(created).ask("GET", "/v1/whoami")).status_code == 401
        await api.close()


@pytest.mark.parametrize("trusted, status", [("10.0.0.0/8", 403), ("192.0.2.0/24", 200)])
async def test_trust_replaces_that_of_the_settings_for_the_key_api_too(trusted: str, status: int) -> None:
    app = create_app(ok, database="memory://", secret_key=SECRET_KEY, trust=Trust(parse_allowlist([trusted])))
    async with app.gateway:
        api = Api.of(app)
        name, secret = await api.guarded.key(allowed_ips=["203.0.113.7"])
        caller = Caller(api, name, secret)
        response = await caller.ask("GET", "/v1/whoami", headers={"X-Forwarded-For": "203.0.113.7"})
        assert response.status_code == status
        await api.close()


def test_create_app_takes_what_the_middleware_takes() -> None:
    taken, expected = (signature(function).parameters for function in (create_app, MachPayAuth))
    for name in expected.keys() - {"app"}:
        assert (taken[name].kind, taken[name].default) == (expected[name].kind, expected[name].default), name


def test_a_gateway_that_has_the_key_api_is_served_as_it_is() -> None:
    gateway = create_app(database="memory://").gateway
    assert create_app(ok, gateway=gateway).gateway is gateway


def test_a_gateway_and_settings_are_not_taken_together() -> None:
    with pytest.raises(ConfigurationError, match=r"create_app takes a gateway or settings, not both: drop database"):
        create_app(gateway=Gateway(database="memory://"), database="memory://")


def test_a_shared_gateways_route_in_the_place_of_the_key_api_stops_the_start() -> None:
    shared = Gateway(database="memory://", routes=[Route("GET /v1/keys", scopes="skills:list")])
    with pytest.raises(ConfigurationError, match=r"matches the same requests"):
        create_app(gateway=shared)


def test_the_applications_lifespan_runs_within_the_gateways() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        events.append("start")
        yield
        events.append("stop")

    async def skills(_request: object) -> PlainTextResponse:
        return PlainTextResponse("skills")

    inner = Starlette(routes=[StarletteRoute("/v1/skills", skills)], lifespan=lifespan)
    with TestClient(create_app(inner, database="memory://", routes=[Route("GET /v1/skills", public=True)])) as client:
        assert client.get("/v1/skills").text == "skills"
        assert client.get("/v1/whoami").status_code == 401
        assert events == ["start"]
    assert events == ["start", "stop"]


async def test_an_issuer_at_v1_has_its_endpoints_beside_the_apps_that_are_managed(tmp_path: Path) -> None:
    authority = OAuthSettings("http://127.0.0.1/v1")
    async with serving_api(database=f"sqlite:///{tmp_path}/keys.db", oauth=authority) as api:
        caller, nobody = await api.caller(), api.client(None)
        assert (await caller.ask("GET", "/v1/oauth/clients")).json()["data"] == []
        assert (await nobody.post("/v1/oauth/token")).json()["error"] == "invalid_request"
        assert (await nobody.get("/.well-known/oauth-authorization-server/v1")).json()["issuer"] == authority.issuer
        assert status_and_code(await caller.ask("GET", "/v1/oauth/nothing")) == (404, "not_found")
        assert status_and_code(await caller.ask("GET", "/v1/oauth/token/")) == (404, "not_found")


@in_memory
async def test_no_response_can_be_cached(admin: Caller) -> None:
    async def send(method: str, path: str, body: Any = None, **kwargs: Any) -> Response:  # noqa: ANN401 - as `ask`
        return await admin.ask(method, path, body, **kwargs)

    created = await admin.created()
    path = f"/v1/keys/{created['id']}"
    responses = [
        await send("GET", "/v1/openapi.json"),
        await send("GET", "/v1/keys"),
        await send("GET", path),
        await send("HEAD", path),
        await send("PATCH", path, {"name": "b"}),
        await send("POST", f"{path}/rotate", {}),
        await send("POST", f"{path}/rotate", {}, headers={"If-Match": '"1"'}),
        await send("POST", "/v1/keys", {"name": ""}),
        await send("POST", "/v1/keys", content=b"x"),
        await send("POST", "/v1/keys", content=b"x" * 300_000),
        await send("GET", "/v1/keys/none"),
        await send("GET", "/v1/keys/none/x"),
        await send("DELETE", "/v1/keys"),
        await send("GET", "/v1/whoami"),
        await send("GET", "/v1/audit-log"),
        await admin.api.client(None).get("/v1/keys"),
    ]
    assert {response.headers.get("cache-control") for response in responses} == {"no-store"}
    assert {response.status_code for response in responses} == {200, 400, 401, 404, 405, 412, 413, 415, 422} - {400}
