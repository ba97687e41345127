"""The response to an unhandled exception has the gateway's headers, and the exception goes where it went before."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient, Response
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount
from starlette.routing import Route as Endpoint
from starlette.types import ASGIApp, Receive, Scope, Send

from machpay_gateway import Gateway, MachPayAuth, Route
from machpay_gateway.testing import create_key
from tests.servers import exchange, serving
from tests.versions import raises_as_ever


class BrokenError(Exception):
    """Raised by the application."""


async def broken(request: Request) -> Response:
    raise BrokenError(request.url.path)


async def streams(_: Request) -> StreamingResponse:
    async def body() -> Any:  # noqa: ANN401 - chunks
        yield b"begun"
        raise BrokenError

    return StreamingResponse(body())


async def background(_: Request) -> PlainTextResponse:
    async def fail() -> None:
        raise BrokenError

    return PlainTextResponse("ok", background=BackgroundTask(fail))


ENDPOINTS = [
    Endpoint("/broken", broken),
    Endpoint("/public", broken),
    Endpoint("/streams", streams),
    Endpoint("/background", background),
]


@pytest.fixture(scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway(database="memory://", routes=[Route("GET /public", public=True)]) as opened:
        yield opened


@pytest.fixture(scope="module")
async def bearer(gateway: Gateway) -> dict[str, str]:
    return {"Authorization": f"Bearer {await create_key(gateway)}"}


async def call(app: ASGIApp, path: str, headers: dict[str, str] | None = None, *, raises: bool = False) -> Response:
    transport = ASGITransport(app=app, raise_app_exceptions=raises)
    async with AsyncClient(transport=transport, base_url="http://api.test", headers=headers) as client:
        return await client.get(path)


calls: list[str] = []


async def handler(request: Request, error: Exception) -> JSONResponse:
    calls.append(f"{request.url.path} {error}")
    return JSONResponse({"handled": str(error)}, 503)


def sync_handler(request: Request, error: Exception) -> JSONResponse:
    calls.append(f"{request.url.path} {error}")
    return JSONResponse({"handled": str(error)}, 503)


SHARED = JSONResponse({"handled": "/broken"}, 503)


async def handler_with_one_response(request: Request, error: Exception) -> JSONResponse:
    calls.append(f"{request.url.path} {error}")
    return SHARED


class Handler:
    async def __call__(self, request: Request, error: Exception) -> JSONResponse:
        """Respond."""
        return await handler(request, error)


class PassesOn(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Any:  # noqa: ANN401 - Starlette's
        """Do nothing."""
        return await call_next(request)


def starlette(gateway: Gateway, **options: Any) -> Starlette:  # noqa: ANN401 - any option
    app = Starlette(routes=ENDPOINTS, **options)
    app.add_middleware(MachPayAuth, gateway=gateway)
    return app


def fastapi(gateway: Gateway) -> FastAPI:
    app = FastAPI(routes=list(ENDPOINTS))
    app.add_middleware(MachPayAuth, gateway=gateway)
    return app


def behind_others(gateway: Gateway) -> Starlette:
    app = starlette(gateway)
    app.add_middleware(PassesOn)
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    return app


def instrumented(gateway: Gateway) -> Starlette:
    """Return an application whose whole stack is wrapped, as instrumentation does it."""
    app = starlette(gateway)
    app.middleware_stack = CORSMiddleware(app.build_middleware_stack())
    return app


def mounted(gateway: Gateway) -> Starlette:
    return Starlette(routes=[Mount("/", starlette(gateway))])


def on_a_mount(gateway: Gateway) -> Starlette:
    return Starlette(routes=[Mount("/", routes=ENDPOINTS, middleware=[Middleware(MachPayAuth, gateway=gateway)])])


def outermost(gateway: Gateway) -> ASGIApp:
    return MachPayAuth(Starlette(routes=ENDPOINTS), gateway=gateway)


def both(gateway: Gateway) -> ASGIApp:
    return MachPayAuth(fastapi(gateway), gateway=gateway)


def assert_has_headers(response: Response, *, once: bool = True) -> None:
    names = [name.lower() for name, _ in response.headers.multi_items()]
    for name in ("x-request-id", "ratelimit", "ratelimit-policy"):
        assert names.count(name) == 1 or (names.count(name) and not once), (name, names)
    assert response.headers.get_list("content-type")[1:] == []


@pytest.mark.parametrize(
    "application", [starlette, fastapi, behind_others, instrumented, mounted, on_a_mount, outermost, both]
)
async def test_the_default_response_has_the_headers(
    gateway: Gateway, bearer: dict[str, str], application: Callable[[Gateway], ASGIApp]
) -> None:
    app = application(gateway)
    ids = set()
    for _ in range(2):  # what is set up by the first exception is not set up again
        response = await call(app, "/broken", bearer)
        assert (response.status_code, response.text) == (500, "Internal Server Error")
        assert_has_headers(response, once=application is not both)
        ids.add(response.headers["x-request-id"])
    assert len(ids) == 2
    public = await call(app, "/public")
    assert (public.status_code, "x-request-id" in public.headers, "ratelimit" in public.headers) == (500, True, False)


@pytest.mark.parametrize("key", [Exception, 500])
@pytest.mark.parametrize("handle", [handler, sync_handler, handler_with_one_response, Handler()])
async def test_the_applications_handler_is_called_once_and_its_response_has_the_headers(
    gateway: Gateway,
    bearer: dict[str, str],
    key: Any,  # noqa: ANN401 - as Starlette takes them
    handle: Any,  # noqa: ANN401 - as above
) -> None:
    app = starlette(gateway, exception_handlers={key: handle})
    for _ in range(2):
        calls.clear()
        response = await call(app, "/broken", bearer)
        assert (response.status_code, response.json()) == (503, {"handled": "/broken"})
        assert_has_headers(response)
        assert calls == ["/broken /broken"]


async def test_the_debug_page_has_the_headers(gateway: Gateway, bearer: dict[str, str]) -> None:
    app = starlette(gateway, debug=True)
    response = await call(app, "/broken", bearer)
    assert (response.status_code, "BrokenError" in response.text) == (500, True)
    assert_has_headers(response)


@pytest.mark.parametrize("application", [starlette, fastapi, behind_others, on_a_mount])
@pytest.mark.parametrize(
    "path",
    ["/broken", pytest.param("/streams", marks=raises_as_ever), pytest.param("/background", marks=raises_as_ever)],
)
async def test_the_exception_is_raised_as_ever(
    gateway: Gateway, bearer: dict[str, str], application: Callable[[Gateway], ASGIApp], path: str
) -> None:
    with pytest.raises(BrokenError):
        await call(application(gateway), path, bearer, raises=True)


@pytest.mark.parametrize("path, status", [("/streams", b"200"), ("/background", b"200"), ("/broken", b"500")])
def test_on_a_server_there_is_one_response(path: str, status: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    gateway = Gateway(database="memory://")
    secret = asyncio.run(create_key(gateway))
    with serving(starlette(gateway)) as address:
        fields = f"Host: a\r\nConnection: close\r\nAuthorization: Bearer {secret}"
        response = exchange(address, f"GET {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode())
    assert response.startswith(b"HTTP/1.1 " + status)
    assert (response.count(b"HTTP/1.1"), response.count(b"x-request-id"), response.count(b"ratelimit:")) == (1, 1, 1)
    assert capsys.readouterr().err.count("ERROR:") == 1  # the server's, with the traceback


@pytest.mark.parametrize("path", ["/broken", "/public"])
async def test_an_application_without_starlette_raises_it_to_its_server(
    gateway: Gateway, bearer: dict[str, str], path: str
) -> None:
    async def bare(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise BrokenError

    with pytest.raises(BrokenError):
        await call(MachPayAuth(bare, gateway=gateway), path, bearer, raises=True)


async def test_what_the_application_handles_has_the_headers_once(gateway: Gateway, bearer: dict[str, str]) -> None:
    app = starlette(gateway, exception_handlers={BrokenError: handler})
    response = await call(app, "/broken", bearer)
    assert response.status_code == 503
    assert_has_headers(response)
