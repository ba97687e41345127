"""The servers of an upstream: connections kept open to each, and which of them are not asked for a while."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from itertools import count

from machpay_gateway.proxy.upstream import UpstreamConnection

logger = logging.getLogger(__name__)

# Node and uvicorn close what was quiet for 5 s: whoever sends at that moment loses a request that cannot be repeated.
IDLE_SECONDS = 4.0
_MOST_IDLE = 256
_FAILURES = 5  # one after the other, before a server is left alone
_FIRST_EJECTION, _LONGEST_EJECTION = 5.0, 300.0  # seconds


# Why a server failed, as it is counted.
CONNECT, TIMEOUT, LOST, MALFORMED = "connect", "timeout", "lost", "malformed"

Connecting = Callable[[], Awaitable[tuple[object, UpstreamConnection]]]  # as a loop's create_connection returns it


class Server:
    """One origin: its idle connections, and how it has been doing."""

    def __init__(self, name: str, connecting: Connecting, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Connect by *connecting*. *name* is for the log; *clock* is in seconds and never goes back."""
        self.name = name
        self._clock = clock
        self.in_flight = 0
        self.opened = 0
        self.errors = dict.fromkeys((CONNECT, TIMEOUT, LOST, MALFORMED), 0)
        self.ejected_until = float("-inf")
        self._connecting = connecting
        self._idle: deque[UpstreamConnection] = deque()
        self._failures = 0
        self._ejections = 0

    @property
    def idle(self) -> int:
        """How many connections are kept open for the next request."""
        return len(self._idle)

    def take_idle(self) -> UpstreamConnection | None:
        """Return the connection that was used last, if any is open."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closing:
                return connection
        return None

    def give_back(self, connection: UpstreamConnection) -> None:
        """Keep *connection* for the next request."""
        connection.asking = connection.body = None
        connection.is_reused = True
        connection.idle_since = self._clock()
        self._idle.append(connection)
        if len(self._idle) > _MOST_IDLE:
            self._idle.popleft().abort()

    async def connect(self, seconds: float) -> UpstreamConnection:
        """Return a new connection. Raises OSError, TimeoutError after *seconds* unless they are 0."""
        async with asyncio.timeout(seconds or None):
            _, connection = await self._connecting()
        self.opened += 1
        return connection

    def answered(self) -> None:
        """Note that it does its work."""
        self._failures = 0
        if self._ejections:
            logger.warning("Upstream %s answers again.", self.name)
            self._ejections = 0

    def failed(self, reason: str, why: str) -> None:
        """Note that it did not; after too many times it is left alone, each time for twice as long.

        It is counted by *reason*, one of those above; *why* is for the log.
        """
        now = self._clock()
        self.errors[reason] += 1
        self._failures += 1
        # Once it was left alone, one more failure shows that it is still not well.
        if self._failures < _FAILURES and not self._ejections:
            return
        if now < self.ejected_until:
            return
        seconds = min(_FIRST_EJECTION * 2**self._ejections, _LONGEST_EJECTION)
        self._ejections += 1
        self.ejected_until = now + seconds
        logger.warning("Upstream %s fails (%s); others are preferred for %.0f s.", self.name, why, seconds)

    def close_idle(self, quiet_since: float) -> None:
        """Close the connections that have not been used since."""
        while self._idle and self._idle[0].idle_since <= quiet_since:
            self._idle.popleft().abort()


class Pool:
    """All servers of one upstream, which are the same to callers."""

    def __init__(self, servers: Iterable[Server], *, clock: Callable[[], float] = time.monotonic) -> None:
        """Choose among *servers*. *clock* is in seconds and never goes back."""
        self.servers = tuple(servers)
        self._clock = clock
        self._turns = count()

    def pick(self, tried: Collection[Server] = ()) -> Server | None:
        """Return the server that has least to do among those not *tried*, None when all were.

        Ejected ones are asked only when there is no other: an upstream that is away as a whole is found again so.
        """
        if len(self.servers) == 1:
            return None if tried else self.servers[0]
        left = [server for server in self.servers if server not in tried]
        now = self._clock()
        well = [server for server in left if server.ejected_until <= now] or left
        if not well:
            return None
        turn = next(self._turns) % len(well)  # among equals each in turn
        return min((*well[turn:], *well[:turn]), key=lambda server: server.in_flight)

    def close_idle(self, quiet_since: float) -> None:
        """Close the connections that have not been used since."""
        for server in self.servers:
            server.close_idle(quiet_since)
