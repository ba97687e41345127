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
SHARE_OF_AGE = 0.1  # by which ages differ, so that connections opened together are not replaced together
_MAX_FAILURES = 5  # in a row, before a server is ejected
_FIRST_EJECTION, _LONGEST_EJECTION = 5.0, 300.0  # seconds
_WINDOW_SECONDS = 10.0  # in which responses with a 5xx status are counted
_FEWEST_RESPONSES = 10  # in such a window, for a share to mean anything
_SERVER_ERROR = 500
_SLOWEST_START = 0.1  # of its weight, that a server which is back begins with

# Why a server failed, as the metrics count it.
CONNECT, TIMEOUT, LOST, MALFORMED = "connect", "timeout", "lost", "malformed"

Connect = Callable[[], Awaitable[tuple[object, UpstreamConnection]]]  # as a loop's create_connection returns it


DEFAULTS = UpstreamOptions()


class UpstreamServer:
    """One address of an upstream: its idle connections, its load and its health.

    *is_healthy* is the result of health checks, *problem* what is wrong with a server that is out. *may_be_ejected*
    says whether its pool can do without it.
    """

    def __init__(
        self,
        name: str,
        connect: Connect,
        *,
        options: UpstreamOptions = DEFAULTS,
        weight: int = 1,
        authority: bytes = b"",
        check_host: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open connections with *connect*. *name* is for the log, and for hashing; *clock* is monotonic, in seconds.

        *weight* is its share of the requests, beside those of the other servers. *authority* is its name
        and port, *check_host* the Host of health checks.
        """
        self.name = name
        self.authority = authority
        self.check_host = check_host
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
        self.is_healthy = True
        self.problem = ""
        self.may_be_ejected: Callable[[UpstreamServer], bool] | None = None
        self._healthy_since = float("-inf")
        self._slow_start_seconds = float(options.slow_start_seconds)
        self._eject_5xx_rate = float(options.eject_5xx_rate)
        self._window_began_at = float("-inf")
        self._window_responses = self._window_errors = 0
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

    async def dial(self, seconds: float) -> UpstreamConnection:
        """Return a new connection, not for requests of callers. Raises as `connect` does."""
        async with asyncio.timeout(seconds or None):
            _, connection = await self._connect()
        return connection

    async def connect(self, seconds: float) -> UpstreamConnection:
        """Return a new connection. Raises OSError, and TimeoutError after *seconds* unless they are 0."""
        connection = await self.dial(seconds)
        self.opened += 1
        if self._max_age_seconds:
            age = self._max_age_seconds * (1 - SHARE_OF_AGE * random.random())  # noqa: S311 - no secret
            connection.expires_at = self._clock() + age
        return connection

    def is_out(self, now: float) -> bool:
        """Return whether others are preferred *now*."""
        return not self.is_healthy or self.ejected_until > now

    def weight_at(self, now: float) -> float:
        """Return its weight *now*, which grows while a server that is back starts slowly."""
        if not self._slow_start_seconds:
            return self.weight
        ramp = (now - max(self._healthy_since, self.ejected_until)) / self._slow_start_seconds
        return self.weight * min(max(ramp, _SLOWEST_START), 1.0)

    def set_health(self, *, is_healthy: bool, problem: str) -> None:
        """Store the result of health checks; *problem* is what is wrong with an unhealthy server."""
        if is_healthy and not self.is_healthy:
            self._healthy_since = self._clock()
        self.is_healthy = is_healthy
        self.problem = problem

    def record_response(self, status: int) -> None:
        """Record the head of a response: the server is there, and works unless its responses with 5xx count."""
        if self._eject_5xx_rate and self._is_error(status):
            return
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
        if self._failures >= _MAX_FAILURES or self._ejections:
            self._eject(now, detail)

    def _is_error(self, status: int) -> bool:
        """Count a response; return whether it is an error, and eject the server if too many of the latest were."""
        now = self._clock()
        if now - self._window_began_at >= _WINDOW_SECONDS:
            self._window_began_at = now
            self._window_responses = self._window_errors = 0
        self._window_responses += 1
        if status < _SERVER_ERROR:
            return False
        self._window_errors += 1
        share = self._window_errors / self._window_responses
        if self._window_responses >= _FEWEST_RESPONSES and share >= self._eject_5xx_rate:
            self._eject(now, f"{share:.0%} of its responses have a status of 5xx")
        return True

    def _eject(self, now: float, detail: str) -> None:
        """Prefer others for a while, each time for twice as long, if the pool can do without this server."""
        if now < self.ejected_until or (self.may_be_ejected is not None and not self.may_be_ejected(self)):
            return
        seconds = min(_FIRST_EJECTION * 2**self._ejections, _LONGEST_EJECTION)
        self._ejections += 1
        self._window_began_at = float("-inf")
        self.ejected_until = now + seconds
        self.problem = detail
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
