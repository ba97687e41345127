"""No header, query, cookie, path or form makes a page respond 500, with or without a session."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machpay_gateway.console.app import PAGES
from machpay_gateway.core.oauth.settings import OAuthSettings
from tests.console.crafted import proof
from tests.console.harness import ADMIN, FORM, URL, Rig, serving_console

NASTY = (
    "", "\x00", "%", "%00", "%ff", "%ed%a0%80", "\ud800", "http://[x", "http://[::1", "//[", "https://x:99999999/", "é",
    "../..", ";", "=", "&" * 300, "a" * 20_000, "9" * 5000, "-1", "1e999", "NaN", "٣", "null", "[]", "{}", "\u202e",
    "2026-02-31", "0001-01-01", "9999-12-31", "hour", "key_" + "0" * 40, "user_x", "'\"><", "\udcff", "\r\nX: 1",
)  # fmt: skip
ANYTHING = st.sampled_from(NASTY) | st.text(max_size=40)
HEADERS = (
    "HX-Request", "HX-Current-URL", "HX-Target", "X-Machpay-Automatic",
    "Cookie", "Sec-Fetch-Site", "Origin", "Content-Type", "Authorization",
    "Content-Length", "Transfer-Encoding", "Host", "X-Forwarded-For", "X-Request-Id", "If-None-Match", "Range", "DPoP",
    "If-Modified-Since", "Accept", "Accept-Language", "Referer", "Expect", "X-Forwarded-Host", "X-Forwarded-Proto",
)  # fmt: skip
QUERIES = (
    "told", "next", "search", "after", "environment", "status", "key", "period", "app", "action", "who", "object",
    "from", "until", "before", "addresses", "redirect_uris", "client_id", "prompt", "scope", "resource",
)  # fmt: skip
FIELDS = (
    "proof", "name", "scopes", "environment", "addresses", "expires", "grace", "typed", "version", "once", "kind",
    "redirect_uris", "grant_types", "email", "password", "current", "new", "again", "confirm_password", "decision",
    "scope", "pkce", "dpop",
)  # fmt: skip
OURS = ("/sign-in", "/sign-out", "", "/", "/static/console.css", "/static/x", "/nothing/here", "/password")
OAUTH = ("/oauth/authorize", "/oauth/sign-in", "/oauth/consent", "/oauth/sign-out")
PATHS = sorted({f"/console{path}" for path in (*OURS, *(place.path for place in PAGES))} | set(OAUTH))


@dataclass(frozen=True)
class Request:
    """Any request."""

    method: str
    path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    fields: list[tuple[str, bytes]]
    is_signed_in: bool
    is_proved: bool


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with serving_console(oauth=OAuthSettings(URL)) as served:
        yield served


def quoted(text: str) -> bytes:
    return b"".join(b"%%%02x" % byte for byte in as_bytes(text))


async def status_of(rig: Rig, request: Request, cookies: bytes, body: bytes) -> int:
    """Return the status of the response to a request that an HTTP client might refuse to send."""
    scope: dict[str, Any] = {
        "type": "http", "http_version": "1.1", "scheme": "https", "method": request.method, "root_path": "",
        "path": unquote_to_bytes(request.path).decode("utf-8", "replace"), "raw_path": request.path,
        "query_string": request.query, "client": ("192.0.2.1", 50_000), "server": ("console.example.com", 443),
        "headers": [(b"host", b"console.example.com"), (b"cookie", cookies), *request.headers],
    }  # fmt: skip
    if request.method == "POST" and not any(name == b"content-type" for name, _ in request.headers):
        scope["headers"].append((b"content-type", FORM["Content-Type"].encode()))
    statuses: list[int] = []

    bodies = [body]

    async def receive() -> MutableMapping[str, Any]:
        if not bodies:
            await asyncio.Event().wait()  # it stays connected
        return {"type": "http.request", "body": bodies.pop(), "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await rig.app(scope, receive, send)
    (status,) = statuses
    return status


@st.composite
def requests(draw: st.DrawFn) -> Request:
    raw = draw(st.sampled_from(PATHS)).encode()
    for name in (b"{id}", b"{grant}"):
        if name in raw:
            raw = raw.replace(name, draw(st.sampled_from([quoted(draw(ANYTHING)), b"x", b"key_0%", b"%00"])))
    pairs = draw(st.lists(st.tuples(st.sampled_from(QUERIES), ANYTHING), max_size=4))
    query = b"&".join(name.encode() + b"=" + quoted(value) for name, value in pairs)
    named = draw(st.lists(st.tuples(st.sampled_from(HEADERS), ANYTHING), max_size=4))
    return Request(
        draw(st.sampled_from(["GET", "GET", "POST", "HEAD", "PUT"])),
        raw,
        draw(st.sampled_from([query, query, query + b"&%ff=%zz&%", as_bytes(draw(ANYTHING))])),
        [(name.lower().encode(), as_bytes(value)) for name, value in named],
        [
            (name, quoted(value))
            for name, value in draw(st.lists(st.tuples(st.sampled_from(FIELDS), ANYTHING), max_size=6))
        ],
        is_signed_in=draw(st.booleans()),
        is_proved=draw(st.booleans()),
    )


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(requests(), min_size=1, max_size=5))
async def test_no_request_is_answered_500(rig: Rig, many: list[Request]) -> None:
    if not rig.opened:
        await rig.signed_in(ADMIN)
    (browser, *_) = rig.opened
    for request in many:
        cookies = (
            "; ".join(f"{name}={value}" for name, value in browser.cookies.items()) if request.is_signed_in else ""
        )
        path = request.path.decode().removeprefix("/console")
        proofs = [("proof", proof(browser, path).encode())] if request.is_proved and "/sign-out" not in path else []
        body = b"&".join(name.encode() + b"=" + value for name, value in [*request.fields, *proofs])
        assert await status_of(rig, request, cookies.encode(), body) != 500, request


@pytest.mark.parametrize("url", ["http://[x", "http://[::1", "//[", "\udcff", "http://\u2100/", "x" * 9000])
async def test_a_fragment_accepts_any_current_url(rig: Rig, url: str) -> None:
    headers = [(b"hx-request", b"true"), (b"hx-current-url", as_bytes(url))]
    request = Request("GET", b"/console/keys", b"", headers, [], is_signed_in=False, is_proved=False)
    assert await status_of(rig, request, b"", b"") == 204
