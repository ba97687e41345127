"""`current_principal` behind a real middleware, for requests and WebSockets."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Security
from fastapi.security import SecurityScopes
from fastapi.testclient import TestClient
from httpx2 import ASGITransport, AsyncClient
from starlette import testclient
from starlette.middleware.base import RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from machpay_gateway import ConfigurationError, Gateway, MachPayAuth, Principal, Route, Tier
from machpay_gateway.core.decision.problem import PROBLEMS
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.usage.counters import DAY
from machpay_gateway.fastapi import current_principal
from machpay_gateway.server import create_app
from tests.gateways import guarded
from tests.versions import shows_scopes

WebSocketDenialResponse: Any = getattr(testclient, "WebSocketDenialResponse", None)
PUBLIC = [Route("GET /public/{rest:path}", public=True)]
Caller = Annotated[Principal, Security(current_principal)]
Reader = Annotated[Principal, Security(current_principal, scopes=["skills:list", "account:read"])]


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/public/any")
    @app.get("/any")
    async def any_caller(principal: Caller) -> str:
        return principal.display_name

    @app.get("/reader")
    async def reader(principal: Reader) -> str:
        return principal.display_name

    @app.websocket("/public/live")
    @app.websocket("/live")
    async def live(websocket: WebSocket, principal: Reader) -> None:
        await websocket.accept()
        await websocket.send_text(principal.display_name)
        await websocket.close()

    return app


@pytest.fixture
def gateway() -> Gateway:
    return Gateway(database="memory://", routes=PUBLIC)


@pytest.fixture
def client(gateway: Gateway) -> Iterator[TestClient]:
    with TestClient(MachPayAuth(application(), gateway=gateway)) as started:
        yield started


@pytest.fixture
def bearer(client: TestClient, gateway: Gateway) -> Callable[..., dict[str, str]]:
    """Return the header that carries a key with the given scopes."""
    assert client.portal is not None
    portal = client.portal

    async def issue(scopes: tuple[str, ...]) -> str:
        account = await gateway.accounts.create("acme", "standard")
        _, secret = await gateway.keys.create(account.id, name="ada", scopes=scopes, environment="live")
        return secret

    return lambda *scopes: {"Authorization": f"Bearer {portal.call(issue, scopes)}"}


def test_the_dependency_returns_the_caller(client: TestClient, bearer: Callable[..., dict[str, str]]) -> None:
    headers = bearer("skills:*", "account:read")

    assert client.get("/any", headers=headers).json() == "ada"
    assert client.get("/reader", headers=headers).json() == "ada", "wildcards count"


@pytest.mark.parametrize(
    "path, scopes, reason, challenge",
    [
        ("/reader", ("skills:list",), Reason.INSUFFICIENT_SCOPE, 'scope="account:read skills:list"'),
        ("/public/any", None, Reason.MISSING_CREDENTIALS, 'Bearer realm="machpay"'),
    ],
)
def test_a_refusal_matches_the_table(
    client: TestClient,
    bearer: Callable[..., dict[str, str]],
    *,
    path: str,
    scopes: tuple[str, ...] | None,
    reason: Reason,
    challenge: str,
) -> None:
    answer = client.get(path, headers={} if scopes is None else bearer(*scopes))

    row = PROBLEMS[reason]
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, body["code"], body["detail"]) == (row.status, reason, row.detail)
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body.get("required_scopes") == (None if scopes is None else ["account:read", "skills:list"])
    assert challenge in answer.headers["www-authenticate"]


def test_the_dependency_returns_the_caller_of_a_websocket(
    client: TestClient, bearer: Callable[..., dict[str, str]]
) -> None:
    with client.websocket_connect("/live", headers=bearer("skills:list", "account:read")) as live:
        assert live.receive_text() == "ada"


@pytest.mark.parametrize(
    "path, scopes, reason",
    [
        ("/live", ("skills:list",), Reason.INSUFFICIENT_SCOPE),
        ("/public/live", None, Reason.MISSING_CREDENTIALS),
    ],
)
def test_a_refused_websocket_gets_the_problem(
    client: TestClient,
    bearer: Callable[..., dict[str, str]],
    path: str,
    scopes: tuple[str, ...] | None,
    reason: Reason,
) -> None:
    headers = {} if scopes is None else bearer(*scopes)
    if WebSocketDenialResponse is None:
        pytest.skip("the test client of this Starlette cannot read a response to a handshake")
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect(path, headers=headers):
        pytest.fail("the handshake was accepted")

    assert (refused.value.status_code, refused.value.json()["code"]) == (PROBLEMS[reason].status, reason)


@pytest.mark.parametrize("path", ["/live", "/public/live"])
async def test_a_refused_handshake_is_closed_with_the_code_where_the_server_sends_no_response(path: str) -> None:
    async with guarded(application(), routes=PUBLIC) as api:
        _, secret = await api.key(scopes=["skills:list"])
        headers = [] if path == "/public/live" else [(b"authorization", f"Bearer {secret}".encode())]
        scope = {"type": "websocket", "path": path, "headers": headers, "query_string": b"", "client": None}
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "websocket.connect"}

        async def send(message: Message) -> None:
            sent.append(message)

        await api.app(scope, receive, send)
    reason = Reason.INSUFFICIENT_SCOPE if headers else Reason.MISSING_CREDENTIALS
    assert sent == [{"type": "websocket.close", "code": PROBLEMS[reason].close_code, "reason": str(reason)}]


def nested() -> FastAPI:
    """Return an application whose scopes are required by routers, mounted applications and its own dependencies."""
    app, router, inner, mounted = FastAPI(), APIRouter(), APIRouter(), FastAPI()

    def employee(principal: Annotated[Principal, Security(current_principal, scopes=["staff:read"])]) -> str:
        return principal.display_name

    @inner.get("/{order:int}")
    async def order(order: int, _: Annotated[Principal, Security(current_principal, scopes=["orders:read"])]) -> int:
        return order

    @inner.get("/{name}")
    async def by_name(name: str) -> str:
        return name

    @mounted.get("/report", dependencies=[Security(employee, scopes=["reports:read"])])
    async def report() -> str:
        return "report"

    router.include_router(inner, prefix="/orders", dependencies=[Security(current_principal, scopes=["orders:list"])])
    app.include_router(router, prefix="/v1")
    app.mount("/back", mounted)
    return app


class AsNothing:
    """A middleware that passes everything on."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


