"""`current_principal` behind a real middleware, for requests and WebSockets."""

from collections.abc import Callable, Iterator
from typing import Annotated

import pytest
from fastapi import FastAPI, Security
from fastapi.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from machpay_gateway import ConfigurationError, Gateway, MachPayAuth, Principal, Route
from machpay_gateway.core.decision.problem import PROBLEMS
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.fastapi import current_principal

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
    return Gateway(database="memory://", routes=[Route("GET /public/{rest:path}", public=True)])


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
    assert (answer.status_code, answer.json()) == (row.status, {"detail": row.detail})
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
def test_a_refused_websocket_is_closed_with_the_code_of_the_table(
    client: TestClient,
    bearer: Callable[..., dict[str, str]],
    path: str,
    scopes: tuple[str, ...] | None,
    reason: Reason,
) -> None:
    headers = {} if scopes is None else bearer(*scopes)
    with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect(path, headers=headers):
        pytest.fail("the handshake was accepted")

    assert (closed.value.code, closed.value.reason) == (PROBLEMS[reason].close_code, str(reason))


def test_without_the_middleware_the_dependency_raises() -> None:
    with TestClient(application()) as client, pytest.raises(ConfigurationError, match="add_middleware"):
        client.get("/any")


def test_openapi_shows_the_scheme_and_the_scopes() -> None:
    shown = application().openapi()

    assert shown["components"]["securitySchemes"]["MachPay"]["scheme"] == "bearer"
    assert shown["paths"]["/reader"]["get"]["security"] == [{"MachPay": ["skills:list", "account:read"]}]
    assert shown["paths"]["/any"]["get"]["security"] == [{"MachPay": []}]
