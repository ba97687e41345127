"""What passes: who the application sees, and what is added to its answers."""

from collections.abc import AsyncIterator
from copy import deepcopy
from typing import Any

import http_sf
import pytest
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount
from starlette.routing import Route as Endpoint

from machpay_gateway import MachPayAuth, Principal, Route
from tests.applications import ok
from tests.gateways import Guarded, guarded


@pytest.fixture
async def api() -> AsyncIterator[Guarded]:
    async with guarded(ok) as it:
        yield it


def listed(field: str) -> list[tuple[str, dict[str, Any]]]:
    """Return a Structured Fields list as names with their parameters."""
    items: Any = http_sf.parse(field.encode(), tltype="list")
    return [(str(name), dict(parameters)) for name, parameters in items]


async def test_quota_fields_are_structured_fields_with_the_tier_in_them(api: Guarded) -> None:
    _, secret = await api.key(tier="enterprise")
    headers = (await api.client(secret).get("/v1/skills")).headers
    assert listed(headers["ratelimit-policy"]) == [
        ("minute", {"q": 10_000, "w": 60}),
        ("concurrency", {"q": 500, "qu": "concurrent-requests"}),
    ]
    (minute, window), (concurrency, slots) = listed(headers["ratelimit"])
    assert (minute, window["r"], concurrency, slots["r"]) == ("minute", 9_999, "concurrency", 499)
    assert 1 <= window["t"] <= 61


async def test_the_applications_own_headers_are_unchanged(api: Guarded) -> None:
    _, secret = await api.key()
    answer = await api.client(secret).get("/v1/skills")
    assert answer.headers.get_list("x-app") == ["1", "2"]
    assert len(answer.headers.get_list("ratelimit")) == 1


async def test_legacy_headers_are_optional() -> None:
    async with guarded(ok, legacy_headers=True) as api:
        _, secret = await api.key()
        headers = (await api.client(secret).get("/v1/skills")).headers
        assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == ("1000", "999")
        assert 1 <= int(headers["x-ratelimit-reset"]) <= 61


async def test_a_public_response_has_an_id_and_no_quota(api: Guarded) -> None:
    headers = (await api.client().get("/healthz")).headers
    assert "x-request-id" in headers
    assert "ratelimit" not in headers


async def test_a_request_id_is_taken_from_a_trusted_peer_only() -> None:
    async with guarded(ok, trusted_proxies=["10.0.0.0/8"]) as api:
        given = {"X-Request-Id": "from-the-edge-1"}
        trusted = await api.client(address="10.0.0.1").get("/healthz", headers=given)
        stranger = await api.client(address="192.0.2.1").get("/healthz", headers=given)
        assert trusted.headers["x-request-id"] == "from-the-edge-1"
        assert stranger.headers["x-request-id"] != "from-the-edge-1"


async def test_the_address_behind_a_trusted_proxy_is_the_clients() -> None:
    async with guarded(ok, trusted_proxies=["10.0.0.0/8"]) as api:
        _, secret = await api.key(allowed_ips=["203.0.113.10"])
        behind = {"X-Forwarded-For": "203.0.113.10, 10.0.0.9"}
        forged = {"X-Forwarded-For": "203.0.113.10, 198.51.100.1"}
        assert (await api.client(secret, address="10.0.0.1").get("/v1/skills", headers=behind)).status_code == 200
        assert (await api.client(secret, address="10.0.0.1").get("/v1/skills", headers=forged)).status_code == 403
        assert (await api.client(secret, address="192.0.2.1").get("/v1/skills", headers=behind)).status_code == 403


async def whoami(request: Request) -> JSONResponse:
    principal: Principal | None = request.scope["machpay"]
    seen = {"authenticated": request.user.is_authenticated, "scopes": list(request.auth.scopes)}
    return JSONResponse(seen | ({} if principal is None else {"id": principal.id, "tier": principal.tier}))


@requires("skills:execute")
async def execute(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.user.display_name)


APPLICATION = Starlette(
    routes=[
        Endpoint("/v1/whoami", whoami),
        Endpoint("/open", whoami),
        Endpoint("/v1/run", execute),
        Endpoint("/v1/skills", whoami),
    ]
)
RULES = [Route("GET /v1/whoami"), Route("GET /open", public=True), Route("GET /v1/skills", scopes="skills:list")]


async def test_starlette_sees_the_caller() -> None:
    async with guarded(APPLICATION, routes=RULES) as api:
        key_id, secret = await api.key(scopes=["skills:list"])
        seen = (await api.client(secret).get("/v1/whoami")).json()
        assert seen == {"authenticated": True, "scopes": ["skills:list"], "id": key_id, "tier": "standard"}


async def test_on_a_public_route_there_is_no_user() -> None:
    async with guarded(APPLICATION, routes=RULES) as api:
        _, secret = await api.key()
        assert (await api.client(secret).get("/open")).json() == {"authenticated": False, "scopes": []}


@pytest.mark.parametrize("scopes, status", [(["skills:execute"], 200), (["skills:*"], 200), (["skills:list"], 403)])
async def test_requires_works_and_honors_wildcards(scopes: list[str], status: int) -> None:
    async with guarded(APPLICATION, routes=RULES) as api:
        _, secret = await api.key(scopes=scopes)
        assert (await api.client(secret).get("/v1/run")).status_code == status


async def test_routes_are_matched_below_a_mount() -> None:
    async with guarded(APPLICATION, routes=RULES) as api:
        outer = Guarded(Starlette(routes=[Mount("/api", app=api.app)]), api.gateway)  # type: ignore[arg-type]  # any ASGI application
        _, secret = await api.key(scopes=["account:read"])
        assert (await outer.client(secret).get("/api/v1/whoami")).status_code == 200
        assert (await outer.client(secret).get("/api/v1/skills")).status_code == 403


async def test_the_servers_scope_is_unchanged() -> None:
    async with guarded(ok) as api:
        _, secret = await api.key()
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/v1/skills",
            "raw_path": b"/v1/skills",
            "query_string": b"",
            "headers": [(b"authorization", f"Bearer {secret}".encode())],
            "client": ("192.0.2.1", 1),
        }
        before = deepcopy(scope)

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": b"", "more_body": False}

        sent = []

        async def send(message: object) -> None:
            sent.append(message)

        await api.app(scope, receive, send)
        assert scope == before
        assert len(sent) == 2


async def test_a_gateway_and_settings_together_are_refused() -> None:
    async with guarded(ok) as api:
        with pytest.raises(Exception, match="not both"):
            MachPayAuth(ok, gateway=api.gateway, database="memory://")
