"""What all connections of one process share: the gate, the pools, and the one clock that looks after all of them."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.principal import Anonymous, Principal
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.network.forwarded import walked
from machpay_gateway.core.network.proxy_options import ProxyOptions
from machpay_gateway.core.usage.counters import ALLOWED
from machpay_gateway.gateway import Gateway
from machpay_gateway.proxy.downstream import ClientConnection
from machpay_gateway.proxy.exchange import Exchange
from machpay_gateway.proxy.fields import request_fields
from machpay_gateway.proxy.framing import FramedRequest
from machpay_gateway.proxy.places import Places
from machpay_gateway.proxy.pool import IDLE_SECONDS
from machpay_gateway.proxy.ports import Carried, DownstreamClient, Front, RequestLog, Walk
from machpay_gateway.proxy.readers import RequestReader
from machpay_gateway.proxy.upstreams import ControlPlane, Upstreams
from machpay_gateway.telemetry.refusals import log_refusal
from machpay_gateway.telemetry.steps import Incoming, Steps
from machpay_gateway.web.incoming import accepted_id, preflight_for
from machpay_gateway.web.streams import CHECK_SECONDS

if TYPE_CHECKING:
    from machpay_gateway.telemetry.traces import Trace, Traces

logger = logging.getLogger("machpay_gateway")

_TICK_SECONDS = 1.0
_QUIET_SECONDS = 2.0  # which a client that is at work does not leave between two requests
NO_LIMIT = 1 << 62
_new = tuple.__new__


def quiet_seconds(drain_seconds: float) -> float:
    """Return how long, of *drain_seconds*, a stop waits for one more request on a connection that is quiet."""
    return min(_QUIET_SECONDS, drain_seconds / 2)


class Proxy(Front):
    """Serves connections by a *gateway*. Give it to `listener`, or make connections by `connect`."""

    def __init__(
        self,
        gateway: Gateway,
        *,
        control_plane: ControlPlane | None = None,
        access_log: RequestLog | None = None,
        most_connections: int = NO_LIMIT,
    ) -> None:
        """Carry what *gateway* allows to its upstreams, and what is the *control_plane*'s there, undecided.

        Of more than *most_connections* at once some are closed for others, or the last ones turned away: see `Places`.
        """
        settings = gateway.settings
        self.loop = asyncio.get_running_loop()
        self.gateway = gateway
        self.gate = gateway.gate
        self.legacy_headers = gateway.legacy_headers
        traced, passed = gateway.traces is not None, settings.proxy.pass_headers
        self.requests = RequestReader(request_fields(gateway.trust.header, traced=traced, pass_headers=passed))
        self.head_seconds = settings.server.head_seconds
        self.keepalive_seconds = settings.server.keepalive_seconds
        self.carriage = settings.proxy
        self._carriages: dict[str, ProxyOptions] = {}  # by a route's match
        self.upstreams = Upstreams(settings.upstreams, control_plane)
        self.has_control_plane = control_plane is not None
        self.pages = gateway.page_guard
        self.asserts = gateway.assertions is not None
        self.traces = gateway.traces
        self._log = access_log
        self._steps = gateway.steps
        self._connections: set[ClientConnection] = set()
        self._places = Places()
        self._tasks: set[asyncio.Task[None]] = set()
        self._most_connections = most_connections
        self._is_draining = False
        self._alarm = self.loop.call_later(_TICK_SECONDS, self._tick)

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return sum(connection.exchange is not None for connection in self._connections)

    def connect(self) -> ClientConnection:
        """Return the protocol of a new connection."""
        return ClientConnection(self)

    async def close(self, drain_seconds: float) -> None:
        """Let what is under way end within *drain_seconds*, and close everything."""
        self._is_draining = True
        now = monotonic()
        ends_at = now + drain_seconds
        for connection in self._connections:
            connection.will_close = True
            # A request may be on its way on each that is quiet: closing now would lose it.
            connection.quiet_until = now + quiet_seconds(drain_seconds)
        while self._connections and monotonic() < ends_at:
            self._close_quiet(monotonic())
            await asyncio.sleep(0.05)
        for connection in list(self._connections):
            if connection.exchange is not None:
                connection.exchange.client_gone()
            connection.abort(by_reset=True)
        await asyncio.sleep(0)  # lets each be told
        self._alarm.cancel()
        self.upstreams.close_idle(float("inf"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # For connections.

    def entered(self, connection: ClientConnection) -> None:
        """Take *connection* in, in another one's place if there are too many, or turn it away."""
        self._connections.add(connection)
        self._places.add(connection)
        if len(self._places) > self._most_connections and not self._has_room_for(connection):
            self._places.discard(connection)
            connection.turn_away()
        elif self._is_draining:
            connection.will_close = True

    def left(self, connection: ClientConnection) -> None:
        """Forget *connection*."""
        self._connections.discard(connection)
        self._places.discard(connection)

    def may_speak_for_others(self, address: int | None) -> bool:
        """Tell whether the peer at *address* is a trusted proxy."""
        proxies = self.gateway.trust.proxies
        return proxies is not None and address is not None and address in proxies

    def next_id(self) -> bytes:
        """Return a new request id."""
        return next(self.gateway.request_ids)

    def facts_of(self, client: DownstreamClient, request: FramedRequest) -> tuple[RequestFacts, Walk]:
        """Return what a decision needs to know of *request*, and who is behind whom."""
        head, authorization = request
        address, walk = client.address, client.walk
        request_id = None
        if client.is_trusted:
            trust = self.gateway.trust
            if head.forwarded:
                walk = walked(client.host, head.forwarded, trust.proxies, trust.header)
                address = walk[0]
            if head.request_id:
                request_id = accepted_id(head.request_id, client.host, trust.proxies)
        elif head.forwarded:
            self.gateway.trust.ignored.note(client.host, self.gateway.trust.header)
        preflight = None
        if head.asked_method is not None and not authorization:
            preflight = preflight_for(head.name, head.origin, head.asked_method, has_body=head.has_body)
        if request_id is None:
            request_id = next(self.gateway.request_ids)
        return _new(
            RequestFacts, (head.name, head.path, authorization, address, request_id, preflight, head.proof)
        ), walk

    # For exchanges.

    def assertion_for(self, principal: Principal | Anonymous | None) -> bytes:
        """Return a signed word about *principal*, nothing about nobody."""
        assertions = self.gateway.assertions
        if assertions is None or not isinstance(principal, Principal):
            return b""
        return assertions.token_for(principal, time.time())

    def begin_trace(self, exchange: Carried) -> bytes:
        """Begin the trace of *exchange*, and return the lines that tell its upstream of that."""
        if self.traces is None:
            return b""
        exchange.trace = trace = self._begun_trace(self.traces, exchange)
        return trace.sent_on(exchange.decided_at or perf_counter(), exchange.request.name)

    def _begun_trace(self, traces: "Traces", exchange: Carried) -> "Trace":
        head, client = exchange.request, exchange.client
        return traces.begin(
            exchange.facts,
            exchange.route,
            Incoming(head.trace_parent, head.trace_states, client.is_trusted),
            began_at=exchange.began_at,
            scheme=client.scheme.decode(),
        )

    def carriage_for(self, route: Route) -> ProxyOptions:
        """Return what holds for carrying requests of *route*."""
        if (carriage := self._carriages.get(route.match)) is None:
            carriage = self._carriages[route.match] = self.carriage.with_changes(route.proxy)
        return carriage

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do *work*, and hold on to it."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def record(self, exchange: Carried, outcome: str, status: int) -> None:
        """Count what became of *exchange*."""
        principal, route = exchange.principal, exchange.route
        began_at, decided_at, answered_at = exchange.began_at, exchange.decided_at, exchange.answered_at
        if decided_at is not None:
            self._steps.decided(began_at, exchange.asked_at, decided_at)
            if answered_at is not None:
                self._steps.answered(answered_at - decided_at)
        if principal is not None or route is not None or outcome != ALLOWED:  # the control plane counts by itself
            self.gateway.recorder.record(principal, route, outcome, status, began_at)
        if self._log is None and self.traces is None:
            return
        steps = _new(Steps, (began_at, exchange.asked_at, decided_at, answered_at, perf_counter()))
        trace_id = b""
        if self.traces is not None:
            trace = exchange.trace or self._begun_trace(self.traces, exchange)  # refused, it was sent on to nobody
            trace_id = trace.trace_id
            trace.end(principal, outcome, status, steps)
            exchange.trace = None  # a tunnel may last for days
        if self._log is not None:
            self._log.add(exchange.facts, principal, route, outcome, status, steps, exchange.sent_bytes, trace_id)

    def count_fault(self, client: DownstreamClient, request_id: bytes, denied: Denied, status: int) -> None:
        """Count what was no request."""
        facts = RequestFacts("", None, (), client.address, request_id)
        log_refusal(facts, denied)
        self.gateway.recorder.record(None, None, denied.reason, status, client.began_at)
        if self._log is not None:
            steps = Steps(client.began_at, None, None, None, perf_counter())
            self._log.add(facts, None, None, denied.reason, status, steps, 0, b"")

    def _has_room_for(self, newcomer: ClientConnection) -> bool:
        """Close another connection for *newcomer*, unless none may be closed for it."""
        victim = self._places.victim_for(newcomer)
        if not isinstance(victim, ClientConnection):
            return False
        self._places.discard(victim)  # now: its client may take its time to see that it is closed
        victim.give_place()
        return True

    # The clock.

    def _tick(self) -> None:
        self._alarm = self.loop.call_later(_TICK_SECONDS, self._tick)
        self.look_after(monotonic())

    def look_after(self, now: float) -> None:
        """See what is due at *now*: one timer for all connections costs less than one for each request."""
        for connection in list(self._connections):
            exchange = connection.exchange
            if exchange is None:
                if connection.due <= now:
                    connection.expire()
            elif exchange.due <= now:
                exchange.expire()
            elif exchange.check_at <= now:
                exchange.check_at = now + CHECK_SECONDS
                self.run(self._check(exchange))
        self.upstreams.close_idle(now - IDLE_SECONDS)

    async def _check(self, exchange: Exchange) -> None:
        """End *exchange* if its caller could not begin it any more."""
        if exchange.route is None or not isinstance(exchange.principal, Principal):
            return
        if not await self.gate.is_still_allowed(exchange.facts, exchange.route) and not exchange.is_over:
            logger.info("request %s ended: its credential is no longer good", exchange.facts.request_id.decode())
            exchange.cut()

    def _close_quiet(self, now: float) -> None:
        for connection in list(self._connections):
            if connection.exchange is None and now >= connection.quiet_until:
                connection.close()
