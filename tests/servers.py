"""Real servers for tests: uvicorn in a thread of its own, on a port that the system picks."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn


class _Server(uvicorn.Server):
    """Says when it has started, or that it never will."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.settled.set()


@contextmanager
def serving(
    app: Any,  # noqa: ANN401 - any ASGI application
    *,
    listening: socket.socket | None = None,
    **config: Any,  # noqa: ANN401 - any option
) -> Iterator[tuple[str, int]]:
    """Serve *app* on loopback, on *listening* if it has to know its address before; yield its host and port."""
    listening = listening or socket.create_server(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(app, log_level="warning", proxy_headers=False, **config))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        assert server.settled.wait(20), "the server did not start"
        assert server.started, "the server refused to start"
        yield listening.getsockname()
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
        assert not thread.is_alive(), "the server did not stop"


def exchange(address: tuple[str, int], request: bytes) -> bytes:
    """Send a raw request that closes its connection, and return all that comes back."""
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(request)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        return received
