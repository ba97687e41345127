"""One pipelined connection to one server: many commands are in flight at once, and their replies come in order.

It is held and shared: taking a connection from a pool for each command costs twice the processor time, as
`python -m benchmarks.transports` shows.
redis-py connects, over TLS if configured, and authenticates. Callers enforce the deadline of a reply.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.connection import DefaultParser
from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    MovedError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as ConnectionLost

from machpay_gateway.limiters.redis.resp import Argument, encode_command

Value = TypeVar("Value")
REPLY_TIMEOUT_SECONDS = 0.2  # after which the server counts as unavailable
STARVED_SECONDS = 0.05  # of these, for an event loop that was blocked itself while the reply was waiting to be read

Reply = object  # as hiredis parses it; an error reply is a RedisError


class LateReply(Exception):
    """The server took longer than it may."""

    def __init__(self, message: str = f"no reply within {REPLY_TIMEOUT_SECONDS * 1000:.0f} ms") -> None:
        super().__init__(message)


# Errors of a Cluster, which some versions of redis-py read only on connections of its own client for a Cluster.
_OF_A_CLUSTER: Mapping[str, Callable[[str], ResponseError]] = {
    "ASK": AskError,
    "CLUSTERDOWN": ClusterDownError,
    "CROSSSLOT": ClusterCrossSlotError,
    "MASTERDOWN": MasterDownError,
    "MOVED": MovedError,
    "TRYAGAIN": TryAgainError,
}
FAILURES = (RedisError, OSError, TimeoutError, LateReply)  # of servers, and of the way to them


def _error_of(text: str) -> Exception:
    """Return the exception for an error reply."""
    name, _, rest = text.partition(" ")
    kind = _OF_A_CLUSTER.get(name)
    if kind is not None:
        return kind(rest)
    error: Exception = DefaultParser.parse_error(text)  # type: ignore[no-untyped-call]  # redis-py's own
    return error


class RedisCall(NamedTuple):
    """An *encoded* command about one *key*.

    *on_reply* is called with the reply, once, unless the connection is lost first.
    """

    key: bytes
    encoded: bytes
    on_reply: Callable[[Reply], None]


class PipelinedConnection(Protocol):
    """Sends calls. It is lost once, for a reason; calls without a reply then never get one."""

    is_cluster: bool  # whether one call may name the keys of one subject only

    def send(self, calls: Sequence[RedisCall]) -> None:
        """Send *calls*, in order."""

    def fail(self, reason: Exception) -> None:
        """Give it up for *reason*, unless it is lost already."""

    async def wait_lost(self) -> Exception:
        """Wait until it is lost, and return the reason."""

    async def close(self) -> None:
        """Close it."""


def set_result(future: asyncio.Future[Value], value: Value) -> None:
    """Set the result of *future* unless it is done, as by a cancellation."""
    if not future.done():
        future.set_result(value)


async def execute(connection: PipelinedConnection, key: bytes, arguments: tuple[Argument, ...]) -> Reply:
    """Send one command and return its reply. Raises RedisError, and the reason for which the connection was lost."""
    replied: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    connection.send([RedisCall(key, encode_command(*arguments), partial(set_result, replied))])
    lost = asyncio.ensure_future(connection.wait_lost())
    either: list[asyncio.Future[Any]] = [replied, lost]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not replied.done():
        raise lost.result()
    lost.cancel()
    reply = replied.result()
    if isinstance(reply, RedisError):
        raise reply
    return reply


class LossSignal:
    """The loss of a connection: it happens once, for a reason."""

    def __init__(self) -> None:
        self._loss: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    @property
    def is_lost(self) -> bool:
        """Whether the connection is lost."""
        return self._loss.done()

    def fail(self, reason: Exception) -> None:
        """Give the connection up for *reason*, unless it is lost already."""
        set_result(self._loss, reason)

    async def wait_lost(self) -> Exception:
        """Wait until the connection is lost, and return the reason."""
        return await asyncio.shield(self._loss)


class ServerConnection(LossSignal, asyncio.Protocol):
    """A pipelined connection over the transport of a redis-py connection."""

    is_cluster = False

    def __init__(self, connection: AbstractConnection) -> None:
        """Take *connection* over once it is connected; nothing else may use it."""
        super().__init__()
        self._connection = connection
        self._transport: asyncio.WriteTransport
        self._reader = hiredis.Reader(protocolError=InvalidResponse, replyError=_error_of)
        self._callbacks: deque[Callable[[Reply], None]] = deque()  # of the calls in flight, in order

    @classmethod
    async def connect(cls, connection: AbstractConnection) -> Self:
        """Connect, and return the pipelined connection. Raises RedisError and OSError."""
        pipelined = cls(connection)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py's own
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        # Past redis-py's streams: their task for each write and each read adds 20 us to the wait of a lone request.
        pipelined._transport = connection._writer.transport  # type: ignore[union-attr]  # noqa: SLF001 - it offers no other way
        pipelined._transport.set_protocol(pipelined)
        return pipelined

    def send(self, calls: Sequence[RedisCall]) -> None:
        """Send *calls*, in order; none when the connection is lost."""
        if self.is_lost:
            return
        self._callbacks.extend(call.on_reply for call in calls)
        self._transport.writelines([call.encoded for call in calls])

    async def close(self) -> None:
        """Close it at once: no reply in flight is of use any more."""
        self.fail(ConnectionLost("closed"))
        self._transport.abort()
        await self._connection.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        """Pass each reply to the callback of its call."""
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._callbacks.popleft()(reply)
        except InvalidResponse as exc:
            self.fail(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the server, or something on the way to it, closed the connection."""
        self.fail(exc or ConnectionLost("the server closed the connection"))
