"""What the drills serve: a small application, guarded, beside the key API; the `MACHPAY_…` variables configure it.

Each answer says when the application was entered and when it was about to send the last of it: in between, the
request surely held its slot.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from machpay_gateway import Route
from machpay_gateway.server import create_app

_CHUNK = b"." * 1024


async def _application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    entered = time.monotonic()
    query = dict(parse_qsl(scope["query_string"].decode()))
    seconds = float(query.get("seconds", "0"))
    if scope["path"] == "/stream":
        # As applications stream: it ends when the client has gone.
        await StreamingResponse(_chunks(entered, seconds))(scope, receive, send)
        return
    if scope["path"] == "/work":
        while time.monotonic() < entered + seconds:
            pass  # as handlers do that compute
    elif seconds:
        await asyncio.sleep(seconds)
    body = b"%.6f %.6f" % (entered, time.monotonic())
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def _chunks(entered: float, seconds: float) -> AsyncIterator[bytes]:
    while time.monotonic() < entered + seconds:
        yield _CHUNK
        await asyncio.sleep(0.05)
    yield b"%.6f %.6f" % (entered, time.monotonic())


if "DRILL_LOG_LEVEL" in os.environ:
    logging.basicConfig(level=os.environ["DRILL_LOG_LEVEL"])

app = create_app(
    _application,
    routes=[Route(f"GET /{name}", scopes="skills:execute") for name in ("quick", "slow", "stream", "work")],
)
