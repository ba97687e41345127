"""Keeps one connection up and declares outages: a circuit breaker, which the first good reply closes again.

A lost connection is replaced while requests wait, for as long as a reply may take. After that, and at once when the
server is there and does not reply in time, no request waits: limits are decided locally, and reconnecting continues in
the background.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from redis.exceptions import ResponseError

from machpay_gateway.limiters.redis.batcher import LEASE_SECONDS, Batcher
from machpay_gateway.limiters.redis.connection import FAILURES, REPLY_TIMEOUT_SECONDS, LateReply, PipelinedConnection
from machpay_gateway.limiters.redis.outage_log import OutageLog
from machpay_gateway.limiters.redis.refusals import AccessRefusedError, LimiterUse, ServerRefusal, explain
from machpay_gateway.limiters.redis.servers import CONNECT_SECONDS

_FIRST_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS = 0.05, 1.0
_STABLE_SECONDS = 0.5  # a connection that lasted so long is replaced without backoff


class ConnectionSupervisor:
    """One worker's connection to the server of one shard."""

    def __init__(
        self,
        batcher: Batcher,
        *,
        connect: Callable[[], Awaitable[PipelinedConnection]],
        diagnose: Callable[[Exception], Awaitable[Exception]],
        heartbeat: Callable[[PipelinedConnection, int], Awaitable[None]],
        find_refusals: Callable[[PipelinedConnection], Awaitable[Sequence[Exception]]],
        use: LimiterUse,
        on_connected: Callable[[], None],
        log: OutageLog,
    ) -> None:
        """Keep *batcher* connected, by *connect*; *on_connected* is called before the use of each new connection.

        *diagnose* returns the reason of a failure to connect. *heartbeat* gets a connection and the seconds of the
        lease, and must be answered in time. A connection must have no *find_refusals*, at first and after a refusal:
        one heartbeat shows too little.
        """
        self.is_away = False
        self.is_resyncing = False  # for a while after an outage
        self.decided = 0  # without the server
        self.reason: Exception | None = None  # of the outage
        self.connection: PipelinedConnection | None = None
        self.tried = asyncio.Event()  # set after the first attempt, whatever its outcome
        self.connected = asyncio.Event()
        self.away_since = 0.0  # by the monotonic clock
        self._batcher = batcher
        self._open_connection = connect
        self._find_reason = diagnose
        self._send_heartbeat = heartbeat
        self._find_refusals = find_refusals
        self._use_of_servers = use
        self._is_unproven = True
        self._is_diagnosed = False  # in this outage
        self._on_connected = on_connected
        self.log = log
        self._outage_timer: asyncio.TimerHandle | None = None
        self._running = asyncio.create_task(self._run())

    @property
    def refusal(self) -> ServerRefusal | None:
        """Why the servers refuse; None when they serve, cannot be reached or are late."""
        return None if self.reason is None else explain(self.reason, self._use_of_servers)

    async def close(self) -> None:
        """Close the connection, and stop reconnecting."""
        self._running.cancel()
        await asyncio.wait([self._running])
        self._stop_outage_timer()

    async def heartbeat(self, lease_seconds: int = LEASE_SECONDS) -> None:
        """Register this worker as alive, or as gone with a lease of 0. A connection is given up where that fails."""
        connection = self.connection
        if connection is None:
            return
        try:
            await self._send_heartbeat(connection, lease_seconds)
        except FAILURES as exc:
            connection.fail(exc)

    def declare_outage(self, reason: Exception) -> None:
        """Let no request wait from now on."""
        self._stop_outage_timer()
        self.reason = reason
        refusal = self.refusal
        self._is_unproven = self._is_unproven or refusal is not None
        if not self.is_away:
            self.is_away = True
            self.away_since = time.monotonic()
        self.log.begin(f"{type(reason).__name__}: {reason}", refusal)
        self._batcher.fail_queued()

    async def _run(self) -> None:
        backoff = 0.0
        self._start_outage_timer()
        while True:
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            try:
                connection = await self._connect()
            except FAILURES as exc:
                self.declare_outage(await self._diagnose(exc))
                self.tried.set()
                backoff = _longer(backoff)
                continue
            up_since = time.monotonic()
            try:
                reason = await self._use(connection)
            finally:
                await connection.close()
            # A server may accept heartbeats and refuse all else, as with full memory: no tight loop then.
            backoff = 0.0 if time.monotonic() - up_since > _STABLE_SECONDS else _longer(backoff)
            if isinstance(reason, LateReply | ResponseError | TimeoutError):
                self.declare_outage(reason)
            else:
                self._start_outage_timer()

    async def _diagnose(self, failure: Exception) -> Exception:
        """Return the reason of *failure*. It is looked for once in an outage: that opens a connection of its own."""
        if self._is_diagnosed:
            return failure
        self._is_diagnosed = True
        return await self._find_reason(failure)

    async def _connect(self) -> PipelinedConnection:
        """Return a connection on which a write was answered in time."""
        async with asyncio.timeout(CONNECT_SECONDS):
            connection = await self._open_connection()
        try:
            if self._is_unproven:
                await self._check_access(connection)
            await self._send_heartbeat(connection, LEASE_SECONDS)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _check_access(self, connection: PipelinedConnection) -> None:
        async with asyncio.timeout(CONNECT_SECONDS):
            refusals = await self._find_refusals(connection)
        if refusals:
            raise AccessRefusedError(refusals)
        self._is_unproven = False

    async def _use(self, connection: PipelinedConnection) -> Exception:
        """Use *connection* until it is lost, and return the reason."""
        self._end_outage()
        self.connection = connection
        self._on_connected()
        self._batcher.attach(connection)
        self.connected.set()
        self.tried.set()
        try:
            return await connection.wait_lost()
        finally:
            self.connected.clear()
            self.connection = None
            self._batcher.detach()

    def _start_outage_timer(self) -> None:
        if not self.is_away and self._outage_timer is None:
            lost = LateReply("the connection was lost")
            self._outage_timer = asyncio.get_running_loop().call_later(REPLY_TIMEOUT_SECONDS, self.declare_outage, lost)

    def _stop_outage_timer(self) -> None:
        if self._outage_timer is not None:
            self._outage_timer.cancel()
            self._outage_timer = None

    def _end_outage(self) -> None:
        self._stop_outage_timer()
        self._is_diagnosed = False
        if self.is_away:
            self.is_away = False
            self.log.end()


def _longer(backoff: float) -> float:
    return min(max(2 * backoff, _FIRST_BACKOFF_SECONDS), _MAX_BACKOFF_SECONDS)
