"""A uvicorn server in the worker's event loop, with a graceful shutdown."""

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_STARTUP_POLL_SECONDS = 0.01
_ACCEPT_GRACE_SECONDS = 0.1
_IDLE_POLL_SECONDS = 0.05
_DRAIN_SECONDS = 5.0
_ABORT_GRACE_SECONDS = 1  # after draining, for requests that ignore the disconnect of their client
_KEEPALIVE_SECONDS = 5.0


class _UvicornConfig(uvicorn.Config):
    """A configuration with a context for TLS of our own, instead of files."""

    def __init__(self, app: ASGIApp, *, context: ssl.SSLContext | None, **options: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(app, **options)
        self._context = context

    def load(self) -> None:
        """Load the configuration."""
        super().load()
        self.ssl = self._context


class _UvicornServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, *, drain_seconds: float, idle_grace_seconds: float) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._idle_grace_seconds = idle_grace_seconds

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers: the worker handles signals."""
        yield

    def stop_accepting(self) -> None:
        """Stop accepting connections."""
        for server in self.servers:
            server.close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting connections, and finish the requests on open ones."""
        self.stop_accepting()
        await asyncio.sleep(_ACCEPT_GRACE_SECONDS)  # for the request on a connection that was just accepted
        abort_timer = asyncio.get_running_loop().call_later(self._drain_seconds, self._abort_connections)
        # uvicorn closes idle connections first, but a request may be in transit on one of them.
        deadline = time.monotonic() + self._idle_grace_seconds
        while self.server_state.connections and time.monotonic() < deadline:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(_IDLE_POLL_SECONDS)
        try:
            await super().shutdown(sockets)
        finally:
            abort_timer.cancel()

    def _abort_connections(self) -> None:
        """Abort open connections, because uvicorn would send a 500 response to requests in flight."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()


class AsgiServer:
    """Serves *app* on its own *listeners*. The worker runs the application's lifespan."""

    def __init__(
        self,
        app: ASGIApp,
        *listeners: socket.socket,
        context: ssl.SSLContext | None = None,
        keepalive_seconds: float = _KEEPALIVE_SECONDS,
        drain_seconds: float = _DRAIN_SECONDS,
        idle_grace_seconds: float = 0.0,
    ) -> None:
        """Create the server, with TLS if a *context* is given.

        An idle connection is closed after *keepalive_seconds*. During a shutdown, requests in flight have
        *drain_seconds* to finish. Idle connections stay open for the first *idle_grace_seconds* of these, for one more
        request.
        """
        self._app = app
        config = _UvicornConfig(
            self._serve,
            interface="asgi3",
            lifespan="off",
            log_config=None,  # uvicorn's handlers would duplicate log lines and print the text of exceptions
            log_level="warning",
            access_log=False,
            proxy_headers=False,  # the gateway determines the client's address
            timeout_keep_alive=ceil(keepalive_seconds),
            timeout_graceful_shutdown=ceil(drain_seconds) + _ABORT_GRACE_SECONDS,
            context=context,
        )
        self._server = _UvicornServer(config, drain_seconds=drain_seconds, idle_grace_seconds=idle_grace_seconds)
        self._is_draining = False
        self._listeners = list(listeners)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the server. Returns when it accepts requests."""
        self._task = asyncio.create_task(self._server.serve(sockets=self._listeners))
        while not self._server.started:
            if self._task.done():
                await self._task
                raise RuntimeError("uvicorn stopped during startup")
            await asyncio.sleep(_STARTUP_POLL_SECONDS)

    def stop_accepting(self) -> None:
        """Stop accepting connections, and close open ones after their next response."""
        self._is_draining = True
        self._server.stop_accepting()

    async def stop(self) -> None:
        """Stop the server after requests in flight have finished."""
        self._is_draining = True
        self._server.should_exit = True
        if self._task is not None:
            await self._task

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_close_header(message: Message) -> None:
            if self._is_draining and message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        await self._app(scope, receive, send_with_close_header)
