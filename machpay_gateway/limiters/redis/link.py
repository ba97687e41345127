"""One connection to one server, on which many commands are under way at once; their replies come in order.

Held and shared: taking a connection of a pool for each command costs twice the processor time, as
`python -m benchmarks.transports` shows.
redis-py connects, over TLS if need be, and authenticates; when a reply is late is for whoever asked to say.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.connection import DefaultParser
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import InvalidResponse, RedisError

from machpay_gateway.limiters.redis.wire import Argument, command

Value = TypeVar("Value")
Reply = object  # what hiredis makes of it; an error that the server answers with is a RedisError


class RedisCall(NamedTuple):
    """A *written* command about one *key*.

    *answered* is called with its reply, once, unless the link ends before that.
    """

    key: bytes
    written: bytes
    answered: Callable[[Reply], None]


class Link(Protocol):
    """A way to send calls. It ends once, for a reason, and none of what was not answered then ever is."""

    splits: bool  # whether a call may name the keys of one subject only

    def send(self, calls: Sequence[RedisCall]) -> None:
        """Send *calls*, in order."""

    def end(self, reason: Exception) -> None:
        """End it for *reason*, if it has not ended before."""

    async def ended(self) -> Exception:
        """Wait until it ends, and return why."""

    async def close(self) -> None:
        """End it, and let go of the connection."""


def bring(waiting: asyncio.Future[Value], value: Value) -> None:
    """Give *value* to whoever waits, unless they have gone."""
    if not waiting.done():
        waiting.set_result(value)


async def answer(link: Link, key: bytes, arguments: tuple[Argument, ...]) -> Reply:
    """Send one command of *arguments* and return its reply. Raises RedisError, and what the link ended for."""
    waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    link.send([RedisCall(key, command(*arguments), partial(bring, waiting))])
    ended = asyncio.ensure_future(link.ended())
    either: list[asyncio.Future[Any]] = [waiting, ended]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done():
        raise ended.result()
    ended.cancel()
    reply = waiting.result()
    if isinstance(reply, RedisError):
        raise reply
    return reply


class Ending:
    """What ends once, for a reason."""

    def __init__(self) -> None:
        self._end: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    @property
    def has_ended(self) -> bool:
        """Whether it has."""
        return self._end.done()

    def end(self, reason: Exception) -> None:
        """End it for *reason*, if it has not ended before."""
        bring(self._end, reason)

    async def ended(self) -> Exception:
        """Wait until it ends, and return why."""
        return await asyncio.shield(self._end)


class ServerLink(Ending, asyncio.Protocol):
    """A link over the transport of one redis-py connection."""

    splits = False

    def __init__(self, connection: AbstractConnection) -> None:
        """Take *connection* over once it is connected; nobody else may use it."""
        super().__init__()
        self._connection = connection
        self._transport: asyncio.WriteTransport
        self._reader = hiredis.Reader(protocolError=InvalidResponse, replyError=DefaultParser.parse_error)
        self._expected: deque[Callable[[Reply], None]] = deque()

    @classmethod
    async def opened(cls, connection: AbstractConnection) -> Self:
        """Connect and return the link. Raises RedisError and OSError."""
        link = cls(connection)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py's own
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        # Past redis-py's streams: a task for each write and one for each read cost a lone request 20 us of its wait.
        link._transport = connection._writer.transport  # type: ignore[union-attr]  # noqa: SLF001 - it offers no other way
        link._transport.set_protocol(link)
        return link

    def send(self, calls: Sequence[RedisCall]) -> None:
        """Send *calls*, in order."""
        if self.has_ended:
            return
        self._expected.extend(call.answered for call in calls)
        self._transport.writelines([call.written for call in calls])

    async def close(self) -> None:
        """End it, and let go of the connection: at once, for nothing that it could still bring has a use."""
        self.end(ConnectionLost("closed"))
        self._transport.abort()
        await self._connection.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        """Hand each reply to whoever waits for it."""
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._expected.popleft()(reply)
        except InvalidResponse as exc:
            self.end(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """End it: the server, or something on the way, has closed the connection."""
        self.end(exc or ConnectionLost("the server closed the connection"))
