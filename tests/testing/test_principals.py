"""`as_principal`: a caller is given, and what the policy says about it is real."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Request, Security
from httpx2 import ASGITransport, AsyncClient, Response
from litestar import Litestar, get
from litestar.connection import Request as LitestarRequest
from litestar.datastructures import State
from litestar.middleware import DefineMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse
from starlette.routing import Mount, WebSocketRoute
from starlette.routing import Route as Endpoint
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from machpay_gateway import (
    ConfigurationError,
    Gateway,
    MachPayAuth,
    Principal,
    Reason,
    Refusal,
    RequestFacts,
    Route,
    Tier,
)
from machpay_gateway.fastapi import current_principal
from machpay_gateway.server import create_app
from machpay_gateway.testing import as_principal
from tests.middleware.test_frameworks import django_asgi, quart
from tests.middleware.test_frameworks import litestar as bare_litestar

ROUTES = (
    Route("GET /v1/skills", scopes="skills:list"),
    Route("GET /v1/live", scopes="skills:list"),
    Route("GET /healthz", public=True),
)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test leaves the folder as it is: no database, no lock, no log."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir())


async def skills(request: StarletteRequest) -> JSONResponse:
    """Respond with the caller."""
    caller = request.scope["machpay"]
    request.scope["machpay_admission"].charge(10**9)
    return JSONResponse(None if caller is None else caller.id)


async def live(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(websocket.scope["machpay"].id)
    await websocket.close()


def starlette(**options: Any) -> Starlette:  # noqa: ANN401 - any option
    endpoints = [Endpoint("/v1/skills", skills), Endpoint("/healthz", skills), WebSocketRoute("/v1/live", live)]
    return Starlette(routes=endpoints, **options)


def added() -> ASGIApp:
    app = starlette()
    app.add_middleware(MachPayAuth, routes=ROUTES)
    return app


def added_with_a_gateway() -> ASGIApp:
    app = starlette()
    app.add_middleware(MachPayAuth, gateway=Gateway(database="memory://", routes=ROUTES))
    return app


def added_to_fastapi() -> ASGIApp:
    app = FastAPI()
    app.add_middleware(MachPayAuth, routes=ROUTES)

    @app.get("/v1/skills")
    async def fastapi_skills(request: Request) -> str:
        return str(request.scope["machpay"].id)

    return app


class OurGuard:
    """Middleware of the application's own, around ours."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = MachPayAuth(app, database="memory://", routes=ROUTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on."""
        await self.app(scope, receive, send)


def inside_middleware_of_its_own() -> ASGIApp:
    app = starlette()
    app.add_middleware(OurGuard)
    return app


def added_by_a_function() -> ASGIApp:
    app = starlette()
    app.add_middleware(lambda inner: MachPayAuth(inner, database="memory://", routes=ROUTES))
    return app


def mounted() -> ASGIApp:
    return Starlette(routes=[Mount("/", added())])


def mounted_with_middleware() -> ASGIApp:
    guard = Middleware(MachPayAuth, database="memory://", routes=ROUTES)
    return Starlette(routes=[Mount("/", app=starlette(), middleware=[guard])])


def inside_other_middleware() -> ASGIApp:
    return CORSMiddleware(added())


def in_a_closure() -> ASGIApp:
    app = added()

    @wraps(app)
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return serve


def by_hand() -> ASGIApp:
    return MachPayAuth(starlette(), database="memory://", routes=ROUTES)


def beside_the_key_api() -> ASGIApp:
    return create_app(starlette(), database="memory://", routes=ROUTES)


def in_litestar() -> ASGIApp:
    @get("/v1/skills", sync_to_thread=False)
    def litestar_skills(request: LitestarRequest[object, object, State]) -> str:
        return str(request.scope["machpay"].id)  # type: ignore[typeddict-item]  # our own addition to the scope

    guard = DefineMiddleware(MachPayAuth, database="memory://", routes=ROUTES)  # type: ignore[arg-type]  # its own names for ASGI's types
    return Litestar([litestar_skills], openapi_config=None, logging_config=None, middleware=[guard])  # type: ignore[return-value]  # as above


def in_quart() -> ASGIApp:
    app: Any = quart()
    app.asgi_app = MachPayAuth(app.asgi_app, database="memory://", routes=ROUTES)
    return app  # type: ignore[no-any-return]  # as in `quart`


def around_litestar() -> ASGIApp:
    return MachPayAuth(bare_litestar(), database="memory://", routes=ROUTES)


