"""Page hosts, the gateway's cookies and believed headers, as callers and the upstream see them."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Unpack

import pytest

from machpay_gateway import Route
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.forward_auth.dialect import PATH_PREFIX
from machpay_gateway.proxy.routing import ControlPlane
from machpay_gateway.settings import Options
from machpay_gateway.settings.console import ConsoleSettings
from machpay_gateway.telemetry.own_requests import OwnRequests
from tests.proxy.harness import OK, Rig, Upstream, fields_of, proxied, status_of

CONSOLE, ISSUER, API = "console.example.com", "auth.example.com", "api.example.com"
ROUTES = (Route("* /public/{rest:path}", public=True), Route("* /v1/{rest:path}", scopes="skills:execute"))
HANDSHAKE = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
PREFLIGHT = "Origin: https://app.example\r\nAccess-Control-Request-Method: POST\r\n"


@asynccontextmanager
async def rig(
    *, control_plane: bool = True, answer: bytes = OK, **options: Unpack[Options]
) -> AsyncIterator[tuple[Rig, Upstream, Upstream]]:
    """Run a proxy whose Console and issuer have hosts of their own; yield it, its upstream and its control plane."""
    with TemporaryDirectory() as folder:
        defaults: Options = {
            "database": "sqlite://",
            "routes": ROUTES,
            "console": ConsoleSettings(f"https://{CONSOLE}", f"https://{API}"),
            "oauth": OAuthSettings(f"https://{ISSUER}", audience=f"https://{API}"),
        }
        async with Upstream(answer=answer) as upstream, Upstream(path=Path(folder, "own")) as own:
            branches = ("/console", "/oauth/authorize", "/oauth/token", "/v1/keys")
            plane = ControlPlane(branches, PATH_PREFIX, Path(folder, "own"), OwnRequests()) if control_plane else None
            async with proxied(upstream, control_plane=plane, **(defaults | options)) as made:
                yield made, upstream, own


async def response_head(proxy: Rig, target: str, host: str | None, *lines: str, method: str = "GET") -> bytes:
    """Return the whole answer to a request at *host*."""
    head = "".join(f"{line.strip()}\r\n" for part in lines for line in part.splitlines())
    version = "1.0" if host is None else "1.1"
    host_line = "" if host is None else f"Host: {host}\r\n"
    close = "" if "Upgrade" in head else "Connection: close\r\n"
    async with proxy.client() as client:
        await client.send(f"{method} {target} HTTP/{version}\r\n{host_line}{head}{close}\r\n".encode("latin-1"))
        _, answer, _ = await client.answer()
        return answer


@pytest.mark.parametrize(
    "method, target, host, lines, expected",
    [
        ("GET", "/console/keys", CONSOLE, "", "own"),
        ("POST", "/console/keys/new", CONSOLE, "Content-Length: 0", "own"),
        ("GET", "/oauth/authorize?client_id=a", ISSUER, "", "own"),
        ("GET", "/console/keys", API, "", "404"),
        ("GET", "/console", API, "", "404"),
        ("GET", "/console/static/style.css", API, "", "404"),
        ("GET", "/console/keys", ISSUER, "", "404"),
        ("GET", "/console/keys", f"{CONSOLE}:8443", "", "404"),
        ("GET", "/console/keys", None, "", "404"),  # HTTP/1.0
        ("GET", "/console/keys", API, HANDSHAKE, "404"),
        ("OPTIONS", "/console/keys", API, PREFLIGHT, "404"),
        ("GET", "/oauth/authorize", API, "", "404"),
        ("GET", "/oauth/authorize", CONSOLE, "", "404"),
        ("POST", "/oauth/token", API, "Content-Length: 0", "own"),
        ("POST", "/oauth/token", CONSOLE, "Content-Length: 0", "own"),
        ("GET", "/v1/keys", CONSOLE, "", "own"),
        ("GET", "/public/x", API, "", "upstream"),
        ("GET", "/public/x", None, "", "upstream"),
        ("GET", "/public/x", CONSOLE, "", "404"),
        ("GET", "/public/x", f"{CONSOLE}:1234", "", "404"),  # cookies ignore ports
        ("GET", "/public/x", f"{CONSOLE.upper()}.", "", "404"),
        ("GET", "/public/x", ISSUER, "", "404"),
        ("GET", "/public/x", CONSOLE, HANDSHAKE, "404"),
        ("OPTIONS", "/public/x", CONSOLE, PREFLIGHT, "404"),
        ("GET", "/v1/skills", CONSOLE, "", "404"),  # and not 401
        ("OPTIONS", "/v1/skills", ISSUER, PREFLIGHT, "404"),
        ("GET", "/nowhere", CONSOLE, "", "404"),
        ("GET", "/public/x", API, f"X-Forwarded-Host: {CONSOLE}", "upstream"),  # of a peer that is not trusted
        ("GET", f"http://{CONSOLE}/public/x", CONSOLE, "", "404"),
    ],
)
async def test_pages_and_upstreams_have_separate_hosts(
    method: str, target: str, host: str | None, lines: str, expected: str
) -> None:
    async with rig() as (proxy, upstream, own):
        answer = await response_head(proxy, target, host, lines, method=method)
        reached = "own" if own.heads else "upstream" if upstream.heads else str(status_of(answer))
        assert reached == expected
        if expected == "404":
            assert fields_of(answer)["content-type"] == ["application/problem+json"]


@pytest.mark.parametrize(
    "target, host, forwarded, expected",
    [
        ("/console/keys", "gateway:8000", CONSOLE, "own"),
        ("/console/keys", "gateway:8000", API, "404"),
        ("/console/keys", CONSOLE, API, "404"),
        ("/console/keys", CONSOLE, "not a host", "own"),
        ("/public/x", "gateway:8000", CONSOLE, "404"),
        ("/public/x", CONSOLE, API, "404"),
        ("/public/x", "gateway:8000", f"{API}\r\nX-Forwarded-Host: {CONSOLE}", "404"),
        ("/console/keys", "gateway:8000", f"{CONSOLE}\r\nX-Forwarded-Host: {CONSOLE}", "404"),
        ("/public/x", "gateway:8000", API, "upstream"),
    ],
)
async def test_a_trusted_proxy_names_the_host(target: str, host: str, forwarded: str, expected: str) -> None:
    async with rig(trusted_proxies=["127.0.0.1"]) as (proxy, upstream, own):
        answer = await response_head(proxy, target, host, f"X-Forwarded-Host: {forwarded}")
        reached = "own" if own.heads else "upstream" if upstream.heads else str(status_of(answer))
        assert reached == expected


async def test_a_proxy_without_control_plane_separates_the_same_hosts() -> None:
    async with rig(control_plane=False) as (proxy, upstream, _):
        for target, host in (("/console/keys", API), ("/console/keys", CONSOLE), ("/public/x", CONSOLE)):
            answer = await response_head(proxy, target, host)
            assert status_of(answer) in ({401, 404} if host == CONSOLE else {404})
        assert upstream.heads == []
        await response_head(proxy, "/public/x", API)
        assert len(upstream.heads) == 1


async def test_without_pages_no_host_is_bound() -> None:
    async with rig(control_plane=False, console=None, oauth=None) as (proxy, upstream, _):
        await response_head(proxy, "/public/x", CONSOLE)
        assert len(upstream.heads) == 1


async def test_a_host_is_logged_once_and_not_for_each_request(caplog: pytest.LogCaptureFixture) -> None:
    async with rig() as (proxy, _, _):
        with caplog.at_level(logging.WARNING, "machpay_gateway"):
            for _ in range(3):
                await response_head(proxy, "/public/x", CONSOLE)
            for number in range(100):
                await response_head(proxy, "/console", f"host-{number}.example")
    messages = [record.getMessage() for record in caplog.records if "refused: " in record.getMessage()]
    assert len([each for each in messages if f'"{CONSOLE}" is the host of console.url' in each]) == 1
    assert 50 < len(messages) < 70  # callers choose what Host says


async def test_the_startup_logs_that_the_api_is_not_served_at_a_host_of_pages(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "machpay_gateway"):
        async with rig(console=ConsoleSettings(f"https://{API}"), oauth=None):
            pass
    (messages,) = [record.getMessage() for record in caplog.records if "name the same host" in record.getMessage()]
    assert API in messages


COOKIES = [
    (["Cookie: a=1; __Host-machpay-session=x; b=2"], ["a=1; b=2"], ["__Host-machpay-session=x"]),
    (["Cookie: __Host-machpay-session=x"], [], ["__Host-machpay-session=x"]),
    (["COOKIE:machpay-form=y;a=1"], ["a=1"], ["machpay-form=y"]),
    (["Cookie: a=1", "Cookie: machpay-session=x", "Cookie: b=2"], ["a=1", "b=2"], ["machpay-session=x"]),
    (["Cookie: a=1;  b=2 ;c"], ["a=1;  b=2 ;c"], []),
    ([], [], []),
]


@pytest.mark.parametrize("lines, others, ours", COOKIES)
@pytest.mark.parametrize("kind", ["request", "handshake"])
async def test_the_gateways_cookies_reach_the_control_plane_and_no_upstream(
    lines: list[str], others: list[str], ours: list[str], kind: str
) -> None:
    more = [HANDSHAKE] if kind == "handshake" else []
    async with rig() as (proxy, upstream, own):
        for _ in range(2):  # the second head may be one that is remembered
            await response_head(proxy, "/public/x", API, *lines, *more)
        assert [fields_of(head).get("cookie", []) for head in upstream.heads] == [others] * 2
        await response_head(proxy, "/console/keys", CONSOLE, *lines, *more)
        (head,) = own.heads
        assert fields_of(head).get("cookie", []) == [*others, *ours]


async def test_heads_with_cookies_are_not_cached() -> None:
    async with rig() as (proxy, _, _):
        await response_head(proxy, "/public/x", API, "Cookie: a=1; machpay-session=secret")
        assert not [head for head in proxy.proxy.context.requests.cache if b"secret" in head]


SET = (
    "Set-Cookie: a=1; Path=/\r\nSet-Cookie: __Host-machpay-session=x; Path=/\r\nset-cookie:  machpay-form=y\r\n"
    "Set-Cookie: =machpay-session=z\r\nSet-Cookie: machpay-session\r\nSet-Cookie: __HOST-MACHPAY-form=z\r\n"
    "Set-Cookie: b=machpay-\r\n"
)


async def test_an_upstream_cannot_set_the_gateways_cookies() -> None:
    answer = f"HTTP/1.1 200 OK\r\n{SET}Content-Length: 2\r\n\r\nok".encode()
    async with rig(answer=answer) as (proxy, _, _):
        for _ in range(2):
            assert fields_of(await response_head(proxy, "/public/x", API))["set-cookie"] == [
                "a=1; Path=/",
                "b=machpay-",
            ]


async def test_an_upstream_cannot_set_the_gateways_cookies_with_1xx_responses() -> None:
    early = f"HTTP/1.1 103 Early Hints\r\n{SET}\r\n".encode()
    async with rig(answer=early + OK) as (proxy, _, _), proxy.client() as client:
        await client.send(f"GET /public/x HTTP/1.1\r\nHost: {API}\r\n\r\n".encode())
        assert fields_of(await client.head())["set-cookie"] == ["a=1; Path=/", "b=machpay-"]
    switching = f"HTTP/1.1 101 Switching Protocols\r\n{SET}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n".encode()
    async with rig(answer=switching) as (proxy, _, _), proxy.client() as client:
        await client.send(f"GET /public/x HTTP/1.1\r\nHost: {API}\r\n{HANDSHAKE}\r\n".encode())
        head = await client.head()
        assert (status_of(head), fields_of(head)["set-cookie"]) == (101, ["a=1; Path=/", "b=machpay-"])


async def test_the_control_plane_sets_its_own_cookies() -> None:
    async with rig() as (proxy, _, own):
        own.answer = f"HTTP/1.1 200 OK\r\n{SET}Content-Length: 2\r\n\r\nok".encode()
        assert len(fields_of(await response_head(proxy, "/console/keys", CONSOLE))["set-cookie"]) == SET.count("\r\n")


BELIEVED = [
    "Remote-User: root", "X-Forwarded-User: root", "X-Auth-Request-User: root", "X-Amzn-Oidc-Identity: root",
    "X-Accel-Redirect: /secret", "Client-Ip: 10.0.0.1", "remote_user: root", "Remote.User: root", "X-Real-IP: 10.0.0.1",
    "x_forwarded_user: root", "X_Client_Cert: root", "CF-Connecting-IP: 10.0.0.1", "X-Original-URL: /secret",
]  # fmt: skip


async def test_headers_that_upstreams_trust_a_proxy_to_set_are_dropped() -> None:
    async with rig() as (proxy, upstream, _):
        await response_head(proxy, "/public/x", API, *BELIEVED, "X-Mine: 1", "X-Api-Key: 2")
        (head,) = upstream.heads
        assert b"root" not in head
        assert b"secret" not in head
        assert b"10.0.0.1" not in head
        assert (fields_of(head)["x-mine"], fields_of(head)["x-api-key"]) == (["1"], ["2"])


async def test_only_listed_headers_pass() -> None:
    async with rig(proxy={"pass_headers": ["Remote-User", "X-Forwarded-User"]}) as (proxy, upstream, _):
        await response_head(proxy, "/public/x", API, *BELIEVED)
        (head,) = upstream.heads
        assert [fields_of(head)[name] for name in ("remote-user", "x-forwarded-user")] == [["root"], ["root"]]
        assert head.count(b"root") == 2  # not in CGI's spelling
        assert b"secret" not in head
