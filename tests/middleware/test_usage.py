"""Each decision is counted once, however its request ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from machpay_gateway import Route, Tier
from machpay_gateway.assembly import gateway as assembly
from machpay_gateway.core.usage.counters import DAY, UsageRow
from machpay_gateway.telemetry.usage import UsageRecorder
from tests.applications import ok
from tests.clocks import FixedClock
from tests.gateways import ROUTES, Guarded, guarded

EVER = 2**40
SKILLS = "GET /v1/skills"


@pytest.fixture
async def api() -> AsyncIterator[Guarded]:
    routes = [*ROUTES, Route("GET /live", scopes="skills:execute")]
    async with guarded(ok, routes=routes, tiers={"standard": Tier("1000/minute", 1)}) as it:
        yield it


async def rows(api: Guarded, subject: str = "") -> list[UsageRow]:
    await api.gateway.recorder.close()
    return list(await api.gateway.store.usage(subject, DAY, 0, EVER))


async def counted(api: Guarded, subject: str = "") -> list[tuple[str, str, int, int]]:
    return [(row.key.route, row.key.outcome, row.key.status, row.count) for row in await rows(api, subject)]


def answering(*messages: Message, error: BaseException | None = None) -> ASGIApp:
    """Return an application that sends *messages* and ends, by *error* if there is one."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        if error is not None:
            raise error

    return app


async def connected(api: Guarded, secret: str, kind: str = "http", path: str = "/v1/skills") -> None:
    """Call as a server does, one that nobody is connected to any more."""
    authorization = (b"authorization", f"Bearer {secret}".encode())
    scope = {"type": kind, "method": "GET", "path": path, "headers": [authorization], "client": None}

    async def receive() -> Message:
        return {"type": "http.disconnect" if kind == "http" else "websocket.connect"}

    async def send(_message: Message) -> None: ...

    await api.app(scope, receive, send)


START: Message = {"type": "http.response.start", "status": 202, "headers": []}
END: Message = {"type": "http.response.body", "body": b"b"}


async def test_responses_are_counted_by_route_and_status(api: Guarded) -> None:
    key_id, secret = await api.key()
    for _ in range(3):
        await api.client(secret).get("/v1/skills")
    await api.client(secret).get("/v1/skills/7")
    api.app.app = answering(START, END)
    await api.client(secret).get("/v1/skills")
    assert await counted(api, key_id) == [
        (SKILLS, "allowed", 200, 3),
        (SKILLS, "allowed", 202, 1),
        ("GET /v1/skills/{id}", "allowed", 200, 1),
    ]


@pytest.mark.parametrize(
    "kind, app, status",
    [
        ("http", answering(START, {**END, "more_body": True}, END), 202),
        ("http", answering(START), 202),  # gone in the middle of a stream
        ("http", answering(START, END, error=RuntimeError("after the answer")), 202),
        ("http", answering(START, error=RuntimeError("in the middle of it")), 202),
        ("http", answering(error=RuntimeError("before it")), 500),
        ("http", answering(error=asyncio.CancelledError()), 499),
        ("http", answering(), 499),  # an application that has nothing to say has nobody to say it to
        ("websocket", answering({"type": "websocket.accept"}, {"type": "websocket.close"}), 101),
        ("websocket", answering({"type": "websocket.accept"}, error=RuntimeError("connected")), 101),
        ("websocket", answering({"type": "websocket.close"}), 403),
        (
            "websocket",
            answering(
                {"type": "websocket.http.response.start", "status": 404, "headers": []},
                {"type": "websocket.http.response.body", "body": b""},
            ),
            404,
        ),
        ("websocket", answering(error=RuntimeError("before the handshake")), 500),
    ],
)
async def test_every_end_of_an_allowed_request_is_one_count(api: Guarded, kind: str, app: ASGIApp, status: int) -> None:
    key_id, secret = await api.key()
    api.app.app = app
    path, route = ("/live", "GET /live") if kind == "websocket" else ("/v1/skills", SKILLS)
    await asyncio.gather(connected(api, secret, kind, path), return_exceptions=True)
    assert await counted(api, key_id) == [(route, "allowed", status, 1)]


async def test_a_request_is_counted_at_the_end_of_its_response() -> None:
    ended, go_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await ok(scope, receive, send)
        ended.set()
        await go_on.wait()

    async with guarded(app) as api:
        key_id, secret = await api.key()
        task = asyncio.create_task(api.client(secret).get("/v1/skills"))
        await ended.wait()
        assert await counted(api, key_id) == [(SKILLS, "allowed", 200, 1)]
        go_on.set()
        await task
        assert await counted(api, key_id) == [(SKILLS, "allowed", 200, 1)]


