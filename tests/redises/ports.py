"""Ports that stay reserved while nothing listens on them: a killed server restarts on the same one."""

import os
import random
import socket

HOST = "127.0.0.1"
# Below the range that systems pick from for outgoing connections (Linux: 32768 and up), or one of those could
# take the port of a server that is down. The bus of a cluster node is 10000 above its port, so these are too.
_PORTS = range(11_000, 21_000)
_BUS_OFFSET = 10_000
_WORKERS = 16  # of pytest-xdist, which share the ports out


def free_port() -> int:
    """Return a port that is free, as is its cluster bus port; another process may still take it first."""
    # Parallel tests draw from disjoint ranges, since some servers silently share a port that is taken. Parallel runs
    # must not draw the same ports either, so the run's random seed is not used.
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
