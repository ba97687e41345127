"""CORS of the middleware: preflights, the responses of the application, and refusals."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx2 import ASGITransport, AsyncClient, Response
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route as Endpoint
from starlette.types import Receive, Scope, Send

from machpay_gateway import MachPayAuth, Route, Tier
from machpay_gateway.core.keys.key import mint_secret
from machpay_gateway.core.network.cors import CorsSettings
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.server import create_app
from machpay_gateway.settings import load_settings
from machpay_gateway.settings.console import ConsoleSettings
from tests.gateways import Guarded, guarded

APP, OTHER = "https://app.example.com", "https://other.example"
RULES = [
    Route("* /v1/{rest:path}", scopes="skills:execute"),
    Route("GET /open", public=True, cors={"origins": ["*"]}),
    Route("GET /closed", public=True, cors={"origins": []}),
    Route("GET /nothing", scopes="skills:list"),
]
CORS = {"origins": [APP]}
PREFLIGHT = {"Origin": APP, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}


async def application(scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer with headers of CORS of one's own, and a Vary."""
    headers = [
        (b"Access-Control-Allow-Origin", b"https://of-the-application.example"),
        (b"access-control-allow-credentials", b"true"),
        (b"Vary", b"Accept-Encoding"),
        (b"x-app", scope["method"].encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module")
async def api() -> AsyncIterator[Guarded]:
    tiers = {"small": Tier("1/minute", 1)}
    async with guarded(application, routes=RULES, cors=CORS, tiers=tiers) as it:
        yield it


def cors_of(answer: Response) -> dict[str, list[str]]:
    """Return the headers of CORS and Vary, each with all its values."""
    names = {name for name in answer.headers if name.startswith("access-control-") or name == "vary"}
    return {name: answer.headers.get_list(name) for name in names}


async def test_a_script_of_an_allowed_origin_reads_the_response(api: Guarded) -> None:
    _, secret = await api.key()
    answer = await api.client(secret).get("/v1/x", headers={"Origin": APP})
    fields = cors_of(answer)
    exposed = fields.pop("access-control-expose-headers")
    assert (answer.status_code, fields) == (
        200,
        {"access-control-allow-origin": [APP], "vary": ["Accept-Encoding, Origin"]},
    )
    assert len(exposed) == 1
    assert exposed[0].startswith("RateLimit, RateLimit-Policy, Retry-After, X-Request-Id, WWW-Authenticate")


@pytest.mark.parametrize("headers", [{}, {"Origin": OTHER}, {"Origin": "null"}])
async def test_another_origin_is_served_as_ever_without_headers(api: Guarded, headers: dict[str, str]) -> None:
    _, secret = await api.key()
    answer = await api.client(secret).get("/v1/x", headers=headers)
    assert (answer.status_code, answer.text, cors_of(answer)) == (200, "ok", {"vary": ["Accept-Encoding, Origin"]})


async def test_refusals_can_be_read(api: Guarded) -> None:
    _, secret = await api.key()
    _, small = await api.key(tier="small")
    assert (await api.client(small).get("/v1/x")).status_code == 200
    for caller, path, status, readable in (
        (None, "/v1/x", 401, "www-authenticate"),
        (mint_secret("live", bytes(32)), "/v1/x", 401, "www-authenticate"),
        ((await api.key(scopes=["account:read"]))[1], "/v1/x", 403, "www-authenticate"),
        (small, "/v1/x", 429, "retry-after"),
        (secret, "/v1//x", 400, "x-request-id"),
    ):
        answer = await api.client(caller).get(path, headers={"Origin": APP})
        fields = cors_of(answer)
        assert (answer.status_code, fields["access-control-allow-origin"]) == (status, [APP])
        assert fields["vary"] == ["Origin"]
        assert readable in fields["access-control-expose-headers"][0].lower()
        assert answer.headers[readable]


async def test_a_preflight_is_answered_before_the_application_and_takes_nothing(api: Guarded) -> None:
    _, secret = await api.key()
    before = (await api.client(secret).get("/v1/x")).headers["ratelimit"].split(";")[1]
    for _ in range(3):
        answer = await api.client().options("/v1/x", headers=PREFLIGHT)
        assert (answer.status_code, "x-app" in answer.headers, answer.content) == (204, False, b"")
        assert cors_of(answer) == {
            "access-control-allow-origin": [APP],
            "access-control-allow-methods": ["GET, HEAD, POST, PUT, PATCH, DELETE"],
            "access-control-allow-headers": ["authorization"],
            "access-control-max-age": ["600"],
            "vary": ["Origin, Access-Control-Request-Method, Access-Control-Request-Headers"],
        }
        assert answer.headers["x-request-id"]
    after = (await api.client(secret).get("/v1/x")).headers["ratelimit"].split(";")[1]
    assert int(before[2:]) - int(after[2:]) == 1


async def test_a_preflight_is_an_outcome_of_its_own() -> None:
    async with guarded(application, routes=RULES, cors=CORS) as api:
        await api.client().options("/v1/x", headers=PREFLIGHT)
        await api.client().options("/nowhere", headers=PREFLIGHT)
        await api.gateway.recorder.close()
        counted = [name for name in api.gateway.recorder.requests.counts if "preflight" in str(name)]
    assert len(counted) == 2


@pytest.mark.parametrize(
    "headers, status, allowed",
    [
        ({"Origin": OTHER}, 204, None),
        ({"Access-Control-Request-Method": "TRACE"}, 204, APP),  # the browser compares the methods
        ({"Access-Control-Request-Private-Network": "true"}, 204, APP),
        ({"Authorization": "Bearer x"}, 401, APP),  # no preflight has a credential
        ({"Access-Control-Request-Method": "get"}, 401, APP),
        ({"Content-Length": "2"}, 401, APP),
    ],
)
async def test_what_is_no_preflight_is_a_request(
    api: Guarded, headers: dict[str, str], status: int, allowed: str | None
) -> None:
    answer = await api.client().options("/v1/x", headers=PREFLIGHT | headers)
    assert (answer.status_code, answer.headers.get("access-control-allow-origin")) == (status, allowed)
    assert "access-control-allow-private-network" not in answer.headers


async def test_a_route_replaces_the_general_settings(api: Guarded) -> None:
    client = api.client()
    answer = await client.get("/open", headers={"Origin": OTHER})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["vary"] == "Accept-Encoding"
    answer = await client.get("/closed", headers={"Origin": APP})  # where CORS is off, the application has its own
    assert answer.headers["access-control-allow-origin"] == "https://of-the-application.example"
    assert answer.headers["vary"] == "Accept-Encoding"
    closed = await client.options("/closed", headers=PREFLIGHT)
    assert (closed.status_code, closed.headers["x-app"]) == (200, "OPTIONS")
    opened = await client.options("/open", headers=PREFLIGHT | {"Origin": OTHER})
    assert (opened.status_code, opened.headers["access-control-allow-origin"]) == (204, "*")


async def test_a_single_route_may_have_cors_alone() -> None:
    rules = [Route("GET /a", scopes="skills:list", cors={"origins": [APP]}), Route("GET /b", scopes="skills:list")]
    async with guarded(application, routes=rules) as api:
        answers = [await api.client().get(path, headers={"Origin": APP}) for path in ("/a", "/b")]
    assert [cors_of(answer).get("access-control-allow-origin") for answer in answers] == [[APP], None]
    assert [answer.status_code for answer in answers] == [401, 401]


async def test_off_is_the_middleware_as_it_was() -> None:
    async with guarded(application, routes=RULES[:1]) as api:
        assert api.app._detour is None  # noqa: SLF001 - it costs nothing
        _, secret = await api.key()
        answer = await api.client(secret).get("/v1/x", headers={"Origin": APP})
        assert answer.headers["access-control-allow-origin"] == "https://of-the-application.example"
        answer = await api.client().get("/v1/x", headers={"Origin": APP})
        assert (answer.status_code, cors_of(answer)) == (401, {})


def _starlette(*middleware: Middleware) -> Starlette:
    async def hello(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    return Starlette(routes=[Endpoint("/v1/x", hello)], middleware=list(middleware))


@pytest.mark.parametrize("is_outside", [True, False])
@pytest.mark.parametrize("cors", [None, CORS])
async def test_starlettes_middleware_keeps_working(is_outside: bool, cors: Any) -> None:  # noqa: ANN401, FBT001 - a row
    options: dict[str, Any] = {
        "allow_origins": [APP], "allow_headers": ["Authorization"], "expose_headers": ["Retry-After"]
    }  # fmt: skip
    theirs = Middleware(CORSMiddleware, **options)
    async with guarded(application, routes=RULES[:1], cors=cors) as made:
        ours = Middleware(MachPayAuth, gateway=made.gateway)
        app = _starlette(*((theirs, ours) if is_outside else (ours, theirs)))
        _, secret = await made.key()
        client = AsyncClient(transport=ASGITransport(app=app), base_url="http://api.test")
        answer = await client.get("/v1/x", headers={"Origin": APP, "Authorization": f"Bearer {secret}"})
        assert (answer.status_code, answer.headers.get_list("access-control-allow-origin")) == (200, [APP])
        assert len(answer.headers.get_list("access-control-expose-headers")) == 1
        preflight = await client.options("/v1/x", headers=PREFLIGHT)
        assert preflight.status_code in {200, 204}
        assert preflight.headers.get_list("access-control-allow-origin") == [APP]
        refused = await client.get("/v1/x", headers={"Origin": APP})
        expected = [APP] if is_outside or cors else []
        assert (refused.status_code, refused.headers.get_list("access-control-allow-origin")) == (401, expected)


async def test_an_unhandled_exception_can_be_read() -> None:
    async def fail(_request: Request) -> PlainTextResponse:
        raise RuntimeError("of the application")

    async with guarded(application, routes=RULES[:1], cors=CORS) as made:
        ours = Middleware(MachPayAuth, gateway=made.gateway)
        app = Starlette(routes=[Endpoint("/v1/x", fail)], middleware=[ours])
        _, secret = await made.key()
        transport = ASGITransport(app=app, raise_app_exceptions=False)
        client = AsyncClient(transport=transport, base_url="http://api.test")
        answer = await client.get("/v1/x", headers={"Origin": APP, "Authorization": f"Bearer {secret}"})
    assert (answer.status_code, answer.headers.get_list("access-control-allow-origin")) == (500, [APP])
    assert (answer.headers.get_list("vary"), len(answer.headers.get_list("x-request-id"))) == (["Origin"], 1)


ISSUER, CONSOLE = "https://auth.example.com", "https://console.example.com"


@pytest.fixture(scope="module")
async def own() -> AsyncIterator[Guarded]:
    app = create_app(
        application,
        database="memory://",
        cors=CORS,
        oauth=OAuthSettings(ISSUER, audience="https://api.example.com"),
        console=ConsoleSettings(CONSOLE, "https://api.example.com"),
    )
    async with app.gateway as gateway:
        yield Guarded(app, gateway)


async def test_the_key_api_has_the_general_settings(own: Guarded) -> None:
    _, secret = await own.key(scopes=["keys:manage"])
    for caller, path, status in ((secret, "/v1/whoami", 200), (None, "/v1/keys", 401), (secret, "/v1/keys/key_x", 404)):
        answer = await own.client(caller).get(path, headers={"Origin": APP})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, APP)
        answer = await own.client(caller).get(path, headers={"Origin": OTHER})
        assert "access-control-allow-origin" not in answer.headers
    preflight = await own.client().options("/v1/whoami", headers=PREFLIGHT)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, APP)


@pytest.mark.parametrize(
    "path, origin",
    [
        ("/oauth/token", "*"),  # apps of other parties call them from browsers
        ("/oauth/revoke", "*"),
        ("/.well-known/oauth-authorization-server", "*"),
        ("/.well-known/jwks.json", "*"),
        ("/oauth/introspect", APP),
        ("/oauth/authorize", None),
        ("/oauth/consent", None),
        ("/console/keys", None),
    ],
)
async def test_endpoints_of_oauth_are_open_and_pages_closed(own: Guarded, path: str, origin: str | None) -> None:
    host = CONSOLE if path.startswith("/console") else ISSUER
    transport = ASGITransport(app=own.app, client=("192.0.2.1", 5))
    async with AsyncClient(transport=transport, base_url=host) as client:
        answer = await client.post(path, headers={"Origin": APP})
        assert answer.headers.get_list("access-control-allow-origin") == ([] if origin is None else [origin])
        if origin is not None:
            assert "Retry-After" in answer.headers["access-control-expose-headers"]
        headers = PREFLIGHT | {"Access-Control-Request-Method": "POST"}
        preflight = await client.options(path, headers=headers)
        assert preflight.headers.get("access-control-allow-origin") == origin
        assert (preflight.status_code == 204) is (origin is not None)


def test_the_settings_are_the_same_from_each_source(tmp_path: Any) -> None:  # noqa: ANN401 - a path
    file = tmp_path / "machpay.toml"
    file.write_text(
        '[cors]\norigins = ["https://a.example", "https://b.example"]\nmethods = ["GET"]\n'
        'max_age_seconds = 5\nallow_credentials = true\n[[routes]]\nmatch = "GET /a"\ncors = { origins = ["*"] }\n'
    )
    environ = {
        "MACHPAY_CONFIG": "/dev/null",
        "MACHPAY_CORS__ORIGINS": "https://a.example,https://b.example",
        "MACHPAY_CORS__METHODS": "GET",
        "MACHPAY_CORS__MAX_AGE_SECONDS": "5",
        "MACHPAY_CORS__ALLOW_CREDENTIALS": "true",
    }
    expected = CorsSettings(
        ["https://a.example", "https://b.example"], methods=["GET"], max_age_seconds=5, allow_credentials=True
    )
    by_file = load_settings({"config": file}, {})
    assert by_file.cors == load_settings({}, environ).cors == expected
    assert load_settings({"config": "/dev/null", "cors": expected}, {}).cors == expected
    assert by_file.routes[0].cors == CorsSettings(["*"])