def around_django() -> ASGIApp:
    return MachPayAuth(django_asgi(), database="memory://", routes=ROUTES)


APPLICATIONS = [
    added,
    added_with_a_gateway,
    added_to_fastapi,
    inside_middleware_of_its_own,
    added_by_a_function,
    mounted,
    mounted_with_middleware,
    inside_other_middleware,
    in_a_closure,
    by_hand,
    beside_the_key_api,
    in_litestar,
    in_quart,
    around_litestar,
    around_django,
]


async def call(app: ASGIApp, path: str = "/v1/skills", **headers: str) -> Response:
    """Call *app* as httpx does, without its lifespan."""
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://api.test", headers=headers) as client:
        return await client.get(path)


@pytest.mark.parametrize("application", APPLICATIONS)
async def test_the_caller_has_what_it_is_given_and_the_policy_is_real(application: Callable[[], ASGIApp]) -> None:
    app = application()
    with as_principal(app, scopes="skills:list account:read", name="ada") as principal:
        response = await call(app)
        assert (response.status_code, "key_ada" in response.text) == (200, True)
        assert principal is not None
        assert (principal.id, principal.tier, principal.account_id) == ("key_ada", "standard", "acct_test")
        assert "ratelimit" not in response.headers
        assert "x-request-id" in response.headers
    with as_principal(app, scopes="account:read"):
        response = await call(app)
        assert (response.status_code, response.headers["content-type"]) == (403, "application/problem+json")
        assert (response.json()["code"], response.json()["required_scopes"]) == ("insufficient_scope", ["skills:list"])
    with as_principal(app, None):
        response = await call(app)
        assert (response.status_code, response.json()["code"]) == (401, "missing_credentials")
        assert response.headers["www-authenticate"] == 'Bearer realm="machpay"'


@pytest.mark.parametrize(
    "application", [by_hand, added_with_a_gateway, inside_middleware_of_its_own, in_litestar, in_quart]
)
async def test_afterwards_credentials_are_needed_again(application: Callable[[], ASGIApp]) -> None:
    app = application()
    with as_principal(app, scopes="skills:list"):
        assert (await call(app)).status_code == 200
    assert (await call(app)).status_code == 401
    with as_principal(app, scopes="skills:list"):  # the application is built now
        assert (await call(app)).status_code == 200
    assert (await call(app)).status_code == 401


async def test_it_ends_with_an_exception_too() -> None:
    app = by_hand()
    with pytest.raises(KeyError), as_principal(app, scopes="skills:list"):
        raise KeyError
    assert (await call(app)).status_code == 401


def test_the_test_client_and_websockets_work_with_a_lifespan() -> None:
    started = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        started.append(True)
        yield
        started.append(False)

    app = starlette(lifespan=lifespan)
    app.add_middleware(MachPayAuth, routes=ROUTES)
    with as_principal(app, scopes="skills:list"), TestClient(app) as client:
        assert client.get("/v1/skills").json() == "key_test"
        with client.websocket_connect("/v1/live") as websocket:
            assert websocket.receive_text() == "key_test"
    assert started == [True, False]
    with (
        as_principal(app),
        TestClient(app) as client,
        pytest.raises(WebSocketDenialResponse) as refused,
        client.websocket_connect("/v1/live"),
    ):
        pass
    assert refused.value.status_code == 403  # the denial response of the policy


def test_a_client_that_began_before_and_ends_after_keeps_its_gateway() -> None:
    gateway = Gateway(database="memory://", routes=ROUTES)
    app = starlette()
    app.add_middleware(MachPayAuth, gateway=gateway)
    with TestClient(app) as client:
        assert client.get("/v1/skills").status_code == 401
        with as_principal(app, scopes="skills:list"):
            assert client.get("/v1/skills").status_code == 200
            assert gateway.lifecycle.is_open
        assert client.get("/v1/skills").status_code == 401
    assert not gateway.lifecycle.is_open


def test_it_needs_no_server_no_file_and_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "machpay.toml").write_text("""
        database_file = "absent/database"
        redis = "redis://127.0.0.1:1"
        secret_key_file = "absent/secret"
        [[routes]]
        match = "GET /v1/skills"
        scopes = "skills:list"
        [[issuers]]
        issuer = "https://id.example.com"
        audience = "https://api.example.com"
        jwks = "absent/jwks.json"
        algorithms = ["RS256"]
        tier = "standard"
        [oauth]
        issuer = "https://id.example.com"
        [console]
        url = "https://console.example.com"
    """)
    monkeypatch.setenv("MACHPAY_REDIS_FILE", "absent/redis")
    app = starlette()
    app.add_middleware(MachPayAuth)
    with as_principal(app, scopes="skills:list"), TestClient(app) as client:
        assert client.get("/v1/skills").status_code == 200
    with as_principal(app, scopes="account:read"), TestClient(app) as client:
        assert client.get("/v1/skills").status_code == 403
    (tmp_path / "machpay.toml").unlink()


