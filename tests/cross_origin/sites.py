"""A page of one origin, and the gateway at others: a middleware with the key API beside it, and a proxy."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import uvicorn
from anyio.from_thread import BlockingPortal
from starlette.types import ASGIApp, Receive, Scope, Send

from machpay_gateway import Route, Tier
from machpay_gateway.gateway import Gateway
from machpay_gateway.server import create_app
from tests.proxy.harness import proxied

ROUTES = (Route("* /x/{rest:path}", scopes="skills:execute"), Route("GET /live", scopes="skills:execute"))


@dataclass
class Sites:
    """The *page*'s URL and that of another one, and the gateways' URLs by their names."""

    page: str
    other_page: str
    urls: dict[str, str]
    gateways: dict[str, Gateway]
    portal: BlockingPortal

    def key(self, site: str, *, scopes: Sequence[str] = ("skills:execute",), tier: str = "standard") -> str:
        """Return the secret of a new key of an account in *tier* at the gateway *site*."""
        return self.portal.call(partial(_new_key, self.gateways[site], scopes, tier))


async def _new_key(gateway: Gateway, scopes: Sequence[str], tier: str) -> str:
    account = await gateway.accounts.find(tier) or await gateway.accounts.create(tier, tier)
    _, secret = await gateway.keys.create(account.id, name="test", scopes=scopes, environment="live")
    return secret


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request, and a WebSocket with its first subprotocol, which it repeats."""
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
    elif scope["type"] == "websocket":
        await receive()
        names = scope["subprotocols"]
        await send({"type": "websocket.accept", "subprotocol": names[0] if names else None})
        await send({"type": "websocket.send", "text": ",".join(names)})
        await receive()
    else:
        headers = [(b"content-type", b"text/html"), (b"access-control-allow-origin", b"http://stale.example")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"<!doctype html><title>page</title>"})


@asynccontextmanager
async def _listening(app: ASGIApp) -> AsyncIterator[str]:
    """Serve *app* in this event loop; yield its URL."""
    sock = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", proxy_headers=False))
    task = asyncio.create_task(server.serve(sockets=[sock]))
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.005)
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    server.should_exit = True
    await task


@asynccontextmanager
async def serving_sites(portal: BlockingPortal) -> AsyncIterator[Sites]:
    """Serve pages and gateways that allow the first page's origin."""
    async with AsyncExitStack() as stack:
        page = await stack.enter_async_context(_listening(application))
        credentials, cors = {"headers": ["Authorization", "X-API-Key"]}, {"origins": [page]}
        tiers = {"small": Tier("1/minute", 5)}
        app = create_app(
            application,
            config=os.devnull,
            database="memory://",
            routes=ROUTES,
            tiers=tiers,
            credentials=credentials,
            cors=cors,
        )
        middleware = await stack.enter_async_context(_listening(app))
        behind = proxied(routes=ROUTES, tiers=tiers, credentials=credentials, cors=cors, upstreams={"live": page})
        proxy = await stack.enter_async_context(behind)
        urls = {"middleware": middleware, "proxy": f"http://127.0.0.1:{proxy.port}"}
        gateways = {"middleware": app.gateway, "proxy": proxy.gateway}
        yield Sites(page, page.replace("127.0.0.1", "localhost"), urls, gateways, portal)
