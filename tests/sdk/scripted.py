"""A server with scripted responses, which records its requests."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

SECRET = "sk_live_" + "mp1_" + "0123456789abcdefghijABCDEFGHIJwxyz" + "a1b2"
MASKED = "sk_live_…a1b2"


@dataclass(frozen=True)
class Reply:
    """A scripted response. *cut* sends less than its Content-Length, *drips* sends single bytes without end."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    silent: bool = False
    cut: bool = False
    drips: bool = False

    @property
    def raw(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class SentRequest:
    """A recorded request."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever was sent
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, str]:
        assert self.headers["content-type"] == "application/x-www-form-urlencoded"
        pairs = parse_qsl(self.body.decode(), keep_blank_values=True, strict_parsing=True)
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)


class Script:
    """An ASGI application that sends one reply after the other, and then repeats the last one.

    A path in *on* has its own endpoint, which runs in the event loop of the server.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.replies: list[Reply] = [Reply()]
        self.requests: list[SentRequest] = []
        self.on: dict[str, Callable[[SentRequest], Awaitable[Reply]]] = {}

    def requests_at(self, path: str) -> list[SentRequest]:
        return [each for each in self.requests if each.path == path]

    def respond_with(self, *replies: Reply) -> None:
        self.replies = list(replies)

    @property
    def last(self) -> SentRequest:
        return self.requests[-1]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        if scope["type"] != "http":
            return
        body = b""
        while (event := await receive())["type"] == "http.request":
            body += event["body"]
            if not event["more_body"]:
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        path = scope["raw_path"].decode()
        request = SentRequest(scope["method"], path, scope["query_string"].decode(), headers, body)
        self.requests.append(request)
        if path in self.on:
            reply = await self.on[path](request)
        else:
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        await self._send(reply, receive, send)

    async def _send(self, reply: Reply, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        if reply.silent:
            await receive()  # until the client is gone
            return
        length = len(reply.raw) + 10 * reply.cut
        headers = {"content-type": "application/json", "x-request-id": "req-1", **reply.headers}
        if not reply.drips:
            headers["content-length"] = str(length)
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": pairs})
        disconnected = asyncio.ensure_future(receive())
        while reply.drips and not disconnected.done():
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            await asyncio.wait([disconnected], timeout=0.005)
        disconnected.cancel()
        await send({"type": "http.response.body", "body": reply.raw, "more_body": False})
