"""An upstream that `uvicorn --uds` serves."""

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with what was requested."""
    if scope["type"] == "http":
        request = Request(scope)
        text = f"{request.method} {request.url.path} for {request.headers['host']}"
        await PlainTextResponse(text)(scope, receive, send)