async def test_nothing_is_limited_or_recorded() -> None:
    gateway = Gateway(database="memory://", routes=ROUTES, tiers={"tiny": Tier("1/minute", 1)})
    app = MachPayAuth(starlette(), gateway=gateway)
    with as_principal(app, scopes="skills:list", tier="tiny") as principal:
        assert principal is not None
        assert principal.limits is gateway.policy.tiers["tiny"]
        responses = await asyncio.gather(*(call(app) for _ in range(20)))
    assert {response.status_code for response in responses} == {200}
    assert not gateway.lifecycle.is_open
    gateway.recorder.gather()
    assert gateway.recorder.unstored == 0


async def test_they_nest_and_two_applications_have_one_each() -> None:
    one, two = by_hand(), added()
    with as_principal(one, scopes="skills:list", name="ada"), as_principal(two, scopes="skills:list", name="bob"):
        assert [(await call(app)).json() for app in (one, two)] == ["key_ada", "key_bob"]
        with as_principal(two, scopes="skills:list", name="eve"), as_principal(one, None):
            assert ((await call(one)).status_code, (await call(two)).json()) == (401, "key_eve")
        assert [(await call(app)).json() for app in (one, two)] == ["key_ada", "key_bob"]


@pytest.mark.parametrize("application", [by_hand, added_with_a_gateway, added_by_a_function])
async def test_what_does_not_nest_fails_and_leaves_nothing_behind(application: Callable[[], ASGIApp]) -> None:
    app = application()
    first, second = as_principal(app, scopes="skills:list"), as_principal(app, scopes="skills:list")
    first.start()
    second.start()
    with pytest.raises(RuntimeError, match="end them in reverse order"):
        first.stop()
    second.stop()
    assert (await call(app)).status_code == 401


async def test_beginning_or_ending_twice_is_doing_it_once() -> None:
    app = by_hand()
    override = as_principal(app, scopes="skills:list")
    override.start()
    with override as principal:
        assert principal is override.principal
        assert (await call(app)).status_code == 200
    override.stop()
    assert (await call(app)).status_code == 401


def test_middleware_can_still_be_added_afterwards() -> None:
    app = starlette()
    app.add_middleware(MachPayAuth, routes=ROUTES)
    with as_principal(app, scopes="skills:list"), TestClient(app) as client:
        assert client.get("/v1/skills").status_code == 200
    app.add_middleware(CORSMiddleware, allow_origins=["https://app.test"])
    with as_principal(app, scopes="skills:list"), TestClient(app) as client:
        response = client.get("/v1/skills", headers={"Origin": "https://app.test"})
        assert response.headers["access-control-allow-origin"] == "https://app.test"


def test_a_subclass_with_arguments_of_its_own_is_built_with_them() -> None:
    class Tagged(MachPayAuth):
        def __init__(self, app: ASGIApp, /, *, tag: str, **options: Any) -> None:  # noqa: ANN401 - as above
            super().__init__(app, **options)
            self.tag = tag

    app = starlette()
    app.add_middleware(Tagged, tag="ours", routes=ROUTES)
    with as_principal(app, scopes="skills:list"), TestClient(app) as client:
        assert client.get("/v1/skills").status_code == 200


Reader = Annotated[Principal, Security(current_principal, scopes=["account:read"])]


@pytest.mark.parametrize("scopes, status", [("account:read", 200), ("account:*", 200), ("skills:list", 403), ("", 403)])
async def test_the_scopes_of_a_fastapi_dependency_are_required(scopes: str, status: int) -> None:
    app = FastAPI()
    app.add_middleware(MachPayAuth)

    @app.get("/v1/account")
    async def account(principal: Reader) -> list[str | None]:
        return [principal.owner, principal.account_id, principal.tier]

    with as_principal(app, scopes=scopes, owner="ada", account="acct_1", tier="enterprise"):
        response = await call(app, "/v1/account")
        assert response.status_code == status
        assert status != 200 or response.json() == ["ada", "acct_1", "enterprise"]
    with as_principal(app, None):
        assert (await call(app, "/v1/account")).status_code == 401


