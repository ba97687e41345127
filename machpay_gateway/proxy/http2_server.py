"""An upstream server that speaks HTTP/2: its requests share connections."""

import asyncio
import random
from typing import cast

from machpay_gateway.proxy.http2.upstreams import Http2Upstream, UpstreamStream
from machpay_gateway.proxy.readers import ResponseReader
from machpay_gateway.proxy.upstream import UpstreamConnection
from machpay_gateway.proxy.upstream_server import SHARE_OF_AGE, UpstreamServer

_RETRY_SECONDS = 5.0  # for a new connection


class Http2Server(UpstreamServer):
    """A server whose connections are `Http2Upstream`; what it gives for a request is a stream."""

    # Set by `speak`, since the arguments of both classes are many.
    _responses: ResponseReader
    _scheme: bytes

    def speak(self, responses: ResponseReader, scheme: bytes) -> None:
        """Parse the heads of responses with *responses*; *scheme* is that of requests."""
        self._responses = responses
        self._scheme = scheme
        self._connections: list[Http2Upstream] = []
        self._dialing = asyncio.Lock()
        self._retries: set[asyncio.Task[None]] = set()

    def protocol(self) -> UpstreamConnection:
        """Return the protocol of a new connection."""
        return Http2Upstream(self._responses, self._scheme, self._retry)

    @property
    def idle(self) -> int:
        """How many connections have no request."""
        return sum(connection.is_idle for connection in self._connections)

    @property
    def is_in_use(self) -> bool:
        """Whether it has connections."""
        return bool(self._connections)

    def take_idle(self) -> UpstreamConnection | None:
        """Return a stream of a connection that has room, if any."""
        now = self._clock()
        for connection in self._connections:
            if connection.has_room and now < connection.expires_at:
                return connection.open()
        return None

    def give_back(self, connection: UpstreamConnection) -> None:
        """End a stream."""
        connection.abort()

    async def dial(self, seconds: float) -> UpstreamConnection:
        """Return a stream, of a new connection if all others are full. Raises as `connect` does."""
        async with asyncio.timeout(seconds or None), self._dialing:  # one at a time: the next may find room in it
            stream = self.take_idle()
            if stream is not None:
                return stream
            _, opened = await self._connect()
            connection = cast("Http2Upstream", opened)
            await connection.ready
        self.opened += 1
        if self._max_age_seconds:
            age = self._max_age_seconds * (1 - SHARE_OF_AGE * random.random())  # noqa: S311 - no secret
            connection.expires_at = self._clock() + age
        connection.idle_since = self._clock()
        self._connections = [each for each in self._connections if not each.is_closing]
        self._connections.append(connection)
        return connection.open()

    async def connect(self, seconds: float) -> UpstreamConnection:
        """Return a stream. Raises OSError, and TimeoutError after *seconds* unless they are 0."""
        return await self.dial(seconds)

    def move_to(self, addresses: frozenset[str]) -> None:
        """Give no more requests to the connections to other addresses than *addresses*."""
        for connection in list(self._connections):
            if connection.address not in addresses:
                connection.drain()

    def close_idle(self, now: float) -> None:
        """Close the connections that have been idle for too long, or are too old."""
        for connection in list(self._connections):
            if connection.expires_at <= now or (
                connection.is_idle and now - connection.idle_since >= self._keepalive_seconds
            ):
                connection.drain()
        self._connections = [each for each in self._connections if not each.is_closing]

    def close(self) -> None:
        """Close all connections that have no request."""
        for connection in self._connections:
            connection.drain()

    def _retry(self, stream: UpstreamStream) -> None:
        """Send the request of *stream* over another connection: the server has not begun with it."""
        task = asyncio.get_running_loop().create_task(self._send_again(stream))
        self._retries.add(task)
        task.add_done_callback(self._retries.discard)

    async def _send_again(self, stream: UpstreamStream) -> None:
        try:
            other = await self.dial(_RETRY_SECONDS)
        except (OSError, TimeoutError):
            stream.lost()
            return
        if stream.handler is not None:
            stream.attach(cast("UpstreamStream", other).connection)
