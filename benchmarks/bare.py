"""The answer that everything is measured against. It needs neither the gateway nor its peers, who each have a venv."""

from starlette.types import Receive, Scope, Send

PATH = "/v1/skills/execute"
BODY = b'{"ok":true}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"11")]


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer every request with the same small JSON: the least an ASGI application can do."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})
