"""Bare ASGI applications to put behind the gateway."""

import asyncio

from starlette.types import Receive, Scope, Send


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 200 to HTTP, accept and close a WebSocket, complete a lifespan."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1"), (b"x-app", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


class Held:
    """Answers only when it is let go; `entered` counts who is inside."""

    def __init__(self) -> None:
        self.entered = asyncio.Semaphore(0)
        self.let_go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait inside."""
        self.entered.release()
        await self.let_go.wait()
        await ok(scope, receive, send)
