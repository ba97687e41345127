"""Ports that stay ours while nothing listens on them: a killed server comes back on the same one."""

import os
import random
import socket

HOST = "127.0.0.1"
# Below the range that systems pick from for outgoing connections (Linux: 32768 and up), or one of those could
# take the port of a server that is down. The bus of a cluster node is 10000 above its port, so these are too.
_PORTS = range(11_000, 21_000)
_BUS_OFFSET = 10_000
_WORKERS = 16  # of pytest-xdist, between which the ports are dealt out


def free_port() -> int:
    """Return a port that nobody listens on, and whose cluster bus port is free; another process may be faster."""
    # Tests in parallel draw from ports of their own: some servers share a port with whoever came before, unasked. Runs
    # in parallel must not draw the same ones either, so the seed of the run is not asked.
    draw, ports = random.SystemRandom(), _PORTS[_worker() :: _WORKERS]
    for _ in range(100):
        port = draw.choice(ports)
        if _is_free(port) and _is_free(port + _BUS_OFFSET):
            return port
    raise OSError(f"No free port found in {_PORTS.start}–{_PORTS.stop - 1} in 100 tries")


def _worker() -> int:
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: connections that linger on a port do not make it taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
