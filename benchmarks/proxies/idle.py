"""What a connection costs that was answered once and is kept open."""

import resource
import sys
import time
from contextlib import ExitStack, closing
from http.client import HTTPConnection

from benchmarks.processes import Server
from benchmarks.proxies.surroundings import status_of_answer

CONNECTIONS = 4000
_SETTLING_SECONDS = 1.0
_FILES_OF_A_CONNECTION = 2  # HAProxy takes no more connections than would leave it one upstream each
_OTHER_FILES = 200
_OK = 200


def raise_file_limit() -> None:
    """Let this process, and what it starts, have as many files open as it may give itself."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def bytes_per_idle_connection(server: Server, secret: str) -> float:
    """Return the memory that each of many connections costs *server*, once it has answered on them and they are quiet.

    As many others are there before: they take up what starting and the first answers left free.
    """
    possible = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_FILES) // _FILES_OF_A_CONNECTION
    count = min(CONNECTIONS, possible // 2)
    with ExitStack() as stack:
        first = [_answered(stack, server, secret) for _ in range(count)]
        time.sleep(_SETTLING_SECONDS)
        before = server.memory_bytes()
        more = [_answered(stack, server, secret) for _ in range(count)]
        time.sleep(_SETTLING_SECONDS)
        after = server.memory_bytes()
        closed = sum(map(_is_closed, first + more))
    if closed:
        sys.exit(f"{server.name} closed {closed} of {2 * count} connections that were to be idle.")
    return (after - before) / count


def _answered(stack: ExitStack, server: Server, secret: str) -> HTTPConnection:
    connection = stack.enter_context(closing(HTTPConnection("127.0.0.1", server.port, timeout=10)))
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
