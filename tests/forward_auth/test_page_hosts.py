"""What a proxy carries to its upstream is neither a page of ours nor at a host of pages."""

from collections.abc import AsyncIterator

import pytest

from machpay_gateway import Route
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.settings import Options
from machpay_gateway.settings.console import ConsoleSettings
from tests.forward_auth.check_client import Asked, every_peer, forward_auth_gateway
from tests.gateways import ROUTES

CONSOLE, ISSUER, API = "console.example.com", "auth.example.com", "api.example.com"
PAGES = Options(
    database="sqlite://",
    routes=(*ROUTES, Route("* /public/{rest:path}", public=True)),
    console=ConsoleSettings(f"https://{CONSOLE}", f"https://{API}"),
    oauth=OAuthSettings(f"https://{ISSUER}", audience=f"https://{API}"),
)


@pytest.fixture(scope="module")
async def gateway() -> AsyncIterator[Asked]:
    async with forward_auth_gateway(**PAGES) as it:
        yield it


def host_of(peer: str, host: str) -> list[tuple[str, str]]:
    """Return how *peer* tells its client's host."""
    return [("Host", host)] if peer == "envoy" else [("Host", "gateway:8000"), ("X-Forwarded-Host", host)]


@every_peer
@pytest.mark.parametrize("path", ["/console", "/console/keys/new", "/console/anything", "/oauth/authorize?a=b"])
@pytest.mark.parametrize("host", [API, CONSOLE, ISSUER, ""])
async def test_an_upstreams_path_that_equals_a_page_is_refused(gateway: Asked, peer: str, path: str, host: str) -> None:
    _, secret = await gateway.key()
    for credential in (None, secret):
        answer = await gateway.ask(peer, f"GET {path}", credential, host_of(peer, host) if host else [])
        assert (answer.json()["status"], answer.json()["code"]) == (404, "route_not_found")


@every_peer
@pytest.mark.parametrize(
    "host", [CONSOLE, f"{CONSOLE}:8443", f"{CONSOLE.upper()}.", ISSUER, f"{API}, {CONSOLE}"], ids=str
)
@pytest.mark.parametrize("request_", ["GET /public/x", "GET /v1/skills", "OPTIONS /public/x", "GET /v1/keys"])
async def test_upstreams_are_not_served_at_hosts_of_pages(gateway: Asked, peer: str, host: str, request_: str) -> None:
    _, secret = await gateway.key()
    headers = host_of(peer, host)
    if request_.startswith("OPTIONS"):
        headers += [("Origin", "https://app.example"), ("Access-Control-Request-Method", "POST")]
    answer = await gateway.ask(peer, request_, secret, headers)
    assert answer.json()["status"] == 404


@every_peer
async def test_the_apis_host_is_decided_as_usual(gateway: Asked, peer: str) -> None:
    _, secret = await gateway.key()
    for headers in (host_of(peer, API), []):
        assert (await gateway.ask(peer, "GET /v1/skills", secret, headers)).status_code == 200
        assert (await gateway.ask(peer, "GET /public/x", None, headers)).status_code == 200


async def test_check_requests_at_a_host_of_pages_are_refused(gateway: Asked) -> None:
    # A browser that is led to a place to ask would be answered there.
    for peer in ("nginx", "traefik", "caddy"):
        headers = [("Host", CONSOLE), ("X-Forwarded-Host", API)]
        assert (await gateway.ask(peer, "GET /public/x", None, headers)).json()["status"] == 404