NESTED = {"orders:read", "orders:list", "reports:read", "staff:read"}


@pytest.mark.parametrize("wrap", [lambda app: app, CORSMiddleware, AsNothing])
async def test_what_the_application_requires_is_defined(wrap: Callable[[ASGIApp], ASGIApp]) -> None:
    async with guarded(wrap(nested()), routes=()) as api:
        assert set(api.gateway.scopes) >= NESTED
        key_id, _ = await api.key(scopes=["orders:read", "staff:*"])
        assert await api.gateway.keys.get(None, key_id)


def test_an_application_with_a_scope_that_is_none_does_not_start() -> None:
    app = FastAPI()
    app.get("/orders", dependencies=[Security(current_principal, scopes=["orders:read, orders:list"])])(lambda: "")

    with pytest.raises(ConfigurationError, match="The application's route /orders: 'orders:read, orders:list'"):
        MachPayAuth(app, database="memory://")


@pytest.mark.parametrize(
    "path, required",
    [
        ("/v1/orders/7", ["orders:list", "orders:read"]),
        ("/v1/orders/seven", ["orders:list"]),  # the other route, which has the same shape
        ("/back/report", ["reports:read", "staff:read"]),
    ],
)
async def test_a_refusal_spends_nothing_and_is_counted_as_forbidden(path: str, required: list[str]) -> None:
    async with guarded(nested(), routes=()) as api:
        key_id, secret = await api.key(scopes=["skills:list"])
        refused = [await api.client(secret).get(path) for _ in range(3)]
        missing = await api.client(secret).get("/missing")
        await api.gateway.recorder.close()
        rows = await api.gateway.store.usage(key_id, DAY, 0, 2**40)

    assert [answer.json()["required_scopes"] for answer in refused] == [required] * 3
    assert missing.headers["ratelimit"].startswith('"minute";r=999;'), "the first unit that was taken"
    counts = {(row.key.outcome, row.key.status): row.count for row in rows}
    assert counts == {("insufficient_scope", 403): 3, ("allowed", 404): 1}


async def test_who_holds_the_scopes_passes() -> None:
    async with guarded(nested(), routes=()) as api:
        _, secret = await api.key(scopes=["orders:*"])
        assert (await api.client(secret).get("/v1/orders/7")).json() == 7
        assert (await api.client(secret).get("/v1/orders/seven")).json() == "seven"
        assert (await api.client(secret).post("/v1/orders/7")).status_code == 405


