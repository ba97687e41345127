"""The proxy of one process: its open connections, their timeouts, and the graceful shutdown."""

import asyncio
from time import monotonic

from machpay_gateway.core.network.forwarded import UNIX_PEER
from machpay_gateway.gateway import Gateway
from machpay_gateway.proxy.connection import CallerConnection, ClientConnection
from machpay_gateway.proxy.context import ProxyContext, RequestLog
from machpay_gateway.proxy.eviction import ConnectionTable
from machpay_gateway.proxy.http2_callers.connection import Http2Connection
from machpay_gateway.proxy.routing import ControlPlane
from machpay_gateway.proxy.websocket_frames import GOING_AWAY

_TICK_SECONDS = 1.0
_IDLE_GRACE_SECONDS = 2.0  # a client in use does not pause for longer between two requests
NO_LIMIT = 1 << 62


def idle_grace_seconds(drain_seconds: float) -> float:
    """Return how long, of *drain_seconds*, a shutdown waits for one more request on an idle connection."""
    return min(_IDLE_GRACE_SECONDS, drain_seconds / 2)


class Proxy:
    """Serves the connections that `connect` makes for an event loop's server."""

    def __init__(
        self,
        gateway: Gateway,
        *,
        control_plane: ControlPlane | None = None,
        access_log: RequestLog | None = None,
        max_connections: int = NO_LIMIT,
    ) -> None:
        """Forward what *gateway* allows, and without a decision the paths of the *control_plane*.

        With more than *max_connections*, some are evicted or the newest are turned away: see `ConnectionTable`.
        """
        self.context = ProxyContext(gateway, control_plane=control_plane, access_log=access_log)
        self.loop = self.context.loop
        self.router = self.context.router
        self._connections: set[CallerConnection] = set()
        self._table = ConnectionTable()
        self._max_connections = max_connections
        self._is_draining = False
        self._timer = self.loop.call_later(_TICK_SECONDS, self._tick)

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def in_flight(self) -> int:
        """How many requests are in progress."""
        return sum(connection.in_flight for connection in self._connections)

    def connect(self) -> ClientConnection:
        """Return the protocol of a new connection."""
        return ClientConnection(self.context, self._opened, self._closed)

    def connect_for(self, peer: str) -> ClientConnection:
        """Return the protocol of a new connection, whose client has the address *peer*; it has none if that is ""."""
        return ClientConnection(self.context, self._opened, self._closed, peer)

    def connect_unix(self) -> ClientConnection:
        """Return the protocol of a new connection to a Unix socket."""
        return ClientConnection(self.context, self._opened, self._closed, UNIX_PEER)

    async def close(self, drain_seconds: float, *, close_code: int = GOING_AWAY) -> None:
        """Let requests in progress end within *drain_seconds*, then close everything.

        WebSockets get a Close frame with *close_code*, spread over that time: all clients at once would connect again
        at once.
        """
        self._is_draining = True
        now = monotonic()
        ends_at = now + drain_seconds
        for connection in self._connections:
            # A request may be in transit on an idle connection, and closing now would lose it.
            connection.drain(now + idle_grace_seconds(drain_seconds))
        self._spread_over(drain_seconds - idle_grace_seconds(drain_seconds), now)
        while self._connections and monotonic() < ends_at:
            self._close_idle(monotonic(), close_code)
            await asyncio.sleep(0.05)
        for connection in list(self._connections):
            connection.stop()
        await asyncio.sleep(0)  # for the event loop to call each `connection_lost`
        self._timer.cancel()
        await self.context.close()

    def check_timeouts(self, now: float) -> None:
        """Handle what is due at *now*: one timer for all connections costs less than one for each request."""
        for connection in list(self._connections):
            connection.check_timeouts(now)
        self.router.maintain(now)

    def _tick(self) -> None:
        self._timer = self.loop.call_later(_TICK_SECONDS, self._tick)
        self.check_timeouts(monotonic())

    def _opened(self, connection: CallerConnection) -> None:
        """Accept *connection*, evict another one for it, or turn it away."""
        self._connections.add(connection)
        self._table.add(connection)
        if len(self._table) > self._max_connections and not self._evict_for(connection):
            self._table.discard(connection)
            connection.turn_away()
        elif self._is_draining:
            connection.drain(0.0)

    def _closed(self, connection: CallerConnection) -> None:
        self._connections.discard(connection)
        self._table.discard(connection)

    def _evict_for(self, newcomer: CallerConnection) -> bool:
        """Close another connection in favor of *newcomer*; return False if none may be closed."""
        victim = self._table.victim_for(newcomer)
        if not isinstance(victim, ClientConnection | Http2Connection):
            return False
        self._table.discard(victim)  # now: its client may take its time to close
        victim.evict()
        return True

    def _spread_over(self, seconds: float, now: float) -> None:
        """Set when to close each tunnel, the first at *now* and the last within *seconds*."""
        tunnels = [
            it
            for it in self._connections
            if isinstance(it, ClientConnection) and it.forwarder is not None and it.forwarder.tunnel is not None
        ]
        for number, connection in enumerate(tunnels):
            connection.idle_close_at = now + seconds * number / len(tunnels)

    def _close_idle(self, now: float, close_code: int) -> None:
        for connection in list(self._connections):
            connection.close_idle(now, close_code)
