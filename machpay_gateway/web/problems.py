"""Refusals as ASGI messages: a problem+json response, or what the server supports for a WebSocket."""

from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from machpay_gateway.core.decision.problem import Problem
from machpay_gateway.web.headers import Headers

_DENIAL_RESPONSE = "websocket.http.response"


async def send_problem(scope: Scope, receive: Receive, send: Send, problem: Problem, added: Headers) -> None:
    """Send *problem* as the response, with the headers *added*."""
    headers, body = problem_response(problem, added)
    if scope["type"] == "http":
        body = b"" if scope.get("method") == "HEAD" else body
        await _respond(send, "http.response", problem.status, headers, body)
        return
    await receive()  # websocket.connect, which has to be received before a response
    if _DENIAL_RESPONSE in (scope.get("extensions") or ()):
        await _respond(send, _DENIAL_RESPONSE, problem.status, headers, body)
        return
    await send({"type": "websocket.close", "code": problem.close_code, "reason": str(problem.body["code"])})


def problem_response(problem: Problem, added: Headers) -> tuple[Headers, bytes]:
    """Return the headers, with those *added*, and the body of the response for *problem*."""
    body = orjson.dumps(problem.body)
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),  # caches may otherwise store a 404, and serve it to authorized callers
        (b"x-request-id", str(problem.body["request_id"]).encode()),
        *problem.headers,
        *added,
    ]
    return headers, body


async def _respond(send: Send, kind: str, status: int, headers: Headers, body: bytes) -> None:
    start: dict[str, Any] = {"type": f"{kind}.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": f"{kind}.body", "body": body})
