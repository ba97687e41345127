"""One server of an upstream: its idle connections, its load and its health."""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from hashlib import sha256

from machpay_gateway.core.network.upstream_options import UpstreamOptions
from machpay_gateway.log_throttle import LogThrottle
from machpay_gateway.proxy.upstream import UpstreamConnection

logger = logging.getLogger(__name__)

_MAX_IDLE = 256  # connections to each server
_TICK_SECONDS = 1.0  # between two calls of `close_idle`
_SHARE_OF_AGE = 0.1  # by which ages differ, so that connections opened together are not replaced together
_MAX_FAILURES = 5  # in a row, before a server is ejected
_FIRST_EJECTION, _LONGEST_EJECTION = 5.0, 300.0  # seconds

# Why a server failed, as the metrics count it.
CONNECT, TIMEOUT, LOST, MALFORMED = "connect", "timeout", "lost", "malformed"

Connect = Callable[[], Awaitable[tuple[object, UpstreamConnection]]]  # as a loop's create_connection returns it


DEFAULTS = UpstreamOptions()


class UpstreamServer:
    """One address of an upstream: its idle connections, its load and its health."""

    def __init__(
        self,
        name: str,
        connect: Connect,
        *,
        options: UpstreamOptions = DEFAULTS,
        weight: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open connections with *connect*. *name* is for the log, and for hashing; *clock* is monotonic, in seconds.

        *weight* is its share of the requests, beside those of the other servers.
        """
        self.name = name
        self.weight = float(weight)
        self.hash_key = sha256(name.encode()).digest()
        self._clock = clock
        self._keepalive_seconds = float(options.keepalive_seconds)
        self._max_age_seconds = float(options.max_age_seconds)
        # `close_idle` comes in time for longer ones.
        self._checks_idle_time = self._keepalive_seconds < 2 * _TICK_SECONDS
        self._addresses: frozenset[str] | None = None  # once earlier ones are gone
        self.in_flight = 0
        self.opened = 0
        self.errors = dict.fromkeys((CONNECT, TIMEOUT, LOST, MALFORMED), 0)
        self.ejected_until = float("-inf")
        self._connect = connect
        self._idle: deque[UpstreamConnection] = deque()
        self._failures = 0
        self._ejections = 0
        self._throttle = LogThrottle(logger, clock=clock)

    @property
    def idle(self) -> int:
        """How many idle connections are open for the next requests."""
        return len(self._idle)

    def take_idle(self) -> UpstreamConnection | None:
        """Return the most recently used idle connection that is open, if any."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_closing:
                continue
            if self._checks_idle_time and self._clock() - connection.idle_since >= self._keepalive_seconds:
                connection.abort()
                continue
            return connection
        return None

    def give_back(self, connection: UpstreamConnection) -> None:
        """Store *connection* for the next request, or close it if it may get none."""
        now = self._clock()
        if now >= connection.expires_at or (self._addresses is not None and connection.address not in self._addresses):
            connection.abort()
            return
        connection.handler = connection.body = None
        connection.is_reused = True
        connection.idle_since = now
        self._idle.append(connection)
        if len(self._idle) > _MAX_IDLE:
            self._idle.popleft().abort()

    async def connect(self, seconds: float) -> UpstreamConnection:
        """Return a new connection. Raises OSError, and TimeoutError after *seconds* unless they are 0."""
        async with asyncio.timeout(seconds or None):
            _, connection = await self._connect()
        self.opened += 1
        if self._max_age_seconds:
            age = self._max_age_seconds * (1 - _SHARE_OF_AGE * random.random())  # noqa: S311 - no secret
            connection.expires_at = self._clock() + age
        return connection

    def record_success(self) -> None:
        """Record a response: the server is healthy."""
        self._failures = 0
        if self._ejections:
            self._throttle.log(logging.WARNING, "Upstream %s answers again.", self.name)
            self._ejections = 0

    def record_failure(self, reason: str, detail: str) -> None:
        """Record a failure; too many in a row eject the server, each time for twice as long.

        *reason* is one of the constants above; *detail* is for the log.
        """
        now = self._clock()
        self.errors[reason] += 1
        self._failures += 1
        # After an ejection, a single failure shows that the server has not recovered.
        if self._failures < _MAX_FAILURES and not self._ejections:
            return
        if now < self.ejected_until:
            return
        seconds = min(_FIRST_EJECTION * 2**self._ejections, _LONGEST_EJECTION)
        self._ejections += 1
        self.ejected_until = now + seconds
        self._throttle.log(
            logging.WARNING, "Upstream %s fails (%s); others are preferred for %.0f s.", self.name, detail, seconds
        )

    @property
    def is_in_use(self) -> bool:
        """Whether it has connections."""
        return bool(self._idle) or self.in_flight > 0

    def move_to(self, addresses: frozenset[str]) -> None:
        """Close the connections to other addresses than *addresses*: idle ones now, others after their request."""
        self._addresses = addresses
        self._close(lambda connection: connection.address not in addresses)

    def close_idle(self, now: float) -> None:
        """Close the connections that will have been idle for too long, or be too old, at the next call in a second."""
        unused_since = now - max(self._keepalive_seconds - _TICK_SECONDS, 0.0)
        while self._idle and self._idle[0].idle_since <= unused_since:
            self._idle.popleft().abort()
        if self._max_age_seconds and self._idle:
            self._close(lambda connection: connection.expires_at <= now)

    def close(self) -> None:
        """Close all idle connections."""
        self._close(lambda _: True)

    def _close(self, is_closed: Callable[[UpstreamConnection], bool]) -> None:
        """Close the idle connections of which *is_closed* is true."""
        idle, self._idle = self._idle, deque()
        for connection in idle:
            if is_closed(connection):
                connection.abort()
            else:
                self._idle.append(connection)