async def test_any_principal_can_be_given_and_its_checks_are_real() -> None:
    app = by_hand()
    with as_principal(app, scopes=["skills:list"]) as principal:
        assert principal is not None
    user = replace(principal, kind="oauth", id="user_1", client_id="client_1", claims={"department": "sales"})
    with as_principal(app, user):
        assert (await call(app)).json() == "user_1"
    with as_principal(app, replace(user, expires_at=1.0)):
        assert (await call(app)).status_code == 401


@pytest.mark.parametrize(
    "path, headers, expected",
    [
        ("/healthz", {}, (200, None)),  # a public route has no caller, whoever calls
        ("/v1/skills", {"Authorization": "Bearer junk"}, (200, "key_test")),  # whatever the request carries
        ("/v1/absent", {}, (404, "route_not_found")),
        ("/v1//skills", {}, (400, "malformed_request")),
    ],
)
async def test_routes_are_found_as_ever(path: str, headers: dict[str, str], expected: tuple[int, str | None]) -> None:
    app = MachPayAuth(starlette(), database="memory://", routes=ROUTES, unlisted_routes="deny")
    with as_principal(app, scopes="skills:list"):
        response = await call(app, path, **headers)
    body = response.json()
    assert (response.status_code, body["code"] if isinstance(body, dict) else body) == expected


def forbids_sync(_facts: RequestFacts, _route: Route, principal: Principal) -> Refusal | None:
    return Refusal(Reason.INSUFFICIENT_SCOPE, message="Not for bob.") if principal.name == "bob" else None


async def forbids(facts: RequestFacts, route: Route, principal: Principal) -> Refusal | None:
    return forbids_sync(facts, route, principal)


@pytest.mark.parametrize("check", [forbids_sync, forbids])
@pytest.mark.parametrize("is_added", [True, False])
async def test_the_checks_of_the_application_are_real(check: Any, *, is_added: bool) -> None:  # noqa: ANN401 - sync or async
    app = starlette()
    guarded: ASGIApp = app
    if is_added:
        app.add_middleware(MachPayAuth, routes=ROUTES, checks=[check])
    else:
        guarded = MachPayAuth(app, database="memory://", routes=ROUTES, checks=[check])
    with as_principal(guarded, scopes="skills:list", name="ada"):
        assert (await call(guarded)).status_code == 200
        with as_principal(guarded, scopes="skills:list", name="bob"):
            response = await call(guarded)
            assert (response.status_code, response.json()["detail"]) == (403, "Not for bob.")


@pytest.mark.parametrize("environment, status, tier", [("live", 200, "standard"), ("test", 403, "test")])
async def test_an_environment_that_is_not_served_is_refused(environment: str, status: int, tier: str) -> None:
    app = MachPayAuth(starlette(), database="memory://", routes=ROUTES, environments=["live"])
    with as_principal(app, scopes="skills:list", environment=environment) as principal:
        assert (await call(app)).status_code == status
    assert principal is not None
    assert principal.tier == tier


@pytest.mark.parametrize(
    "options, message",
    [
        ({"scopes": "skills:lst"}, r"Scope 'skills:lst' is not defined; known scopes: .*skills:list.*`scopes`"),
        ({"scopes": ["skills:list", "*"]}, r"'\*': a `\*` may only stand"),
        ({"tier": "gold"}, r"Tier 'gold' is not defined; known tiers: test, standard, enterprise"),
        ({"principal": None, "scopes": "skills:list"}, r"a principal or its scopes, tier and owner, not both"),
    ],
)
def test_what_the_application_does_not_define_is_an_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        as_principal(by_hand(), **options)


def test_scopes_of_the_settings_and_of_routes_are_defined() -> None:
    app = starlette()
    app.add_middleware(MachPayAuth, routes=[Route("GET /v1/skills", scopes="reports:read")], scopes=["reports:write"])
    with as_principal(app, scopes="reports:read reports:write reports:*") as principal:
        assert principal is not None
        assert str(principal.scopes) == "reports:* reports:read reports:write"


def test_an_application_without_the_middleware_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"No MachPayAuth guards this Starlette: add it by app.add_middleware"):
        as_principal(starlette())


async def test_wrong_settings_are_an_error_before_the_middleware_is_built_and_after() -> None:
    app = starlette()
    app.add_middleware(MachPayAuth, redis_prefix="")
    with pytest.raises(ConfigurationError, match="redis_prefix"):
        as_principal(app)
    broken = MachPayAuth(starlette(), redis_prefix="")  # its start would fail
    with pytest.raises(ConfigurationError, match="redis_prefix"):
        as_principal(broken)
