"""One request from its head to the end of its response: decided, then refused or forwarded, and recorded.

All of it is one state machine, and therefore one class: the decision, either peer, either body and a timeout may end it
at any moment. Backpressure passes from either side to the other.

A request is sent twice only where that cannot repeat an effect: when none of it was sent, or when its method is safe
and the reused connection was lost (RFC 9110 §9.2.2, RFC 9112 §9.3.1).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

from machpay_gateway.core.decision.decision import Allowed, Decision, Denied
from machpay_gateway.core.decision.principal import Anonymous, Principal
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.limits.admission import Admitted, PendingAnswer, abandon
from machpay_gateway.core.network.cors import CorsSettings
from machpay_gateway.core.network.proxy_settings import ProxySettings
from machpay_gateway.core.usage.counters import ALLOWED, PREFLIGHT_OUTCOME
from machpay_gateway.core.usage.outcome import RequestOutcome, outcome_of, outcome_of_refusal
from machpay_gateway.gate import PendingAdmission, PendingIdentity
from machpay_gateway.proxy.affinity import affinity_of
from machpay_gateway.proxy.bodies import LAST_CHUNK, Body, BodyFramingError, CloseDelimitedBody, FixedLengthBody, chunk
from machpay_gateway.proxy.closing import unread_bytes
from machpay_gateway.proxy.context import ProxyContext
from machpay_gateway.proxy.downstream import NEVER, ClientStream
from machpay_gateway.proxy.framing import FramedRequest
from machpay_gateway.proxy.grpc import grpc_response, grpc_timeout
from machpay_gateway.proxy.heads import ResponseHead
from machpay_gateway.proxy.pool import ServerPool
from machpay_gateway.proxy.request_buffer import CONTINUE, RequestBuffer, has_expectation, head_with_length
from machpay_gateway.proxy.responses import gateway_lines, options_response, refusal
from machpay_gateway.proxy.route_plan import NO_AUTHORITY, RoutePlan, with_authority
from machpay_gateway.proxy.tunnel import Tunnel
from machpay_gateway.proxy.upstream import UpstreamConnection, UpstreamHandler
from machpay_gateway.proxy.upstream_request import control_plane_head, forwarded_info, upstream_head, verbatim_head
from machpay_gateway.proxy.upstream_server import CONNECT, LOST, MALFORMED, TIMEOUT, UpstreamServer
from machpay_gateway.proxy.websocket_frames import GOING_AWAY, POLICY_VIOLATION
from machpay_gateway.telemetry.own_requests import OwnRequest
from machpay_gateway.telemetry.steps import IncomingTrace, Steps
from machpay_gateway.web.cors import Cors, cors_fields, preflight_headers, with_cors
from machpay_gateway.web.page_hosts import PageGuard
from machpay_gateway.web.streams import CHECK_SECONDS, ENDED

if TYPE_CHECKING:
    from machpay_gateway.core.decision.route import Route
    from machpay_gateway.telemetry.traces import Trace, Traces

logger = logging.getLogger("machpay_gateway")

_DECISION_SECONDS = 30.0  # for stores and issuers, each of which has a shorter timeout of its own
_CLIENT_GONE = 499
_EXACT_SECONDS = 5.0  # deadlines of gRPC up to which one has a timer of its own
_NO_CERTIFICATE = "the connection has no client certificate"
_TOO_LARGE = "the body exceeds the route's limit"
_OVERLOAD_SECONDS = 1.0  # of Retry-After: requests end all the time
_SWITCHING_PROTOCOLS = 101
_FINAL = 200  # statuses below are interim responses
_PIECES_IN_A_TURN = 4  # of a buffered body
_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS"})  # RFC 9110 §9.2.1, without methods that are not served
_new = tuple.__new__  # half the cost of a NamedTuple's own constructor


class Forwarder(UpstreamHandler):
    """A request and its state. *due* is when it times out, *recheck_at* when to check its credential again.

    Times that end in `_at` are by `time.perf_counter`, except those two, which are monotonic.
    """

    # CPython 3.11 stores up to 30 attributes of an instance without a dict, and fewer if instances were created before
    # an attribute was first set: a busy start would cost each later request 6 µs.

    __slots__ = (
        "_accepted_bytes",
        "_authority",
        "_body_bytes",
        "_buffer",
        "_client",
        "_context",
        "_head",
        "_hops",
        "_identification",
        "_is_forwarding",
        "_is_head_sent",
        "_is_recorded",
        "_is_request_sent",
        "_is_responding",
        "_on_end",
        "_options",
        "_pending_answer",
        "_plan",
        "_pool",
        "_server",
        "_total_deadline",
        "_tried",
        "_upstream",
        "admission",
        "admission_began_at",
        "began_at",
        "closes",
        "decided_at",
        "due",
        "facts",
        "forwarded_path",
        "is_over",
        "own_request",
        "principal",
        "recheck_at",
        "request",
        "responded_at",
        "route",
        "sent_bytes",
        "status",
        "trace",
        "tunnel",
    )

    # Set once the request is to be forwarded.
    _pool: ServerPool
    _options: ProxySettings
    _head: bytes  # of the request, as the upstream gets it
    _server: UpstreamServer

    def __init__(
        self, context: ProxyContext, client: ClientStream, request: FramedRequest, on_end: Callable[[bool], None]
    ) -> None:
        """Take the *request* of *client*. *on_end* is called at the end, with whether the connection may be reused."""
        self.began_at = perf_counter()
        self.request = request.head
        self.closes = request.head.closes  # the client's connection, after the response
        self.facts, self._hops = context.facts_of(client, request)
        self._context = context
        self._client = client
        self._on_end = on_end

        self.principal: Principal | Anonymous | None = None  # None until identified, and for the control plane
        self.admission: Admitted | None = None
        self.route: Route | None = None
        self.admission_began_at: float | None = None  # if the limiter could not answer at once
        self.decided_at: float | None = None  # None when the control plane decides
        self.responded_at: float | None = None  # when the head of the upstream's response had arrived
        self.trace: Trace | None = None
        self.forwarded_path: str | None = None  # where it is not the authorized one
        self._plan: RoutePlan | None = None  # None for the control plane
        self._authority: bytes | None = None  # the server's name in the head, if Host is that
        self.tunnel: Tunnel | None = None
        self.own_request: OwnRequest | None = None  # if the control plane serves it
        self._pending_answer: PendingAnswer | None = None
        self._identification: asyncio.Task[Decision] | None = None

        self._tried: tuple[UpstreamServer, ...] = ()
        self._upstream: UpstreamConnection | None = None
        self.due = self.recheck_at = self._total_deadline = NEVER
        self.status = self.sent_bytes = self._body_bytes = 0  # bytes of the bodies: to the client, of the request
        self._buffer: RequestBuffer | None = None  # of a body that is complete before it is forwarded
        self._accepted_bytes: int | None = None  # by both sides, at the last timeout
        self.is_over = self._is_recorded = self._is_forwarding = False
        self._is_head_sent = self._is_request_sent = self._is_responding = False

    @property
    def takes_body(self) -> bool:
        """Whether the request's body can be taken now."""
        return self._upstream is not None or self._buffer is not None

    @property
    def waiting_since(self) -> float:
        """When the last of the request's body arrived, if more of it is all that is missing; else NEVER."""
        if self._buffer is not None and self._client.body is not None:
            return self.due - self._options.idle_seconds if self.due < NEVER else 0.0
        if self._upstream is None or self._is_request_sent or self._is_responding or self._upstream.is_full:
            return NEVER
        return self.due - self._options.idle_seconds if self.due < NEVER else 0.0  # without a timeout

    # The decision.

    def begin(self, raw: bytes) -> None:
        """Decide, or begin to. *raw* is the head as it arrived."""
        context = self._context
        own = context.router.control_plane_pool(self.facts.path) if context.has_control_plane else None
        guard, head = context.page_guard, self.request
        # Nearly always one lookup: pages are paths of the control plane, so only the host needs a check.
        if (
            guard is not None
            and (
                own is not None or head.host not in guard.plain or head.forwarded_host or not context.has_control_plane
            )
            and (detail := self._wrong_host(guard, is_ours=own is not None)) is not None
        ):
            self.refuse(Reason.ROUTE_NOT_FOUND, detail)
            return
        if own is not None:
            self.own_request = context.router.own_requests.begin()
            self._forward(own, context.options, self._control_plane_head(raw, self.own_request))
            return
        if context.cors is not None and self._answer_preflight(context.cors):
            return
        if (
            head.length is not None
            and head.length > context.smallest_body_limit
            and (route := context.route_of_oversized(self.facts, head.length)) is not None
        ):
            refusing = context.gate.refuse(self.facts, route, Reason.BODY_TOO_LARGE, _TOO_LARGE)
            self._identify(refusing)
            return
        if (
            context.has_certified_routes
            and not self._client.certificate
            and (route := context.route_of_uncertified(self.facts)) is not None
        ):
            self._identify(context.gate.refuse(self.facts, route, Reason.CLIENT_CERTIFICATE_REQUIRED, _NO_CERTIFICATE))
            return
        decision = context.gate.decide_nowait(self.facts)
        if type(decision) is Allowed:
            self._allow(decision)
        else:
            self._proceed(decision)

    def _answer_preflight(self, cors: Cors) -> bool:
        """Respond to a CORS preflight, which has no caller and takes nothing; return False if it is not one."""
        settings, route = cors.announced_by(self.facts)
        if settings is None:
            return False
        lines = (line.partition(b":") for line in self.request.start.split(b"\r\n"))
        headers = preflight_headers(settings, [(name.lower(), value.strip(b" \t")) for name, _, value in lines])
        headers.append((b"x-request-id", self.facts.request_id))
        closes = self.closes or self._client.will_close
        self.route = route
        self._client.respond(options_response(headers), minor=self.request.minor, closes=closes)
        self._finish(PREFLIGHT_OUTCOME, int(HTTPStatus.NO_CONTENT))
        self._on_end(not closes)
        return True

    def _answer_server_wide(self) -> None:
        """Respond to `OPTIONS *`, which asks whether the server is there, and is about nothing that needs a caller."""
        closes = self.closes or self._client.will_close or not self._client.discard_body()
        headers = [(b"x-request-id", self.facts.request_id), (b"content-length", b"0")]
        response = options_response(headers, status=HTTPStatus.OK)
        self._client.respond(response, minor=self.request.minor, closes=closes)
        self._finish(ALLOWED, int(HTTPStatus.OK))
        self._on_end(not closes)

    def _proceed(self, decision: Decision | PendingAdmission | PendingIdentity) -> None:
        """Take the next step after *decision*."""
        if isinstance(decision, Allowed):
            self._allow(decision)
        elif isinstance(decision, PendingAdmission):
            self.admission_began_at = perf_counter()
            self._pending_answer = decision.answer
            decision.answer.add_done_callback(lambda answer: self._limiter_answered(decision, answer))
        elif isinstance(decision, PendingIdentity):
            self.admission_began_at = None  # the gate admits again, and measures that itself
            self._identify(self._context.gate.resolve(decision))
        elif isinstance(decision, Denied):
            self.decided_at = perf_counter()
            if self.request.is_server_wide:
                self._answer_server_wide()
            else:
                self._deny(decision)

    def _identify(self, deciding: Coroutine[Any, Any, Decision]) -> None:
        self.due = monotonic() + _DECISION_SECONDS
        self._identification = self._context.loop.create_task(deciding)
        self._identification.add_done_callback(self._identified)

    def _limiter_answered(self, pending: PendingAdmission, answer: PendingAnswer) -> None:
        self._pending_answer = None
        if self.is_over or answer.cancelled():
            return
        self._proceed(self._context.gate.apply_answer(pending, answer.result()))

    def _identified(self, task: asyncio.Task[Decision]) -> None:
        self._identification = None
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            if not self.is_over:
                self.refuse(Reason.UNAVAILABLE, "the decision failed")
            raise error  # for the event loop to log
        decision = task.result()
        if not self.is_over:
            self._proceed(decision)
        elif isinstance(decision, Allowed) and decision.admission is not None:
            decision.admission.lease.release()

    def _allow(self, allowed: Allowed) -> None:
        self.decided_at = perf_counter()
        principal, self.admission, self.route = allowed
        self.principal = principal
        plan = self._plan = self._context.plan_for(self.route)
        environment = principal.environment if isinstance(principal, Principal) else "public"
        destination = plan.destinations.get(environment)
        if destination is None or not plan.is_plain or self.request.host is None:
            self._forward_adapted(plan, environment)
            return
        head = self._head_with_credentials() if plan.options.forward_credentials else self._upstream_head()
        self._forward(destination.pool, plan.options, head)

    def _forward_adapted(self, plan: RoutePlan, environment: str) -> None:
        """Forward by *plan*, which changes the head, to the upstream of *environment*."""
        if plan.is_preflight and (announced := self._context.announced_plan(self.facts)) is not None:
            plan = self._plan = announced
        destination = plan.destinations.get(environment)
        if destination is None:
            self.refuse(Reason.WRONG_ENVIRONMENT, "the service has no upstream for this environment")
            return
        head = self._head_with_credentials() if plan.options.forward_credentials else self._upstream_head()
        adapted = plan.adapt(head, self.facts.path, self.request.host, destination)
        if adapted is None:
            self.refuse(Reason.MALFORMED_REQUEST, "the path is another spelling of one that the route rewrites")
            return
        head, self.forwarded_path, follows_server = adapted
        self._authority = NO_AUTHORITY if follows_server else None
        self._forward(destination.pool, plan.options, head)

    def _wrong_host(self, guard: PageGuard, *, is_ours: bool) -> str | None:
        """Return why the path is not served at the request's host, None when it is."""
        request = self.request
        forwarded_host = request.forwarded_host if self._client.is_trusted else None
        return guard.refusal(self.facts.path, request.host, forwarded_host, is_ours=is_ours)

    def _control_plane_head(self, raw: bytes, own_request: OwnRequest) -> bytes:
        context = self._context
        if context.router.is_forward_auth(self.facts.path):
            head = verbatim_head(raw, self.request, self._client.host, self._begin_trace())
            return control_plane_head(head, (), own_request.name)
        head = self._head_with_credentials(is_ours=True)
        return control_plane_head(head, self.request.own_cookies, own_request.name)

    def _head_with_credentials(self, *, is_ours: bool = False) -> bytes:
        """Return the head with the credential as it came: all of it for our control plane, else what is in headers."""
        set_aside = self.request.set_aside
        if set_aside is None:
            return self._upstream_head(self.facts.authorization)
        start = set_aside.as_came if is_ours else set_aside.with_headers
        return start + self._upstream_head().removeprefix(self.request.start)

    def _upstream_head(self, authorization: tuple[bytes, ...] = ()) -> bytes:
        context, client = self._context, self._client
        return upstream_head(
            self.request,
            forwarded_info(self.request, self._hops, client.scheme, is_trusted=client.is_trusted),
            self.principal,
            self.facts.request_id,
            context.gateway.brand,
            authorization=authorization,
            assertion=context.assertion_for(self.principal) if context.has_assertions else b"",
            lines=client.certificate if context.traces is None else self._begin_trace() + client.certificate,
            is_http2=client.is_http2,
        )

    # Forwarding the request.

    def _forward(self, pool: ServerPool, options: ProxySettings, head: bytes) -> None:
        """Send the request to a server of *pool*: in this step if there is an idle connection, as nearly always."""
        self._pool = pool
        self._options = options
        self._head = head
        self._is_forwarding = True
        now = monotonic()
        self.recheck_at = now + CHECK_SECONDS
        length = self.request.length
        if length is not None and 0 < options.max_body_bytes < length:
            self.refuse(Reason.BODY_TOO_LARGE, _TOO_LARGE)
            return
        if pool.counts_requests and not pool.begin():
            self._refuse_overload()
            return
        if options.total_seconds:
            self._total_deadline = now + options.total_seconds
        if self.request.is_grpc and (seconds := grpc_timeout(self.request.start)):
            self._total_deadline = min(self._total_deadline, now + seconds)
            if seconds < _EXACT_SECONDS:
                self._context.loop.call_later(seconds, self._expire_call)
        if options.buffer and self._client.body is not None:
            self._begin_buffer()
        else:
            self._connect_and_send()

    def _begin_buffer(self) -> None:
        """Take the whole body before a server is chosen: a slow client then occupies none."""
        self._buffer = RequestBuffer()
        if not self._client.has_unread and self.request.minor and has_expectation(self._head):
            self._client.send_interim(CONTINUE)  # no upstream can say it
        self._extend(self._options.idle_seconds)
        self.send_body()

    def _fill_buffer(self, buffer: RequestBuffer, payload: bytes, *, is_last: bool) -> None:
        """Add *payload* to the body in *buffer*, and send the request when that is complete."""
        try:
            buffer.add(payload)
        except OSError as exc:
            self._give_up(Reason.UNAVAILABLE, f"the body cannot be buffered ({exc})")
            return
        if is_last:
            buffer.rewind()
            self._head = head_with_length(self._head, buffer.length)
            self._connect_and_send()
        else:
            self._extend(self._options.idle_seconds)
            self._client.resume_reading()

    def _send_buffer(self) -> None:
        """Send more of the head and the buffered body, a few pieces in each turn of the loop."""
        upstream, buffer = self._upstream, self._buffer
        if upstream is None or buffer is None or self._is_request_sent or upstream.is_full:
            return
        data = b"" if self._is_head_sent else self._head
        self._is_head_sent = True
        for _ in range(_PIECES_IN_A_TURN):
            piece = buffer.next_piece()
            if data or piece:
                upstream.transport.write(data + piece)
            data = b""
            if not piece:
                self._is_request_sent = True
                break
        if not self._is_request_sent and not upstream.is_full:  # else `upstream_is_free` goes on
            self._context.loop.call_soon(self._send_buffer)
        self._extend_wait()

    def _connect_and_send(self, *, needs_new: bool = False) -> None:
        """Send the request to the best server, over an idle connection unless it *needs_new* or there is none."""
        pool = self._pool
        if pool.hash_by is None:
            server = pool.pick(self._tried)
        else:
            affinity = affinity_of(pool.hash_by, self.principal, self.facts.address, self.request)
            server = pool.pick(self._tried, affinity)
        if server is None:
            self.refuse(Reason.UPSTREAM_UNAVAILABLE, "no server of the upstream can be reached")
            return
        self._server = server
        if self._authority is not None:
            self._head = with_authority(self._head, self._authority, server.authority)
            self._authority = server.authority
        server.in_flight += 1
        upstream = None if needs_new else server.take_idle()
        if upstream is None:
            seconds = self._options.connect_seconds
            self._extend(seconds + 1.0 if seconds else 0.0)
            self._context.run(self._connect(server))
        else:
            self._send_over(upstream)

    async def _connect(self, server: UpstreamServer) -> None:
        try:
            upstream = await server.connect(self._options.connect_seconds)
        except (OSError, TimeoutError) as exc:
            server.in_flight -= 1
            server.record_failure(CONNECT, f"no connection: {exc!s:.200}")
            if not self.is_over:
                self._tried = (*self._tried, server)
                self._connect_and_send()
            return
        if self.is_over:
            server.in_flight -= 1
            server.give_back(upstream)  # for another request
        else:
            self._send_over(upstream)

    def _send_over(self, upstream: UpstreamConnection) -> None:
        self._upstream = upstream
        upstream.handler = self
        if self._buffer is not None:
            self._send_buffer()
        elif self._client.body is None:
            self._is_head_sent = self._is_request_sent = True
            upstream.transport.write(self._head)
            self._extend(self._options.first_byte_seconds)
        else:
            self._extend(self._options.idle_seconds)
            self.send_body()

    def send_body(self) -> None:
        """Forward what has arrived of the request's body."""
        client, upstream, buffer = self._client, self._upstream, self._buffer
        body = client.body
        if body is None or (upstream is None and buffer is None):
            return
        try:
            payload = client.take_body(body)
        except BodyFramingError as exc:  # what was forwarded of it stays without an end
            client.will_close = True
            self._give_up(Reason.INVALID_MESSAGE, str(exc))
            return
        is_last = body.is_done
        self._body_bytes += len(payload)
        if self._options.max_body_bytes and self._body_bytes > self._options.max_body_bytes:
            self._give_up(Reason.BODY_TOO_LARGE, _TOO_LARGE)
            return
        if buffer is not None:
            self._fill_buffer(buffer, payload, is_last=is_last)
        elif upstream is not None:
            self._send_piece(upstream, body, payload, is_last=is_last)

    def _send_piece(self, upstream: UpstreamConnection, body: Body, payload: bytes, *, is_last: bool) -> None:
        """Forward *payload*, the next of *body*, as it comes."""
        # Together with the head: if the first piece is malformed, nothing is forwarded.
        data, has_length = b"" if self._is_head_sent else self._head, self.request.length is not None
        if payload:
            data += payload if has_length else chunk(payload)
        if is_last:
            if not has_length:
                data += LAST_CHUNK + body.trailers + b"\r\n"
            self._is_request_sent = True
        if data:
            self._is_head_sent = True
            upstream.transport.write(data)
        self._extend_wait()
        if not is_last and not upstream.is_full:
            self._client.resume_reading()

    def client_is_full(self) -> None:
        """Apply backpressure to the upstream."""
        if self._upstream is not None:
            self._upstream.transport.pause_reading()

    def client_is_free(self) -> None:
        """End the backpressure."""
        if self._upstream is not None:
            self._upstream.transport.resume_reading()

    # Forwarding the response.

    def upstream_received(self, data: bytes) -> None:
        """Forward interim responses and the response's head, or more of its body."""
        upstream = self._upstream
        if upstream is None:
            return
        if upstream.body is not None:
            self._forward_body(upstream, upstream.body, data)
            return
        while (head := upstream.read_head(data)) is not None:
            if isinstance(head, str):
                self._upstream_failed(head)
                return
            if head.status >= _FINAL:
                if head.status not in self._pool.retry_statuses or not self._retry_elsewhere(head):
                    self._respond(upstream, head)
                return
            if head.status == _SWITCHING_PROTOCOLS:
                self._switch_protocols(upstream, head)
                return
            if self.request.minor:  # RFC 9110 §15.2: HTTP/1.0 has no interim responses
                self._client.send_interim(head)
            self._extend(self._options.first_byte_seconds)
            data = b""  # what follows is in the connection's buffer

    def upstream_ended(self) -> bool:
        """Close: only a tunnel stays half-open."""
        return False

    def upstream_lost(self, exc: Exception | None) -> None:
        """Retry or fail; a body that ends with its connection is complete if nothing went wrong."""
        upstream = self._upstream
        # An upstream that refuses a body may close while it arrives: a write fails before the refusal was read.
        if exc is not None and upstream is not None and (unread := unread_bytes(upstream.transport)):
            self.upstream_received(unread)
            if self._upstream is not upstream:
                return
        if exc is None and upstream is not None and isinstance(upstream.body, CloseDelimitedBody):
            self._send_response_body(b"", is_last=True, trailers=b"")
        else:
            self._upstream_failed(f"the connection was lost ({exc or 'closed'})", is_lost=True)

    def upstream_is_full(self) -> None:
        """Apply backpressure to the client."""
        self._client.pause_reading()

    def upstream_is_free(self) -> None:
        """End the backpressure, or send more of a body that was buffered."""
        self._client.resume_reading()
        if self._buffer is not None:
            self._send_buffer()

    def _retry_elsewhere(self, head: ResponseHead) -> bool:
        """Send the request to another server because of the response's *head*; return False if it must not be."""
        request, server = self.request, self._server
        if request.method not in _SAFE or request.has_body or not self._pool.take_retry((*self._tried, server)):
            return False
        server.record_response(head.status)
        self._tried = (*self._tried, server)
        self._drop_upstream()
        self._connect_and_send()
        return True

    def _respond(self, upstream: UpstreamConnection, head: ResponseHead) -> None:
        """Forward the final response's head with what has arrived of its body: in one write if that is all."""
        request, client = self.request, self._client
        self.responded_at = perf_counter()
        self._server.record_response(head.status)
        self._is_responding = True
        self.status = head.status
        payload, unread = upstream.begin_body(head, upstream.take_buffer(), is_head=request.method == b"HEAD"), b""
        body = upstream.body
        is_open = body is not None and not isinstance(body, FixedLengthBody)  # its length is unknown
        if is_open:
            payload, unread = b"", payload
            self.closes |= not request.minor  # HTTP/1.0 has no chunks: the response ends with the connection
        if not self._is_request_sent:
            self.closes = True  # the rest of the request will not be read
        self.sent_bytes = len(payload)
        self.closes |= client.will_close
        start = self._special_start(head) if head.is_special else head.start
        added = gateway_lines(self.principal, self.admission, self.facts.request_id, self._context.legacy_headers)
        client.begin_response(head, start, added, payload, request.minor, self.closes, is_open, body is None)
        if body is None:
            self._complete()
            return
        if client.is_full:  # since the response before
            self.client_is_full()
        self._extend(self._options.idle_seconds)
        if unread:
            self._forward_body(upstream, body, unread)

    def _special_start(self, head: ResponseHead) -> bytes:
        """Return the start of the response's head after charging its cost, with the gateway's CORS if that is on."""
        if head.cost is not None:
            self._context.charging.charge(self.admission, head.cost, self.route)
        settings = self._cors_settings()
        start = head.start
        if settings is not None and head.plain_start is not None:
            fields = with_cors([(b"vary", value) for value in head.vary], settings, self.request.origin or None)
            start = head.plain_start + b"".join(b"%b: %b\r\n" % field for field in fields)
        return self._with_rules(start)

    def _with_rules(self, start: bytes) -> bytes:
        """Return the *start* of a response with the rules of the route applied to its headers."""
        rules = None if self._plan is None else self._plan.response_rules
        return start if rules is None else rules.apply(start)

    def _cors_settings(self) -> CorsSettings | None:
        cors = self._context.cors
        return None if cors is None else cors.for_request(self.request.name, self.facts.path)

    def _forward_body(self, upstream: UpstreamConnection, body: Body, data: bytes) -> None:
        """Forward *data* of the response's *body*."""
        try:
            payload, rest = body.take(data)
        except BodyFramingError as exc:
            self._upstream_failed(str(exc))
            return
        if rest:
            upstream.is_reusable = False
        self._send_response_body(payload, is_last=body.is_done, trailers=body.trailers)

    def _send_response_body(self, payload: bytes, *, is_last: bool, trailers: bytes) -> None:
        self.sent_bytes += len(payload)
        self._client.send_payload(payload, is_last, trailers)
        if is_last:
            self._complete()
        else:
            self._extend(self._options.idle_seconds)

    def _switch_protocols(self, upstream: UpstreamConnection, head: ResponseHead) -> None:
        """Turn the two connections into a tunnel, if that is what the client requested."""
        requested, offered = self.request.upgrade, head.upgrade
        if requested is None or offered is None or requested.lower() != offered.lower():
            self._upstream_failed("an upgrade that was not requested")
            return
        client = self._client
        self.responded_at = perf_counter()
        self.status = head.status
        self._extend(self._options.tunnel_idle_seconds)
        if head.cost is not None:
            self._context.charging.charge(self.admission, head.cost, self.route)
        added = gateway_lines(self.principal, self.admission, self.facts.request_id, self._context.legacy_headers)
        ahead = client.switch_protocols(head, self._with_rules(head.start), added)
        self._is_recorded = True  # now, since a tunnel may last for days
        self.record(ALLOWED, self.status)
        self._is_responding = True
        self.tunnel = upstream.handler = tunnel = Tunnel(
            client, upstream, self._tunnel_ended, is_websocket=requested.lower() == b"websocket"
        )
        if client.is_full:
            self.client_is_full()
        if ahead:
            tunnel.client_received(ahead)
        client.resume_reading()
        if rest := upstream.take_buffer():
            tunnel.upstream_received(rest)

    # Timeouts.

    def check_timeouts(self, now: float) -> None:
        """Handle what is due at *now*."""
        if self.due <= now:
            self.expire()
        elif self.recheck_at <= now:
            self.recheck_at = now + CHECK_SECONDS
            self._context.run(self.recheck())

    def expire(self) -> None:
        """Handle that *due* has passed."""
        self.due = NEVER
        if self.tunnel is not None:
            self._expire_tunnel(self.tunnel)
        elif self._is_forwarding:
            self._expire_forwarding()
        elif self._identification is not None:
            self._identification.cancel()
            self.refuse(Reason.UNAVAILABLE, "the decision takes too long")

    def _expire_call(self) -> None:
        """End a call of gRPC at its deadline, which may be shorter than the time between checks of timeouts."""
        if not self.is_over:
            self._give_up(Reason.UPSTREAM_TIMEOUT, "the deadline of the call has passed")

    def _expire_forwarding(self) -> None:
        if monotonic() < self._total_deadline and self._makes_progress():
            self._extend_wait()
            return
        if self._upstream is None:
            waits_for_client = self._buffer is not None and self._client.body is not None
        else:
            waits_for_client = not self._is_request_sent and not self._upstream.is_full
        if self._is_responding or waits_for_client:
            self._give_up(Reason.REQUEST_TIMEOUT, "the body did not arrive in time")
        else:
            self._server.record_failure(TIMEOUT, "it does not answer in time")
            self._give_up(Reason.UPSTREAM_TIMEOUT, "the upstream did not answer in time")

    def _expire_tunnel(self, tunnel: Tunnel) -> None:
        """Close both connections, unless bytes have come from either in the meantime."""
        seconds, now = self._options.tunnel_idle_seconds, monotonic()
        remaining = tunnel.active_at + seconds - now
        if remaining > 0 and now < self._total_deadline:
            self._extend(remaining)
        else:
            tunnel.cut(GOING_AWAY)

    def _makes_progress(self) -> bool:
        """Return whether either side has read from a write buffer since the last timeout, however slowly."""
        unwritten = self._client.unwritten
        if self._upstream is not None:
            unwritten += self._upstream.transport.get_write_buffer_size()
        before, self._accepted_bytes = self._accepted_bytes, self.sent_bytes + self._body_bytes - unwritten
        return unwritten > 0 and self._accepted_bytes != before

    def _extend(self, seconds: float) -> None:
        due = monotonic() + seconds if seconds else NEVER
        self.due = due if due < self._total_deadline else self._total_deadline  # noqa: FURB136 - `min` takes thrice as long

    def _extend_wait(self) -> None:
        waits_for_response = self._is_request_sent and not self._is_responding
        self._extend(self._options.first_byte_seconds if waits_for_response else self._options.idle_seconds)

    async def recheck(self) -> None:
        """Abort the request if its credential is no longer valid for it."""
        if self.route is None or not isinstance(self.principal, Principal):
            return
        if not await self._context.gate.is_still_allowed(self.facts, self.route) and not self.is_over:
            self._context.throttle.log(logging.INFO, ENDED, self.facts.request_id.decode())
            if self.tunnel is not None:
                self.tunnel.cut(POLICY_VIOLATION)
            else:
                self._drop_upstream()
                self._abort()

    # The end.

    def refuse(self, reason: Reason, detail: str) -> None:
        """Respond that the request is refused for a *reason* of the proxy's own."""
        principal = self.principal if isinstance(self.principal, Principal) else None
        self._deny(Denied(reason, detail, self.route, principal))

    def _refuse_overload(self) -> None:
        principal = self.principal if isinstance(self.principal, Principal) else None
        detail = "max_in_flight requests to the upstream are in progress"
        denied = Denied(Reason.UPSTREAM_OVERLOADED, detail, self.route, principal, retry_after=_OVERLOAD_SECONDS)
        self._deny(denied)

    def evict(self, detail: str) -> None:
        """Stop, and respond that there are too many connections."""
        self._drop_upstream()
        self.closes = True
        self.refuse(Reason.UNAVAILABLE, detail)

    def client_lost(self) -> None:
        """Stop, since the client is gone; a tunnel first delivers what is in its buffers."""
        if self.tunnel is not None:
            self.tunnel.client_lost()
        else:
            self.cancel()

    def cancel(self) -> None:
        """Stop without a response."""
        if self._pending_answer is not None and not self._pending_answer.cancel():
            abandon(self._pending_answer)
        if self._identification is not None:
            self._identification.cancel()
        self._drop_upstream()
        if self.trace is not None:
            self.trace.set_error("client_gone")
        self._finish(ALLOWED, self.status or _CLIENT_GONE)

    def _upstream_failed(self, detail: str, *, is_lost: bool = False) -> None:
        """Retry where that is safe, respond with the failure, or break off a response that has begun."""
        upstream, request = self._upstream, self.request
        was_idle = is_lost and not self._is_responding and upstream is not None and upstream.is_reused
        if was_idle and request.method in _SAFE and not request.has_body:
            self._drop_upstream()
            self._connect_and_send(needs_new=True)
            return
        if not was_idle:
            self._server.record_failure(LOST if is_lost else MALFORMED, detail)
        self._give_up(Reason.UPSTREAM_UNAVAILABLE, detail)

    def _give_up(self, reason: Reason, detail: str) -> None:
        """Refuse the request, or break off a response that has begun."""
        self._drop_upstream()
        if self._is_responding:
            self._abort()
        else:
            self.refuse(reason, detail)

    def _abort(self) -> None:
        """Close the client's connection so that it sees an incomplete response."""
        if self.trace is not None:
            self.trace.set_error("answer_broken_off")
        self._finish(ALLOWED, self.status or _CLIENT_GONE)
        self._client.abort(by_reset=not self.request.minor)
        self._on_end(False)  # noqa: FBT003 - a callback's only argument

    def _complete(self) -> None:
        """End after the whole response was sent."""
        upstream, self._upstream = self._upstream, None
        server = self._server
        server.in_flight -= 1
        if upstream is not None:
            if self._is_request_sent and upstream.is_reusable:
                if self._client.is_full:
                    upstream.transport.resume_reading()  # the next client may read faster
                server.give_back(upstream)
            else:
                upstream.abort()
        self._finish(ALLOWED, self.status)
        self._on_end(self._is_request_sent and not self.closes)

    def _tunnel_ended(self) -> None:
        if not self.is_over:
            self.tunnel = self._upstream = None
            self._server.in_flight -= 1
            self._finish(ALLOWED, self.status)
            self._on_end(False)  # noqa: FBT003 - as above

    def _drop_upstream(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            self._server.in_flight -= 1
            if self._is_head_sent:
                upstream.abort()
            else:
                self._server.give_back(upstream)  # nothing was sent over it

    def _deny(self, denied: Denied) -> None:
        """Respond with *denied*."""
        client = self._client
        self._context.refusals.add(self.facts, denied)
        closes = self.closes or client.will_close or not client.discard_body()
        response = refusal(
            denied,
            self.facts.request_id,
            self._context.gateway.brand,
            legacy=self._context.legacy_headers,
            challenge=self._context.challenge,
            cors=cors_fields(self._cors_settings(), self.request.origin or None),
            is_head=self.request.method == b"HEAD",
            admission=self.admission,
        )
        self.principal = self.principal or denied.principal
        self.route = self.route or denied.route
        is_call = self.request.is_grpc and client.is_http2
        sent = grpc_response(response) if is_call else response
        self.sent_bytes = client.respond(sent, minor=self.request.minor, closes=closes)
        self._finish(outcome_of_refusal(denied), response.status)
        self._on_end(not closes)

    def _finish(self, outcome: RequestOutcome, status: int) -> None:
        """Release the concurrency slot and record the request, once."""
        if self.is_over:
            return
        self.is_over = True
        if self.admission is not None:
            self.admission.lease.release()
        if self._buffer is not None:
            self._buffer.close()
        if not self._is_recorded:
            self.record(outcome, status)

    # Telemetry.

    def record(self, outcome: RequestOutcome, status: int) -> None:
        """Record the request in usage, metrics, access log and trace."""
        context, facts, principal, route = self._context, self.facts, self.principal, self.route
        if outcome == ALLOWED and self.admission is not None and self.admission.is_shadow_limited and route is not None:
            outcome = outcome_of(self.admission, route)
        began_at, decided_at, responded_at = self.began_at, self.decided_at, self.responded_at
        if decided_at is not None:
            context.steps.count_decision(began_at, self.admission_began_at, decided_at)
            if responded_at is not None:
                context.steps.count_upstream(responded_at - decided_at)
        if principal is not None or route is not None or outcome != ALLOWED:  # the control plane records its own
            context.recorder.record(principal, route, outcome, status, began_at)
        if (own := self.own_request) is not None:
            context.router.own_requests.end(own)
            facts, principal, route = own.facts or facts, own.principal, own.route
            outcome = own.outcome if outcome == ALLOWED else outcome
        if context.access_log is None and context.traces is None:
            return
        steps = _new(Steps, (began_at, self.admission_began_at, decided_at, responded_at, perf_counter()))
        trace_id = b""
        if context.traces is not None:
            trace = self.trace or self._new_trace(context.traces)  # a refused request was not forwarded
            trace_id = trace.trace_id
            trace.end(principal, outcome, status, steps)
            self.trace = None  # a tunnel may last for days
        if context.access_log is not None:
            log, path = context.access_log, self.forwarded_path
            log.add(facts, principal, route, outcome, status, steps, self.sent_bytes, trace_id, path)

    def _begin_trace(self) -> bytes:
        """Begin the trace, if there are traces, and return the lines of its context for the upstream."""
        traces = self._context.traces
        if traces is None:
            return b""
        self.trace = trace = self._new_trace(traces)
        return trace.start_upstream(self.decided_at or perf_counter(), self.request.name)

    def _new_trace(self, traces: "Traces") -> "Trace":
        head, client = self.request, self._client
        return traces.begin(
            self.facts,
            self.route,
            IncomingTrace(head.trace_parent, head.trace_states, client.is_trusted),
            began_at=self.began_at,
            scheme=client.scheme.decode(),
        )
