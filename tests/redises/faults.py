"""A TCP proxy that injects the faults of networks: delays, refused connections, resets and lost bytes."""

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from tests.redises.ports import HOST, free_port

_T = TypeVar("_T")
_CHUNK_BYTES = 65536
_PORT_TRIES = 10
_CALL_SECONDS = 10
# Two chunks due at the same moment might be delivered in either order: so no two are.
_TICK_SECONDS = 1e-6
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class _Line:
    """The state that both directions of a connection share: after it *lost* bytes, it forwards none."""

    lost: bool = False


class FaultProxy:
    """A proxy in front of *target_port* inside its `with` block; its switches may be changed while it runs.

    *delay_seconds* delays each direction, in order: a reply comes two delays after its command. *blackhole* keeps
    connections open, accepts new ones, and forwards nothing. A connection that lost bytes stays dead when it is
    switched off, because replies of a stream with a gap would match the wrong commands.
    With *tls*, clients speak TLS to the proxy, and the proxy plain text to the server.

    It runs in a thread with an event loop of its own, so that a test may block without blocking the proxy.
    """

    def __init__(self, target_port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self.delay_seconds = 0.0
        self.blackhole = False
        self.accepted = 0  # connections since the start
        self._target_port = target_port
        self._tls = tls
        self._writers: set[asyncio.StreamWriter] = set()
        self._listening: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    @property
    def url(self) -> str:
        """Return the URL of the server through this proxy, without TLS."""
        return f"redis://{HOST}:{self.port}/0"

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._call(self._open())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._call(self._close())
        finally:
            self._end()

    def refuse(self) -> None:
        """Refuse new connections; open ones stay."""
        self._call(self._stop_listening())

    def accept(self) -> None:
        """Accept connections again, on the same port."""
        self._call(self._listen())

    def reset_all(self) -> None:
        """Close all open connections with a TCP reset, to the client and to the server."""
        self._call(self._reset_all())

    def _call(self, coroutine: Coroutine[None, None, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_CALL_SECONDS)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_SECONDS)
        assert not self._thread.is_alive(), "the proxy's loop did not stop"
        self._loop.close()

    async def _open(self) -> None:
        for attempt in range(_PORT_TRIES):
            self.port = free_port()
            try:
                return await self._listen()
            except OSError:
                if attempt == _PORT_TRIES - 1:
                    raise
        return None

    async def _listen(self) -> None:
        if self._listening is None:
            self._listening = await asyncio.start_server(self._relay, HOST, self.port, ssl=self._tls)

    async def _stop_listening(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    async def _reset_all(self) -> None:
        for writer in list(self._writers):
            connection: socket.socket = writer.get_extra_info("socket")
            if connection.fileno() < 0:  # closed by an end just now, and still in the set
                continue
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()
        await asyncio.sleep(0)  # the sockets close in the loop's next round

    async def _close(self) -> None:
        await self._stop_listening()
        await asyncio.sleep(0)  # a connection accepted just now is not in the set yet
        for writer in list(self._writers):
            writer.transport.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _relay(self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        line = _Line()
        with suppress(OSError):  # an end that resets is like one that closes: the other follows
            async with self._registered(client_writer):
                if self.blackhole:
                    return await self._swallow(client_reader)
                server_reader, server_writer = await asyncio.open_connection(HOST, self._target_port)
                async with self._registered(server_writer), asyncio.TaskGroup() as directions:
                    upward = directions.create_task(self._forward(client_reader, server_writer, line))
                    downward = directions.create_task(self._forward(server_reader, client_writer, line))
                    await asyncio.wait((upward, downward), return_when=asyncio.FIRST_COMPLETED)
                    if line.lost:
                        await upward  # the end of the server's stream is swallowed too
                    upward.cancel()
                    downward.cancel()
        return None

    async def _swallow(self, source: asyncio.StreamReader) -> None:
        while await source.read(_CHUNK_BYTES):
            pass

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, line: _Line) -> None:
        """Forward *source* to *sink*, each chunk after its delay, and return after the last."""
        due = 0.0
        with suppress(OSError):
            while data := await source.read(_CHUNK_BYTES):
                line.lost |= self.blackhole
                due = self._due_after(due)
                self._loop.call_at(due, self._deliver, data, sink, line)
        line.lost |= self.blackhole
        await asyncio.sleep(self._due_after(due) - self._loop.time())

    def _due_after(self, due: float) -> float:
        return max(due + _TICK_SECONDS, self._loop.time() + self.delay_seconds)

    def _deliver(self, data: bytes, sink: asyncio.StreamWriter, line: _Line) -> None:
        line.lost |= self.blackhole  # it may have been switched on during the delay
        if not line.lost and not sink.is_closing():
            sink.write(data)

    @asynccontextmanager
    async def _registered(self, writer: asyncio.StreamWriter) -> AsyncIterator[None]:
        """Let `reset_all` reset the connection of *writer* until it is closed."""
        self._writers.add(writer)
        try:
            yield
        finally:
            writer.close()
            try:
                await writer.wait_closed()
            finally:
                self._writers.discard(writer)
