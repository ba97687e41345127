"""A slot comes back however its request ends."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route as Endpoint
from starlette.types import Receive, Scope, Send

from machpay_gateway import Tier
from tests.applications import Held, ok
from tests.gateways import Guarded, guarded

TIERS = {"standard": Tier("1000/minute", 2)}


@pytest.fixture
async def held() -> AsyncIterator[tuple[Held, Guarded]]:
    app = Held()
    async with guarded(app, tiers=TIERS) as api:
        yield app, api


async def slots_left(api: Guarded, secret: str) -> int:
    answer = await api.client(secret).get("/v1/skills")
    return int(answer.headers["ratelimit"].rpartition("r=")[2])


async def test_the_request_past_the_last_slot_is_refused_until_one_frees(held: tuple[Held, Guarded]) -> None:
    app, api = held
    _, secret = await api.key()
    inside = [asyncio.create_task(api.client(secret).get("/v1/skills")) for _ in range(2)]
    for _ in inside:
        await app.entered.acquire()
    refused = await api.client(secret).get("/v1/skills")
    assert (refused.status_code, refused.json()["code"]) == (429, "concurrency_limited")
    assert refused.json()["violated_policies"] == ["concurrency"]
    assert refused.headers["ratelimit"].endswith('"concurrency";r=0')
    app.let_go.set()
    assert [answer.status_code for answer in await asyncio.gather(*inside)] == [200, 200]
    assert (await api.client(secret).get("/v1/skills")).status_code == 200


async def test_a_canceled_request_releases_its_slot(held: tuple[Held, Guarded]) -> None:
    app, api = held
    _, secret = await api.key()
    task = asyncio.create_task(api.client(secret).get("/v1/skills"))
    await app.entered.acquire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    app.let_go.set()
    assert await slots_left(api, secret) == 1


async def failing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise RuntimeError("the application fails")


async def test_a_failing_application_releases_its_slot_and_its_error_propagates() -> None:
    async with guarded(failing, tiers=TIERS) as api:
        _, secret = await api.key()
        for _ in range(5):
            with pytest.raises(RuntimeError, match="the application fails"):
                await api.client(secret).get("/v1/skills")
        api.app.app = ok
        assert await slots_left(api, secret) == 1


async def test_a_failed_send_releases_the_slot() -> None:
    async with guarded(ok, tiers=TIERS) as api:
        _, secret = await api.key()
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/v1/skills",
            "headers": [(b"authorization", f"Bearer {secret}".encode())],
            "client": None,
        }

        async def receive() -> dict[str, object]:
            return {"type": "http.disconnect"}

        async def gone(_message: object) -> None:
            raise OSError("client disconnected")

        for _ in range(5):
            with pytest.raises(OSError, match="client disconnected"):
                await api.app(scope, receive, gone)
        assert await slots_left(api, secret) == 1


async def test_a_background_task_does_not_hold_the_slot() -> None:
    running, done = asyncio.Event(), asyncio.Event()

    async def background() -> None:
        running.set()
        await done.wait()

    async def endpoint(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok", background=BackgroundTask(background))

    async with guarded(Starlette(routes=[Endpoint("/v1/skills", endpoint)]), tiers=TIERS) as api:
        _, secret = await api.key()
        task = asyncio.create_task(api.client(secret).get("/v1/skills"))
        await running.wait()
        assert not task.done()
        api.app.app = ok
        assert await slots_left(api, secret) == 1
        done.set()
        await task


async def test_a_stream_holds_its_slot_until_its_last_chunk() -> None:
    go_on, between = asyncio.Event(), asyncio.Event()

    async def stream(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        between.set()
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"b"})

    async with guarded(stream, tiers=TIERS) as api:
        _, secret = await api.key()
        task = asyncio.create_task(api.client(secret).get("/v1/skills"))
        await between.wait()
        api.app.app = ok
        assert await slots_left(api, secret) == 0
        go_on.set()
        assert (await task).content == b"ab"
        assert await slots_left(api, secret) == 1
