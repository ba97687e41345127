"""The Console and the application are served on different hosts by one ASGI application."""

from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from machpay_gateway import Route
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.server import create_app
from machpay_gateway.settings.console import ConsoleSettings
from machpay_gateway.web.browser import Cookie, random_value

CONSOLE, ISSUER, API, PROXY = "console.example.com", "auth.example.com", "api.example.com", "10.0.0.1"
PREFLIGHT = [("origin", "https://app.example"), ("access-control-request-method", "POST")]


class Application:
    """An application that records the cookies it receives, and sets some."""

    def __init__(self) -> None:
        self.seen: list[list[bytes]] = []
        self.sets: list[tuple[bytes, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        self.seen.append([value for name, value in scope["headers"] if name == b"cookie"])
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept", "headers": iter(self.sets)})
            return
        await send({"type": "http.response.start", "status": 200, "headers": iter(self.sets)})
        await send({"type": "http.response.body", "body": b"from the application"})


class Served:
    """The whole of it."""

    def __init__(self, application: Application, app: Any) -> None:  # noqa: ANN401 - an ASGI application
        self.application = application
        self._app = app

    async def ask(
        self,
        path: str,
        *headers: tuple[str, str],
        method: str = "GET",
        kind: str = "http",
        peer: str = "192.0.2.1",
        root_path: str = "",
    ) -> list[Message]:
        """Return what is sent for a request."""
        sent: list[Message] = []
        received = {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request", "body": b""}
        scope: dict[str, Any] = {
            "type": kind, "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers], "client": (peer, 1),
            "scheme": "https", "root_path": root_path, "extensions": {}, "subprotocols": [],
        }  # fmt: skip

        async def receive() -> Message:
            return received

        async def send(message: Message) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        return sent


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    application = Application()
    app = create_app(
        application,
        database="sqlite://",
        routes=[Route("* /public", public=True), Route("GET /v1/skills", scopes="skills:list")],
        console=ConsoleSettings(f"https://{CONSOLE}", f"https://{API}"),
        oauth=OAuthSettings(f"https://{ISSUER}", audience=f"https://{API}"),
        trusted_proxies=[PROXY],
    )
    async with app.gateway as gateway:
        await gateway.lifecycle.serve()
        yield Served(application, app)


@pytest.mark.parametrize(
    "method, path, headers, peer, status",
    [
        ("GET", "/console/sign-in", [("host", CONSOLE)], "", 200),
        ("GET", "/console/sign-in", [("host", API)], "", 404),
        ("GET", "/console/sign-in", [("host", ISSUER)], "", 404),
        ("GET", "/console/sign-in", [("host", f"{CONSOLE}:80")], "", 404),
        ("GET", "/console/sign-in", [], "", 404),
        ("GET", "/console/sign-in", [("host", CONSOLE), ("host", API)], "", 404),
        ("OPTIONS", "/console/sign-in", [("host", API), *PREFLIGHT], "", 404),
        ("GET", "/oauth/authorize", [("host", ISSUER)], "", 400),  # a page that says what is missing
        ("GET", "/oauth/authorize", [("host", API)], "", 404),
        ("POST", "/oauth/token", [("host", API)], "", 400),
        ("GET", "/v1/keys", [("host", CONSOLE)], "", 401),
        ("GET", "/.well-known/jwks.json", [("host", CONSOLE)], "", 200),
        ("GET", "/public", [("host", API)], "", 200),
        ("GET", "/public", [], "", 200),
        ("GET", "/public", [("host", CONSOLE)], "", 404),
        ("HEAD", "/public", [("host", f"{ISSUER}.:99")], "", 404),
        ("GET", "/public", [("host", API), ("host", CONSOLE)], "", 404),
        ("OPTIONS", "/public", [("host", CONSOLE), *PREFLIGHT], "", 404),
        ("GET", "/v1/skills", [("host", CONSOLE)], "", 404),
        ("GET", "/unlisted", [("host", CONSOLE)], "", 404),
        ("GET", "/public", [("host", API), ("x-forwarded-host", CONSOLE)], "", 200),  # a stranger's word
        ("GET", "/public", [("host", API), ("x-forwarded-host", CONSOLE)], PROXY, 404),
        ("GET", "/public", [("host", CONSOLE), ("x-forwarded-host", API)], PROXY, 404),
        ("GET", "/console/sign-in", [("host", "gateway"), ("x-forwarded-host", CONSOLE)], PROXY, 200),
        ("GET", "/console/sign-in", [("host", CONSOLE), ("x-forwarded-host", API)], PROXY, 404),
    ],
)
async def test_pages_and_the_application_are_answered_on_hosts_of_their_own(
    served: Served, *, method: str, path: str, headers: list[tuple[str, str]], peer: str, status: int
) -> None:
    start, *_ = await served.ask(path, *headers, method=method, peer=peer or "192.0.2.1")
    assert start["status"] == status
    assert bool(served.application.seen) is (path == "/public" and status == 200)


@pytest.mark.parametrize(
    "path, host, is_open", [("/public", API, True), ("/public", CONSOLE, False), ("/console/ws", API, False)]
)
async def test_websockets_are_accepted_on_the_applications_host_only(
    served: Served, path: str, host: str, *, is_open: bool
) -> None:
    sent = await served.ask(path, ("host", host), kind="websocket")
    assert [message["type"] for message in sent] == ["websocket.accept" if is_open else "websocket.close"]
    assert bool(served.application.seen) is is_open


async def test_pages_below_a_mount_are_served_on_their_host_only(served: Served) -> None:
    path = "/mounted/console/sign-in"
    statuses = [(await served.ask(path, ("host", host), root_path="/mounted"))[0]["status"] for host in (CONSOLE, API)]
    assert statuses == [200, 404]


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_the_application_sees_and_sets_no_cookie_of_ours(served: Served, kind: str) -> None:
    served.application.sets = [
        (b"set-cookie", b"a=1"), (b"Set-Cookie", b"__Host-machpay-session=x"), (b"set-cookie", b" =machpay-form=x"),
        (b"x-app", b"1"),
    ]  # fmt: skip
    cookies = [("cookie", "a=1; __Host-machpay-session=x; b=2"), ("cookie", "machpay-form=y"), ("cookie", "c=3")]
    start, *_ = await served.ask("/public", ("host", API), *cookies, kind=kind)
    assert served.application.seen == [[b"a=1; b=2", b"c=3"]]
    assert [value for name, value in start["headers"] if name.lower() in {b"set-cookie", b"x-app"}] == [b"a=1", b"1"]


async def test_the_consoles_own_cookies_are_set(served: Served) -> None:
    start, *_ = await served.ask("/console/sign-in", ("host", CONSOLE))
    (cookie,) = [value.decode() for name, value in start["headers"] if name == b"set-cookie"]
    assert "__Host-machpay-form" in SimpleCookie(cookie)


@pytest.mark.parametrize("before", ["\xa0", "\x85", "\xe2\x80\x80", '"', "=", " ="])
def test_a_cookie_under_another_name_is_not_read_as_ours(before: str) -> None:
    # A prefix keeps other hosts from setting `__Host-…`; a parser that strips more than browsers do would undo that.
    session, good = Cookie.of("session", is_secure=True), random_value()
    for value, expected in (
        (f"{before}__Host-machpay-session={good}", ""),
        (f"a=1;  __Host-machpay-session={good} ", good),
    ):
        scope = {"type": "http", "headers": [(b"cookie", value.encode("latin-1"))]}
        assert session.read(Request(scope)) == expected