async def test_the_scopes_of_the_policy_and_of_the_application_are_both_required() -> None:
    routes = [Route("GET /v1/orders/{id}", scopes="skills:list | account:read")]
    async with guarded(nested(), routes=routes) as api:
        _, secret = await api.key(scopes=["orders:*"])
        required = (await api.client(secret).get("/v1/orders/7")).json()["required_scopes"]
    assert required in (["orders:list", "orders:read", "skills:list"], ["account:read", "orders:list", "orders:read"])


async def test_a_refusal_behind_middleware_that_may_rewrite_paths_is_the_applications_and_looks_the_same() -> None:
    app = nested()

    @app.middleware("http")
    async def rewrite(request: Request, call_next: RequestResponseEndpoint) -> Response:
        request.scope["path"] = request.scope["path"].removeprefix("/rewritten")
        return await call_next(request)

    async with guarded(app, routes=(), tiers={"standard": Tier("1000/minute", 1)}) as api:
        key_id, secret = await api.key(scopes=["skills:list"])
        refused = [await api.client(secret).get(path) for path in ("/rewritten/v1/orders/7", "/v1/orders/7")]
        head = await api.client(secret).head("/back/report")
        await api.gateway.recorder.close()
        rows = await api.gateway.store.usage(key_id, DAY, 0, 2**40)

    for answer in refused:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["required_scopes"] == ["orders:list"], "of the first dependency that refuses"
        assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
    assert head.status_code == 405
    assert {(row.key.outcome, row.key.status): row.count for row in rows} == {
        ("insufficient_scope", 403): 2,
        ("allowed", 405): 1,
    }
    assert not api.app._refusals  # noqa: SLF001 - what is left of a request shows nowhere else


async def test_a_handled_refusal_leaves_nothing_behind() -> None:
    app = FastAPI()

    @app.get("/public")
    async def public() -> str:
        return "for everybody"

    async def optional(connection: HTTPConnection) -> None:
        with suppress(HTTPException):
            await current_principal(connection, SecurityScopes(), None)

    app.get("/never-sent", dependencies=[Depends(optional)])(lambda: {"is": "refused all the same"})
    async with guarded(app, routes=[Route("GET /never-sent", public=True), Route("GET /public", public=True)]) as api:
        assert (await api.client().get("/never-sent")).json()["code"] == "missing_credentials"
        assert (await api.client().get("/public")).json() == "for everybody"
        assert not api.app._refusals  # noqa: SLF001 - what is left of a request shows nowhere else


async def test_an_overridden_dependency_requires_nothing() -> None:
    app = nested()
    app.dependency_overrides[current_principal] = lambda: None
    async with guarded(app, routes=()) as api:
        _, secret = await api.key(scopes=["skills:list"])
        assert (await api.client(secret).get("/v1/orders/7")).json() == 7


async def test_the_control_planes_own_routes_require_nothing_of_the_application() -> None:
    app = FastAPI()
    app.get("/{rest:path}", dependencies=[Security(current_principal, scopes=["orders:read"])])(lambda: "all")
    gateway = Gateway(database="memory://")
    guard = create_app(app, gateway=gateway)
    async with gateway:
        account = await gateway.accounts.create("acme", "standard")
        _, secret = await gateway.keys.create(account.id, name="a", scopes=["skills:list"], environment="live")
        async with AsyncClient(transport=ASGITransport(guard), base_url="http://api") as client:
            headers = {"Authorization": f"Bearer {secret}"}
            assert (await client.get("/v1/whoami", headers=headers)).status_code == 200
            assert (await client.get("/else", headers=headers)).json()["required_scopes"] == ["orders:read"]


def test_without_the_middleware_the_dependency_raises() -> None:
    with TestClient(application()) as client, pytest.raises(ConfigurationError, match="add_middleware"):
        client.get("/any")


@shows_scopes
def test_openapi_shows_the_scheme_and_the_scopes() -> None:
    shown = application().openapi()

    assert shown["components"]["securitySchemes"]["MachPay"]["scheme"] == "bearer"
    assert shown["paths"]["/reader"]["get"]["security"] == [{"MachPay": ["skills:list", "account:read"]}]
    assert shown["paths"]["/any"]["get"]["security"] == [{"MachPay": []}]
