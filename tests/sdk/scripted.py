"""A server that answers by a script, and remembers what it was asked."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

SECRET = "sk_live_" + "mp1_" + "0123456789abcdefghijABCDEFGHIJwxyz" + "a1b2"
MASKED = "sk_live_…a1b2"


@dataclass(frozen=True)
class Said:
    """An answer to give. *cut* announces more than is sent; *drips* sends a byte at a time and never ends."""

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
class Asked:
    """A request that came."""

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
    """An ASGI application: one answer after the other, the last one again and again.

    What is asked for at a path of *on* is answered by what stands there, on the server's own loop.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.answers: list[Said] = [Said()]
        self.asked: list[Asked] = []
        self.on: dict[str, Callable[[Asked], Awaitable[Said]]] = {}

    def asked_at(self, path: str) -> list[Asked]:
        return [each for each in self.asked if each.path == path]

    def says(self, *answers: Said) -> None:
        self.answers = list(answers)

    @property
    def last(self) -> Asked:
        return self.asked[-1]

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
        asked = Asked(scope["method"], path, scope["query_string"].decode(), headers, body)
        self.asked.append(asked)
        if path in self.on:
            answer = await self.on[path](asked)
        else:
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await self._answer(answer, receive, send)

    async def _answer(self, answer: Said, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        if answer.silent:
            await receive()  # until the client is gone
            return
        length = len(answer.raw) + 10 * answer.cut
        headers = {"content-type": "application/json", "x-request-id": "req-1", **answer.headers}
        if not answer.drips:
            headers["content-length"] = str(length)
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
        gone = asyncio.ensure_future(receive())
        while answer.drips and not gone.done():
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            await asyncio.wait([gone], timeout=0.005)
        gone.cancel()
        await send({"type": "http.response.body", "body": answer.raw, "more_body": False})
