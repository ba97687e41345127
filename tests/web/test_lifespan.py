import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from machpay_gateway.web.lifespan import run_lifespan

STARTUP, SHUTDOWN = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}


class Server:
    """A server's side of one lifespan, and a resource: all that happens to both is in `events`, in its order."""

    def __init__(self, *, cannot_open: Exception | None = None) -> None:
        self.events: list[str] = []
        self.closings = 0
        self.messages = [SHUTDOWN, STARTUP]
        self.failure: Message | None = None
        self._cannot_open = cannot_open

    async def serve(self) -> None:
        self.events.append("open")
        if self._cannot_open is not None:
            raise self._cannot_open

    async def close(self) -> None:
        """Close once, as `run_lifespan` may count on."""
        self.closings += 1
        if self.closings == 1:
            self.events.append("close")

    async def receive(self) -> Message:
        return self.messages.pop()

    async def send(self, message: Message) -> None:
        self.events.append(message["type"].removeprefix("lifespan."))
        if message["type"].endswith("failed"):
            self.failure = message

    async def run(self, app: ASGIApp) -> list[str]:
        await run_lifespan(app, {"type": "lifespan"}, self.receive, self.send, self)
        return self.events


Notes = Callable[[str], None]


def speaking(note: Notes) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        assert (await receive()) == STARTUP
        note("app starts")
        await send({"type": "lifespan.startup.complete"})
        assert (await receive()) == SHUTDOWN
        note("app stops")
        await send({"type": "lifespan.shutdown.complete"})

    return app


async def test_the_gateway_opens_before_and_closes_after_the_application() -> None:
    server = Server()
    assert await server.run(speaking(server.events.append)) == [
        "open",
        "app starts",
        "startup.complete",
        "app stops",
        "close",
        "shutdown.complete",
    ]


async def raises_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotImplementedError(scope["type"])


async def raises_after_reading(_scope: Scope, receive: Receive, _send: Send) -> None:
    await receive()
    raise AssertionError


async def returns_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive, send


async def returns_after_reading(_scope: Scope, receive: Receive, _send: Send) -> None:
    await receive()


@pytest.mark.parametrize("app", [raises_at_once, raises_after_reading, returns_at_once, returns_after_reading])
async def test_an_application_without_lifespan_support_starts_and_stops(
    app: Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]],
) -> None:
    server = Server()
    assert await server.run(app) == ["open", "startup.complete", "close", "shutdown.complete"]
    assert server.messages == []


@pytest.mark.parametrize("also_raises", [True, False])
async def test_an_application_that_fails_to_start_closes_the_gateway(*, also_raises: bool) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        if also_raises:  # as Starlette does
            raise OSError

    server = Server()
    if also_raises:
        with pytest.raises(OSError):  # noqa: PT011 - without words of its own
            await server.run(app)
    else:
        await server.run(app)
    assert server.events == ["open", "close", "startup.failed"]
    assert server.failure == {"type": "lifespan.startup.failed", "message": "no database"}


async def test_an_application_that_fails_to_stop_closes_the_gateway() -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "cannot flush"})

    server = Server()
    assert await server.run(app) == ["open", "startup.complete", "close", "shutdown.failed"]


@pytest.mark.parametrize("error", [RuntimeError("crashed"), asyncio.CancelledError()])
async def test_an_application_that_dies_while_serving_closes_the_gateway(error: BaseException) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise error

    server = Server()
    with pytest.raises(type(error)):
        await server.run(app)
    assert server.events == ["open", "startup.complete", "close"]


async def test_an_application_that_stops_silently_closes_the_gateway() -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()

    server = Server()
    assert await server.run(app) == ["open", "startup.complete", "close"]


async def test_a_failed_open_fails_the_startup_before_the_application_runs() -> None:
    server = Server(cannot_open=OSError("the database is away"))
    with pytest.raises(OSError, match="the database is away"):
        await server.run(speaking(server.events.append))
    assert server.events == ["open", "startup.failed"]
    assert server.failure == {"type": "lifespan.startup.failed", "message": "the database is away"}


@pytest.mark.parametrize("is_spoken_for", [True, False])
async def test_a_server_that_cancels_the_lifespan_closes_the_gateway(*, is_spoken_for: bool) -> None:
    serving = asyncio.Event()

    async def receive_until_cancelled() -> Message:
        if server.messages and server.messages[-1] == STARTUP:
            return server.messages.pop()
        serving.set()
        await asyncio.Event().wait()
        raise AssertionError

    server = Server()
    app = returns_at_once if is_spoken_for else speaking(server.events.append)
    run = asyncio.create_task(run_lifespan(app, {"type": "lifespan"}, receive_until_cancelled, server.send, server))
    await serving.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert server.events[-1] == "close"
