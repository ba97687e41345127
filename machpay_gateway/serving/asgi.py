"""uvicorn inside a worker: it serves an application in the worker's event loop, and shuts down gracefully."""

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
_KILL_SECONDS = 1  # beyond draining, for requests that ignore that their client disconnected
_KEEPALIVE_SECONDS = 5.0


class _UvicornServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, *, drain_seconds: float, quiet_seconds: float) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._quiet_seconds = quiet_seconds

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the worker: uvicorn would handle them itself."""
        yield

    def stop_accepting(self) -> None:
        """Accept no more connections."""
        for server in self.servers:
            server.close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections, and finish the requests of those that are open."""
        self.stop_accepting()
        await asyncio.sleep(_ARRIVING_SECONDS)  # or a connection that was just accepted would lose its request
        abort_timer = asyncio.get_running_loop().call_later(self._drain_seconds, self._abort_all)
        # uvicorn closes idle connections first, though a request may be on its way on one of them.
        ends_at = time.monotonic() + self._quiet_seconds
        while self.server_state.connections and time.monotonic() < ends_at:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(_POLL_SECONDS)
        try:
            await super().shutdown(sockets)
        finally:
            abort_timer.cancel()

    def _abort_all(self) -> None:
        """End requests in flight as if their clients had disconnected; uvicorn would answer them with a 500."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()


class AsgiServer:
    """Serves *app* on a *listener* of its own. The worker runs the application's lifespan."""

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
        """Prepare the server, which speaks TLS if there is a *certificate* with its *key*.

        An idle connection is closed after *keepalive_seconds*. At a stop, requests in flight have *drain_seconds* to
        finish; keep-alive connections stay open for *quiet_seconds* of these, for one more request.
        """
        self._app = app
        config = uvicorn.Config(
            self._serve,
            interface="asgi3",
            lifespan="off",
            log_config=None,  # its own handlers would duplicate our lines, and print whatever an exception contains
            log_level="warning",
            access_log=False,
            proxy_headers=False,  # the gateway determines the client's address
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
        """Start serving."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        while not self._server.started:
            if self._task.done():
                await self._task
                raise RuntimeError("uvicorn ended before it served")
            await asyncio.sleep(_STARTED_SECONDS)

    def stop_accepting(self) -> None:
        """Accept no more connections, and close each open one after its next response."""
        self._is_closing = True
        self._server.stop_accepting()

    async def stop(self) -> None:
        """Finish requests in flight, and stop."""
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
