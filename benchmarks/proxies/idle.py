"""What a connection costs that was answered once and is kept open."""

import resource
import socket
import struct
import sys
import time
from contextlib import ExitStack, closing
from http.client import HTTPConnection

from benchmarks.processes import Server
from benchmarks.proxies.surroundings import status_of_answer

CONNECTIONS = 15_000
_SETTLING_SECONDS = 1.0
_OTHER_FILES = 200
_OK = 200


def raise_file_limit() -> None:
    """Let this process, and what it starts, have as many files open as it may give itself."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def bytes_per_idle_connection(server: Server, secret: str, *, files: int) -> float:
    """Return the memory that each of many connections costs *server*, once it has answered on them and they are quiet.

    It is what the last third of them takes: the others use up what starting left free, which is megabytes in Python.
    *files* is how many of those it may have open it counts for a connection.
    """
    possible = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_FILES) // files
    count = min(CONNECTIONS, possible) // 3
    with ExitStack() as stack:
        first = [_answered(stack, server, secret) for _ in range(2 * count)]
        time.sleep(_SETTLING_SECONDS)
        before = server.memory_bytes()
        more = [_answered(stack, server, secret) for _ in range(count)]
        time.sleep(_SETTLING_SECONDS)
        after = server.memory_bytes()
        closed = sum(map(_is_closed, first + more))
    if closed:
        sys.exit(f"{server.name} closed {closed} of {3 * count} connections that were to be idle.")
    return (after - before) / count


def _answered(stack: ExitStack, server: Server, secret: str) -> HTTPConnection:
    connection = stack.enter_context(closing(HTTPConnection("127.0.0.1", server.port, timeout=10)))
    connection.connect()
    # Closed by a reset, for thousands of connections that linger would leave too few ports to the next proxy.
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    status = status_of_answer(connection, secret)
    if status != _OK:
        sys.exit(f"{server.name} answered {status} on a connection that was to be idle.")
    return connection


def _is_closed(connection: HTTPConnection) -> bool:
    if connection.sock is None:  # the answer said so
        return True
    connection.sock.settimeout(0)
    try:
        return connection.sock.recv(1) == b""
    except BlockingIOError:
        return False
