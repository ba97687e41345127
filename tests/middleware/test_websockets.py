"""A WebSocket handshake is decided like any request, before the application hears of it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from machpay_gateway import MachPayAuth, Route, Tier
from tests.applications import ok
from tests.gateways import Guarded, guarded
from tests.servers import serving

RULES = [Route("GET /live", scopes="skills:execute")]


@pytest.fixture
async def api() -> AsyncIterator[Guarded]:
    async with guarded(ok, routes=RULES, tiers={"standard": Tier("1000/minute", 1)}) as it:
        yield it


async def handshake(api: Guarded, secret: str | None, extensions: dict[str, Any] | None = None) -> list[Message]:
    """Return what the server is told of a handshake."""
    headers = [] if secret is None else [(b"authorization", f"Bearer {secret}".encode())]
    scope = {"type": "websocket", "path": "/live", "headers": headers, "client": None, "extensions": extensions}
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await api.app(scope, receive, send)
    return sent


async def test_an_allowed_handshake_is_accepted_with_quota_headers(api: Guarded) -> None:
    _, secret = await api.key()
    sent = await handshake(api, secret)
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert dict(sent[0]["headers"])[b"ratelimit"].startswith(b'"minute";r=999;')


async def test_a_closed_websocket_releases_its_slot(api: Guarded) -> None:
    _, secret = await api.key()
    for _ in range(3):
        assert (await handshake(api, secret))[0]["type"] == "websocket.accept"


async def test_a_websocket_that_its_application_closed_holds_no_slot_while_the_application_works_on() -> None:
    closed, go_on = asyncio.Event(), asyncio.Event()

    async def closing(scope: Scope, receive: Receive, send: Send) -> None:
        await ok(scope, receive, send)
        closed.set()
        await go_on.wait()

    async with guarded(closing, routes=RULES, tiers={"standard": Tier("1000/minute", 1)}) as api:
        _, secret = await api.key()
        first = asyncio.create_task(handshake(api, secret))
        await closed.wait()
        api.app.app = ok
        assert (await handshake(api, secret))[0]["type"] == "websocket.accept"
        go_on.set()
        await first


async def test_a_refused_handshake_gets_the_problem_if_the_server_supports_it(api: Guarded) -> None:
    start, body = await handshake(api, None, {"websocket.http.response": {}})
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
    assert dict(start["headers"])[b"content-type"] == b"application/problem+json"
    assert b"missing_credentials" in body["body"]


@pytest.mark.parametrize("scopes, code", [(None, 4401), (["skills:list"], 4403)])
async def test_a_refused_handshake_is_closed_with_the_code_of_the_table_otherwise(
    api: Guarded, scopes: list[str] | None, code: int
) -> None:
    secret = None if scopes is None else (await api.key(scopes=scopes))[1]
    (close,) = await handshake(api, secret)
    assert (close["type"], close["code"]) == ("websocket.close", code)


async def test_a_real_client_connects_or_gets_the_refusal() -> None:
    async with guarded(ok, routes=RULES) as api:
        _, secret = await api.key()
        with serving(MachPayAuth(ok, gateway=api.gateway), lifespan="off") as (host, port):
            url = f"ws://{host}:{port}/live"
            async with connect(url, additional_headers={"Authorization": f"Bearer {secret}"}) as connection:
                assert connection.response is not None
                assert connection.response.headers["RateLimit"].startswith('"minute"')
            with pytest.raises(InvalidStatus) as refused:
                await connect(url)
        assert refused.value.response.status_code == 401
        assert b"missing_credentials" in (refused.value.response.body or b"")
