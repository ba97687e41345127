"""One connection to one server, on which many commands are under way at once; their replies come in order.

Held and shared: taking a connection of a pool for each command costs twice the processor time (`make bench`).
redis-py connects, authenticates and parses; when a reply is late is for whoever asked to say.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, Self, cast

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import RedisError, ResponseError

Argument = bytes | str | int
Reply = object  # what hiredis makes of it; an error that the server answers with is a ResponseError


class Call(NamedTuple):
    """A command about one *key*; *answered* is called with its reply, once, unless the link ends before that."""

    key: bytes
    command: tuple[Argument, ...]
    answered: Callable[[Reply], None]


class Link(Protocol):
    """A way to send calls. It ends once, for a reason, and none of what was not answered then ever is."""

    splits: bool  # whether a call may name the keys of one subject only

    def send(self, calls: Sequence[Call]) -> None:
        """Send *calls*, in order."""

    def end(self, reason: Exception) -> None:
        """End it for *reason*, if it has not ended before."""

    async def ended(self) -> Exception:
        """Wait until it ends, and return why."""

    async def close(self) -> None:
        """End it, and let go of the connection."""


async def answer(link: Link, key: bytes, command: tuple[Argument, ...]) -> Reply:
    """Send one *command* and return its reply. Raises ResponseError, and what the link ended for."""
    waiting = asyncio.get_running_loop().create_future()
    link.send([Call(key, command, lambda reply: None if waiting.done() else waiting.set_result(reply))])
    ended = asyncio.ensure_future(link.ended())
    await asyncio.wait([waiting, ended], return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done():
        raise ended.result()
    ended.cancel()
    reply = waiting.result()
    if isinstance(reply, ResponseError):
        raise reply
    return reply


class ServerLink:
    """A link over one redis-py connection."""

    splits = False

    def __init__(self, connection: AbstractConnection) -> None:
        """Take *connection* over; nobody else may use it."""
        self._connection = connection
        self._expected: deque[Callable[[Reply], None]] = deque()
        self._writes: set[asyncio.Task[None]] = set()
        self._reading: asyncio.Task[None] | None = None
        self._end: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    @classmethod
    async def opened(cls, connection: AbstractConnection) -> Self:
        """Connect and return the link. Raises RedisError and OSError."""
        link = cls(connection)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py's own
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        link._reading = asyncio.create_task(link._read())
        return link

    def send(self, calls: Sequence[Call]) -> None:
        """Send *calls*, in order."""
        if self._end.done():
            return
        self._expected.extend(call.answered for call in calls)
        packed = [hiredis.pack_command(cast("tuple[bytes]", call.command)) for call in calls]  # any length, any mixture
        write = asyncio.create_task(self._write(packed))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    def end(self, reason: Exception) -> None:
        """End it for *reason*, if it has not ended before."""
        if not self._end.done():
            self._end.set_result(reason)

    async def ended(self) -> Exception:
        """Wait until it ends, and return why."""
        return await asyncio.shield(self._end)

    async def close(self) -> None:
        """End it, and let go of the connection."""
        self.end(ConnectionLost("closed"))
        tasks = [*self._writes, *([self._reading] if self._reading else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._connection.disconnect(nowait=True)

    async def _write(self, packed: list[bytes]) -> None:
        try:
            await self._connection.send_packed_command(packed, check_health=False)
        except (RedisError, OSError) as exc:
            self.end(exc)

    async def _read(self) -> None:
        read = self._connection.read_response
        while True:
            try:
                reply: Reply = await read(timeout=float("inf"))
            except ResponseError as exc:
                reply = exc
            except (RedisError, OSError) as exc:
                self.end(exc)
                return
            self._expected.popleft()(reply)
