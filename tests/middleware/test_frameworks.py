"""The same middleware around the frameworks people use: let in, refused, and seen by the application."""

import asyncio
from collections.abc import Callable

import django
import pytest
from django.conf import settings as django_settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from fastapi import FastAPI, Request
from litestar import Litestar, get
from litestar.connection import Request as LitestarRequest
from litestar.datastructures import State
from quart import Quart
from quart import request as quart_request
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Route as Endpoint
from starlette.types import ASGIApp, Message

from machpay_gateway import MachPayAuth
from tests.gateways import Guarded, Shared, guarded
from tests.servers import exchange, serving


def starlette() -> ASGIApp:
    async def skills(request: StarletteRequest) -> PlainTextResponse:
        return PlainTextResponse(request.scope["machpay"].id)

    return Starlette(routes=[Endpoint("/v1/skills", skills)])


def fastapi() -> ASGIApp:
    app = FastAPI()

    @app.get("/v1/skills")
    async def skills(request: Request) -> str:
        return str(request.scope["machpay"].id)

    return app


def litestar() -> ASGIApp:
    @get("/v1/skills", sync_to_thread=False)
    def skills(request: LitestarRequest[object, object, State]) -> str:
        return str(request.scope["machpay"].id)  # type: ignore[typeddict-item]  # our own addition to the scope

    return Litestar([skills], openapi_config=None, logging_config=None)  # type: ignore[return-value]  # its own names for ASGI's types


def quart() -> ASGIApp:
    app = Quart(__name__)

    @app.get("/v1/skills")
    async def skills() -> str:
        return str(quart_request.scope["machpay"].id)  # type: ignore[typeddict-item]  # our own addition to the scope

    return app  # type: ignore[return-value]  # its own names for ASGI's types


async def _django_skills(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.scope["machpay"].id)


urlpatterns = [path("v1/skills", _django_skills)]


def django_asgi() -> ASGIApp:
    if not django_settings.configured:
        django_settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="for a test")
        django.setup()
    application: ASGIApp = get_asgi_application()
    return application


FRAMEWORKS = [starlette, fastapi, litestar, quart, django_asgi]


@pytest.fixture
async def api(framework: Callable[[], ASGIApp], shared: Shared[Guarded]) -> Guarded:
    """An application of the framework, guarded; the module shares it, and each test has a key of its own."""
    return await shared.part(framework.__name__, lambda: guarded(framework()))


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_the_caller_reaches_the_application_and_nobody_else_does(api: Guarded) -> None:
    key_id, secret = await api.key()
    allowed = await api.client(secret).get("/v1/skills")
    assert (allowed.status_code, key_id in allowed.text) == (200, True)
    assert "ratelimit" in allowed.headers
    assert (await api.client().get("/v1/skills")).status_code == 401


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_it_starts_and_stops_on_a_real_server(framework: Callable[[], ASGIApp]) -> None:
    async def made() -> tuple[Guarded, str]:
        async with guarded(framework()) as api:
            return api, (await api.key())[1]

    api, secret = asyncio.run(made())
    with serving(api.app) as address:
        assert api.gateway.lifecycle.is_open
        request = f"GET /v1/skills HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {secret}\r\n\r\n"
        assert exchange(address, request.encode()).startswith(b"HTTP/1.1 200")
    assert not api.gateway.lifecycle.is_open


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("method", ["GET", "get", "HEAD", "POST", "OPTIONS", "PUT"])
@pytest.mark.parametrize(
    "root, path",
    [
        ("/api", "/api/v1/skills"),
        ("/api", "v1/skills"),  # a target without its slash, which some servers pass on
        ("/api", "/x/api/v1/skills"),  # Litestar takes the mount off wherever it stands
        ("/api", "/apiv1/skills"),  # Quart takes it off as text
        ("/api", "/v1/skills"),
        ("", "/v1/skills"),
        ("", "/v1/skills/"),
        ("", "//v1/skills"),
        ("", "/v1/./skills"),
        ("", "/v1/skills;x"),
    ],
)
async def test_no_other_spelling_reaches_a_guarded_route(api: Guarded, method: str, root: str, path: str) -> None:
    key_id, secret = await api.key(scopes=["account:read"])
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "server": ("api.test", 80),
        "client": ("192.0.2.1", 50000),
        "method": method,
        "root_path": root,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"api.test"), (b"authorization", f"Bearer {secret}".encode())],
    }
    sent: list[Message] = []

    unread: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if not unread:
            await asyncio.Event().wait()  # a client that stays
        return unread.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    await api.app(scope, receive, send)
    assert key_id.encode() not in b"".join(message.get("body", b"") for message in sent)
    assert sent[0]["status"] >= 400 or path == "/v1/skills/" or method == "OPTIONS"


def test_starlettes_add_middleware_works() -> None:
    app = starlette()
    assert isinstance(app, Starlette)
    app.add_middleware(MachPayAuth, database="memory://")
    with serving(app) as address:
        answer = exchange(address, b"GET /v1/skills HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401")
