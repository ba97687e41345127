"""The demo's upstreams: the sample API on free ports, each in a thread of its own."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

_STOP_SECONDS = 5


@contextmanager
def serving_sample(app: ASGIApp) -> Iterator[str]:
    """Serve *app* on loopback until the block ends, and yield its URL. Connections wait until it has started."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app,
            # By default, old versions of uvicorn make uvloop the event loop of the whole process. Under uvloop, a
            # process cannot be started in a process group, as the supervisor does.
            loop="asyncio",
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        # A daemon thread, so that the demo exits without waiting for it.
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        host, port = listener.getsockname()
        try:
            yield f"http://{host}:{port}"
        finally:
            server.should_exit = True
            thread.join(_STOP_SECONDS)
