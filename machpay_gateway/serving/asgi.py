"""uvicorn inside a worker: it serves an application in the worker's event loop, and ends when it is told."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_STARTED_SECONDS = 0.01
_ARRIVING_SECONDS = 0.1
_POLL_SECONDS = 0.05
_DRAIN_SECONDS = 5.0
_KILL_SECONDS = 1  # beyond draining, for what does not end though its client is gone
_KEEPALIVE_SECONDS = 5.0


class _UvicornServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, *, drain_seconds: float, quiet_seconds: float) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._quiet_seconds = quiet_seconds

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the worker."""
        yield

    def refuse(self) -> None:
        """Accept nobody any more."""
        for server in self.servers:
            server.close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nobody any more, and end when what comes from those who were accepted has been answered."""
        self.refuse()
        await asyncio.sleep(_ARRIVING_SECONDS)  # or whoever was accepted just now would lose the request
        broken_off = asyncio.get_running_loop().call_later(self._drain_seconds, self._break_off)
        # What is quiet is closed first of all, though a request may be on its way on it.
        ends_at = time.monotonic() + self._quiet_seconds
        while self.server_state.connections and time.monotonic() < ends_at:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(_POLL_SECONDS)
        try:
            await super().shutdown(sockets)
        finally:
            broken_off.cancel()

    def _break_off(self) -> None:
        """Have what is under way end as when its client is gone; uvicorn would answer it with a 500."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()


class AsgiServer:
    """Serves *app* on a *listener* of its own. The application's lifespan is the worker's to run."""

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        *,
        certificate: str | None = None,
        key: str | None = None,
        keepalive_seconds: float = _KEEPALIVE_SECONDS,
        drain_seconds: float = _DRAIN_SECONDS,
        quiet_seconds: float = 0.0,
    ) -> None:
        """Be ready to start, speaking TLS if there is a *certificate* with its *key*.

        A connection may be quiet for *keepalive_seconds*. At a stop, what is under way has *drain_seconds*, of which
        connections that are kept open have *quiet_seconds* for one more request.
        """
        self._app = app
        config = uvicorn.Config(
            self._serve,
            interface="asgi3",
            lifespan="off",
            log_config=None,  # its own would write beside ours, and write whatever an exception holds
            log_level="warning",
            access_log=False,
            proxy_headers=False,  # who is calling is the gateway's to find out
            timeout_keep_alive=ceil(keepalive_seconds),
            timeout_graceful_shutdown=ceil(drain_seconds) + _KILL_SECONDS,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        self._server = _UvicornServer(config, drain_seconds=drain_seconds, quiet_seconds=quiet_seconds)
        self._is_closing = False
        self._listener = listener
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start, and return when it serves."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        while not self._server.started:
            if self._task.done():
                await self._task
                raise RuntimeError("uvicorn ended before it served")
            await asyncio.sleep(_STARTED_SECONDS)

    def refuse(self) -> None:
        """Accept nobody any more, and have those who were accepted go elsewhere after their next answer."""
        self._is_closing = True
        self._server.refuse()

    async def stop(self) -> None:
        """Let what is under way end, and stop."""
        self._is_closing = True
        self._server.should_exit = True
        if self._task is not None:
            await self._task

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_closing(message: Message) -> None:
            if self._is_closing and message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        await self._app(scope, receive, send_closing)
