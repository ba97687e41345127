"""uvicorn, the same for everybody who is measured: `python -m benchmarks.server MODULE:NAME PORT`.

What start-up made is taken out of the garbage collector's full passes, as docs/operations.md advises. Whoever waits
for Redis keeps more alive at once than whoever does not, and would pay for a pass over all that is imported.
"""

import gc
import socket
import sys

import uvicorn


class FrozenServer(uvicorn.Server):
    """A server that freezes what there is once it has started."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and freeze."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()


def main(application: str, port: str) -> None:
    """Serve *application* on *port* until told to stop."""
    config = uvicorn.Config(
        application,
        port=int(port),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        proxy_headers=False,
        timeout_keep_alive=600,  # seconds; thousands of idle connections are not made within the default of 5
    )
    FrozenServer(config).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