async def test_a_websocket_is_counted_when_it_is_accepted() -> None:
    accepted, go_on = asyncio.Event(), asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        accepted.set()
        await go_on.wait()

    async with guarded(app) as api:
        key_id, secret = await api.key()
        task = asyncio.create_task(connected(api, secret, "websocket"))
        await accepted.wait()
        assert await counted(api, key_id) == [(SKILLS, "allowed", 101, 1)]
        go_on.set()
        await task
        assert await counted(api, key_id) == [(SKILLS, "allowed", 101, 1)]


async def test_the_duration_ends_with_the_response(monkeypatch: pytest.MonkeyPatch) -> None:
    timer = FixedClock(5000.0)
    monkeypatch.setattr("machpay_gateway.middleware.perf_counter", timer)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        timer.advance(0.25)
        await ok(scope, receive, send)
        timer.advance(60)

    monkeypatch.setattr(assembly, "UsageRecorder", partial(UsageRecorder, timer=timer))
    async with guarded(app) as api:
        key_id, secret = await api.key()
        await api.client(secret).get("/v1/skills")
        [row] = await rows(api, key_id)
        assert row.seconds == 0.25


Ask = Callable[[Guarded], Awaitable[Any]]


@pytest.mark.parametrize(
    "ask, row",
    [
        (lambda api: api.client().get("/v1/skills"), (SKILLS, "missing_credentials", 401)),
        (lambda api: api.client("junk").get("/v1/skills"), (SKILLS, "invalid_credentials", 401)),
        (lambda api: api.client().get("/v1//skills"), ("", "malformed_request", 400)),
        (lambda api: api.client().get("/nowhere"), ("", "route_not_found", 404)),
        (lambda api: api.client().get("/healthz"), ("GET /healthz", "allowed", 200)),
    ],
)
async def test_unidentified_callers_are_counted_without_a_key(ask: Ask, row: tuple[str, str, int]) -> None:
    async with guarded(ok, unlisted_routes="deny") as api:
        await ask(api)
        assert await counted(api) == [(*row, 1)]


async def test_a_refused_key_is_counted_under_its_reason() -> None:
    async with guarded(ok, tiers={"standard": Tier("1/minute", 1)}) as api:
        key_id, secret = await api.key(scopes=["skills:list"])
        await api.client(secret).post("/v1/skills/execute")
        for _ in range(2):
            await api.client(secret).get("/v1/skills")
        await api.gateway.keys.revoke(None, key_id)
        await api.client(secret).get("/v1/skills")
        assert await counted(api, key_id) == [
            (SKILLS, "allowed", 200, 1),
            (SKILLS, "invalid_credentials", 401, 1),
            (SKILLS, "rate_limited", 429, 1),
            ("POST /v1/skills/execute", "insufficient_scope", 403, 1),
        ]
        assert await counted(api) == []


async def test_a_refused_request_is_a_use_of_its_secret(api: Guarded) -> None:
    key_id, secret = await api.key(scopes=["skills:list"])
    unused = await api.gateway.keys.get(None, key_id)
    await api.client(secret).post("/v1/skills/execute")
    assert await counted(api, key_id) == [("POST /v1/skills/execute", "insufficient_scope", 403, 1)]
    used = await api.gateway.keys.get(None, key_id)
    assert unused is not None
    assert used is not None
    assert unused.last_used_at is None
    assert used.last_used_at is not None


async def test_a_failure_limited_key_is_counted_under_its_id() -> None:
    async with guarded(ok, failure_limit="1/minute") as api:
        key_id, secret = await api.key()
        await api.gateway.keys.revoke(None, key_id)
        for _ in range(3):
            await api.client(secret).get("/v1/skills")
        assert {outcome for _, outcome, _, _ in await counted(api, key_id)} == {
            "invalid_credentials",
            "too_many_failures",
        }


async def test_use_of_the_old_secret_is_recorded(api: Guarded) -> None:
    key_id, old = await api.key()
    await api.client(old).get("/v1/skills")
    rotated = await api.gateway.keys.rotate(None, key_id)
    assert rotated is not None
    await api.client(rotated[1]).get("/v1/skills")
    await rows(api)
    before = await api.gateway.keys.get(None, key_id)
    await api.client(old).get("/v1/skills")
    await rows(api)
    after = await api.gateway.keys.get(None, key_id)
    assert before is not None
    assert after is not None
    assert after.secrets[0].last_used_at == before.secrets[0].last_used_at is not None
    assert (after.secrets[1].last_used_at or 0) > (before.secrets[1].last_used_at or 0) > 0
    assert after.last_used_at == after.secrets[1].last_used_at
