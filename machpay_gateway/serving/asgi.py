"""uvicorn inside a worker: it serves an application in the worker's event loop, and ends when it is told."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

_STARTED_SECONDS = 0.01
_ARRIVING_SECONDS = 0.1
_DRAIN_SECONDS = 5


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the worker."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nobody any more, and end when what comes from those who were accepted has been answered."""
        for server in self.servers:
            server.close()
        await asyncio.sleep(_ARRIVING_SECONDS)  # or whoever was accepted just now would lose the request
        await super().shutdown(sockets)


class AsgiServer:
    """Serves *app* on a *listener* of its own. The application's lifespan is the worker's to run."""

    def __init__(
        self, app: ASGIApp, listener: socket.socket, *, certificate: str | None = None, key: str | None = None
    ) -> None:
        """Be ready to start, speaking TLS if there is a *certificate* with its *key*."""
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_level="warning",
            access_log=False,
            proxy_headers=False,  # who is calling is the gateway's to find out
            timeout_graceful_shutdown=_DRAIN_SECONDS,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        self._server = _Server(config)
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

    async def stop(self) -> None:
        """Let what is under way end, and stop."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
