"""A gateway in memory that is asked as each proxy asks."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Unpack
from urllib.parse import unquote_to_bytes

import httpx2
import pytest
from starlette.types import ASGIApp, Message, Scope

from machpay_gateway.server import create_app
from machpay_gateway.settings import Options
from tests.applications import ok
from tests.gateways import ROUTES, Guarded

PROXY, STRANGER, CALLER = "10.0.0.1", "192.0.2.9", "203.0.113.10"


def put(peer: str, method: str, uri: str) -> tuple[str, str, list[tuple[str, str]]]:
    """Return how *peer* asks about a request: method, path and headers."""
    if peer == "envoy":
        return method, f"/authorize/envoy{uri}", []
    words = "Original-Method", "Original-URI"
    if peer != "nginx":
        words = "Forwarded-Method", "Forwarded-Uri"
    return "GET", f"/authorize/{peer}", [(f"X-{words[0]}", method), (f"X-{words[1]}", uri)]


class Asked(Guarded):
    """A gateway that is asked."""

    async def ask(
        self,
        peer: str,
        request: str,
        secret: str | None = None,
        headers: Any = (),  # noqa: ANN401 - pairs or a mapping, as in httpx2
        *,
        address: str = PROXY,
    ) -> httpx2.Response:
        """Ask as *peer* from *address* about a *request*, written as in `GET /a`."""
        method, path, headers_with_request = put(peer, *request.split(" ", 1))
        given = [*headers_with_request, *(headers.items() if isinstance(headers, Mapping) else headers)]
        if secret is not None:
            given.append(("Authorization", f"Bearer {secret}"))
        if not any(name.lower() == "x-forwarded-for" for name, _ in given):
            given.append(("X-Forwarded-For", CALLER))
        return await answer_to(self.app, method, path.encode(), given, address)


async def answer_to(
    app: ASGIApp, method: str, target: bytes, headers: list[tuple[str, str]], address: str
) -> httpx2.Response:
    """Return what *app* answers to a request whose *target* stands as it is: a client would tidy it up."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    raw, _, query = target.partition(b"?")
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": unquote_to_bytes(raw).decode("utf-8", "replace"),
        "raw_path": raw,
        "query_string": query,
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        "client": (address, 50_000),
    }
    await app(scope, receive, send)
    start, body = sent
    return httpx2.Response(start["status"], headers=start["headers"], content=body["body"])


@asynccontextmanager
async def forward_auth_gateway(**options: Unpack[Options]) -> AsyncIterator[Asked]:
    defaults: Options = {
        "database": "memory://",
        "routes": ROUTES,
        "unlisted_routes": "deny",
        "trusted_proxies": [PROXY],
    }
    app = create_app(ok, **(defaults | options))
    async with app.gateway as gateway:
        yield Asked(app, gateway)


every_peer = pytest.mark.parametrize("peer", ["nginx", "traefik", "caddy", "envoy"])
