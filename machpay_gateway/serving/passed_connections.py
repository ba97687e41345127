"""A listener behind proxies that speak the PROXY protocol: its header is read from the socket, before TLS."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

from machpay_gateway.core.network.forwarded import UNIX_PEER
from machpay_gateway.core.network.proxy_protocol import (
    MAX_HEADER_BYTES,
    PassedConnection,
    ProxyHeaderError,
    header_length,
    parse_header,
)
from machpay_gateway.log_throttle import LogThrottle

logger = logging.getLogger("machpay_gateway")

_MOST_AT_ONCE = 64  # connections accepted before anything else runs
_PAUSE_SECONDS = 1.0  # after the system has refused a connection, as without a file descriptor

Connect = Callable[[str], asyncio.Protocol]


class ProxyProtocolServer:
    """Accepts connections on *listening* and passes each to the protocol that *connect* makes for its client.

    Only peers that *trusts* accepts may send a header, and each connection must begin with one: a receiver that guesses
    would let clients write it.
    """

    def __init__(
        self,
        listening: socket.socket,
        connect: Connect,
        trusts: Callable[[str], bool],
        *,
        context: ssl.SSLContext | None,
        header_seconds: float,
    ) -> None:
        """Accept nothing yet. A header must arrive within *header_seconds*, and so must a handshake with *context*."""
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._connect = connect
        self._trusts = trusts
        self._context = context
        self._header_seconds = header_seconds
        self._throttle = LogThrottle(logger)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        listening.settimeout(0)

    def start(self) -> None:
        """Accept connections."""
        if not self._is_closed:
            self._loop.add_reader(self._listening.fileno(), self._accept)

    def close(self) -> None:
        """Accept no more connections. Those whose header is still arriving go on."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._listening.fileno())
            self._listening.close()

    def _accept(self) -> None:
        for _ in range(_MOST_AT_ONCE):
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                self._throttle.log(logging.ERROR, "A connection could not be accepted: %s", exc)
                self._loop.remove_reader(self._listening.fileno())
                self._loop.call_later(_PAUSE_SECONDS, self.start)
                return
            self._run(self._serve(connection))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        """Pass *connection* on by what its header says, or close it."""
        connection.settimeout(0)
        peer = ""
        try:
            peer = _peer_of(connection)
            passed = await self._header_of(connection, peer)
        except EOFError:  # a health check that only connects
            connection.close()
            return
        except (ProxyHeaderError, TimeoutError, OSError) as exc:
            connection.close()
            self._throttle.log(
                logging.WARNING,
                "A connection of %s was closed, because it did not begin with a valid header of the PROXY protocol: %s",
                peer or "a peer without an address",
                str(exc) or "it did not arrive in time",
            )
            return
        host = peer if passed.is_own else passed.host
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._connect(host),
                connection,
                ssl=self._context,
                ssl_handshake_timeout=None if self._context is None else self._header_seconds,
            )
        except (OSError, ssl.SSLError):  # a failed handshake, as of any other client
            connection.close()

    async def _header_of(self, connection: socket.socket, peer: str) -> PassedConnection:
        """Return what the header of *peer* says. Raises ProxyHeaderError, TimeoutError, OSError and EOFError."""
        if not self._trusts(peer):
            raise ProxyHeaderError("it is not in trusted_proxies")
        async with asyncio.timeout(self._header_seconds):
            return await self._read(connection)

    async def _read(self, connection: socket.socket) -> PassedConnection:
        """Return what the header says, and leave all that follows it in *connection*."""
        header = b""
        while True:
            try:
                data = connection.recv(MAX_HEADER_BYTES, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                await self._readable(connection)
                continue
            if not data:
                raise ProxyHeaderError("it ended") if header else EOFError
            length = header_length(header + data)
            # While the length is open, all that has arrived belongs to the header.
            header += connection.recv(len(data) if length is None else min(len(data), length - len(header)))
            if len(header) == length:
                return parse_header(header)

    async def _readable(self, connection: socket.socket) -> None:
        ready = asyncio.Event()
        file = connection.fileno()
        self._loop.add_reader(file, ready.set)
        try:
            await ready.wait()
        finally:
            self._loop.remove_reader(file)


def _peer_of(connection: socket.socket) -> str:
    """Return the address of the peer. Raises OSError after a reset."""
    if connection.family == socket.AF_UNIX:
        return UNIX_PEER
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return str(connection.getpeername()[0])
