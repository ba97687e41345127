"""Spans of requests, made of the moments that are kept of each in any case. Imported where traces are on, nowhere else.

A request has one span of its own, named by its route, and in it `decide`, `admission` if the limiter had to be waited
for, and `upstream`. Names and attributes are by OpenTelemetry's semantic conventions for HTTP; nothing of a header, a
query or a body is in them, and what looks like a secret in a path is cut short. They hold ids of keys, which metrics
do not.
"""

import time
from collections.abc import Callable, Mapping
from importlib.metadata import version

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    Status,
    StatusCode,
    TracerProvider,
    get_current_span,
    get_tracer,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Receive, Scope, Send

from machpay_gateway.core.decision.principal import Anonymous, Principal
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.network.address import format_address_or_none
from machpay_gateway.core.text import masked
from machpay_gateway.core.usage.counters import ALLOWED
from machpay_gateway.telemetry.steps import Incoming, Steps

Record = Callable[[Principal | Anonymous | None, Route | None, str, object, float], None]

_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
_OTHER = "_OTHER"  # a method that anybody may have made up makes no name of its own
_LONGEST_PATH = 1024  # characters
_FAILURE, _REFUSAL = 500, 400  # statuses from which on a server has failed, and a client was not served
_CLIENT_GONE = 499
_PROPAGATOR = TraceContextTextMapPropagator()


class Trace:
    """The spans of one request."""

    __slots__ = ("_epoch", "_fault", "_span", "_tracer", "_upstream", "context", "trace_id")

    def __init__(self, traces: "Traces", span: Span, context: Context, epoch: int) -> None:
        """Take the request's *span*, within *context*. *epoch* is when `time.perf_counter` was 0."""
        self._tracer = traces.tracer
        self._span = span
        self._upstream: Span | None = None
        self._epoch = epoch
        self._fault: str | None = None
        self.context = set_span_in_context(span, context)
        found = span.get_span_context()
        self.trace_id = b"%032x" % found.trace_id if found.is_valid else b""

    def sent_on(self, at: float, method: str) -> bytes:
        """Begin the span of what the upstream does, and return the lines of the header that tell it of that."""
        attributes = {"http.request.method": _known(method)}
        self._upstream = span = self._tracer.start_span(
            "upstream", self.context, SpanKind.CLIENT, attributes, start_time=self._moment(at)
        )
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, set_span_in_context(span, self.context))
        return "".join(f"{name}: {value}\r\n" for name, value in carrier.items()).encode("latin-1")

    def broke(self, fault: str) -> None:
        """Note that the answer was not sent to its end, because of *fault*."""
        self._fault = fault

    def end(self, principal: Principal | Anonymous | None, outcome: str, status: int, steps: Steps) -> None:
        """End every span, by the moments of *steps*."""
        span, began_at = self._span, self._moment(steps.began_at)
        if self._upstream is not None:
            self._end_upstream(self._upstream, outcome, status, steps)
        if not span.is_recording():
            return
        if steps.decided_at is not None:
            decided_at = self._moment(steps.decided_at)
            self._step("decide", began_at, decided_at)
            if steps.asked_at is not None:
                self._step("admission", self._moment(steps.asked_at), decided_at)
        span.set_attribute("http.response.status_code", status)
        span.set_attribute("machpay.outcome", str(outcome))
        if isinstance(principal, Principal):
            span.set_attribute("machpay.tier", principal.tier)
            span.set_attribute("machpay.environment", principal.environment)
            if principal.key_id is not None:
                span.set_attribute("machpay.key_id", principal.key_id)
        if self._fault is not None or status >= _FAILURE:
            _fail(span, self._fault or _told(outcome, status))
        span.end(self._moment(steps.ended_at))

    def _end_upstream(self, span: Span, outcome: str, status: int, steps: Steps) -> None:
        if steps.answered_at is None:
            _fail(span, self._fault or ("client_gone" if status == _CLIENT_GONE else str(outcome)))
            span.end(self._moment(steps.ended_at))
            return
        span.set_attribute("http.response.status_code", status)
        if status >= _REFUSAL:
            _fail(span, str(status))
        span.end(self._moment(steps.answered_at))

    def _step(self, name: str, began_at: int, ended_at: int) -> None:
        self._tracer.start_span(name, self.context, start_time=began_at).end(ended_at)

    def _moment(self, at: float) -> int:
        """Return the moment *at*, by `time.perf_counter`, in nanoseconds since the epoch."""
        return self._epoch + int(at * 1e9)


class Traces:
    """Begins the trace of each request, or goes on with the one that it is a part of."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        """Make spans by *provider*, or by the global one, which may come later."""
        self.tracer = get_tracer("machpay_gateway", version("machpay-gateway"), provider)

    def begin(
        self,
        facts: RequestFacts,
        route: Route | None,
        incoming: Incoming,
        *,
        began_at: float,
        scheme: str,
        around: Context | None = None,
    ) -> Trace:
        """Begin the span of a request that *began_at*, by `time.perf_counter`.

        It is within the span of *around* if that has one, of whatever serves this process's requests.
        """
        epoch = time.time_ns() - time.perf_counter_ns()
        links: tuple[Link, ...] = ()
        kind = SpanKind.SERVER
        if around is not None and get_current_span(around).get_span_context().is_valid:
            context, kind = around, SpanKind.INTERNAL
        else:
            context = _context_of(incoming)
            told = get_current_span(context).get_span_context()
            # W3C Trace Context, "Restart trace": a front gate begins anew, or any stranger could have everything
            # recorded, and add to traces that are not theirs. What they told is a link, and decides nothing.
            if not incoming.is_trusted and told.is_valid:
                context, links = Context(), (Link(told),)
        method, path = _known(facts.method), None if route is None else route.match.partition(" ")[2]
        name = "HTTP" if method == _OTHER else method
        span = self.tracer.start_span(
            name if path is None else f"{name} {path}",
            context,
            kind,
            _attributes(facts, method, path, scheme),
            links,
            start_time=epoch + int(began_at * 1e9),
        )
        return Trace(self, span, context, epoch)

    def guarding(
        self, app: ASGIApp, record: Record, trace: Trace, asked_at: float | None, decided_at: float
    ) -> tuple[ASGIApp, Record]:
        """Return *app* run within *trace*, and *record* that ends it: it is called once for each request."""

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            token = attach(trace.context)
            try:
                await app(scope, receive, send)
            finally:
                detach(token)

        def record_and_end(
            principal: Principal | Anonymous | None, route: Route | None, outcome: str, status: object, began_at: float
        ) -> None:
            record(principal, route, outcome, status, began_at)
            steps = Steps(began_at, asked_at, decided_at, None, time.perf_counter())
            trace.end(principal, outcome, status if isinstance(status, int) else 0, steps)

        return serve, record_and_end

    def of_scope(
        self, scope: Scope, facts: RequestFacts, route: Route | None, *, is_trusted: bool, began_at: float
    ) -> Trace:
        """Begin the span of the request of an ASGI *scope*, within what is current."""
        parents, states = [], []
        for name, value in scope["headers"]:
            if name == b"traceparent":
                parents.append(value)
            elif name == b"tracestate":
                states.append(value)
        incoming = Incoming(parents[0] if len(parents) == 1 else None, tuple(states), is_trusted)
        scheme = str(scope.get("scheme", "http"))
        return self.begin(facts, route, incoming, began_at=began_at, scheme=scheme, around=get_current())


def _context_of(incoming: Incoming) -> Context:
    """Return the context that is told of, an empty one where nothing is or where it cannot be read."""
    if not incoming.parent:
        return Context()
    carrier = {"traceparent": incoming.parent.decode("latin-1")}
    if incoming.states:
        carrier["tracestate"] = b",".join(incoming.states).decode("latin-1")
    return _PROPAGATOR.extract(carrier, Context())


def _attributes(facts: RequestFacts, method: str, route: str | None, scheme: str) -> Mapping[str, str]:
    """Return what is known from the start, and so to samplers."""
    known = {
        "http.request.method": method,
        "url.scheme": scheme,
        "machpay.request_id": facts.request_id.decode("latin-1"),
    }
    if route is not None:
        known["http.route"] = route
    if facts.path is not None:
        known["url.path"] = masked(facts.path)[:_LONGEST_PATH]
    if (address := format_address_or_none(facts.address)) is not None:
        known["client.address"] = address
    return known


def _known(method: str) -> str:
    return method if method in _METHODS else _OTHER


def _told(outcome: str, status: int) -> str:
    return str(status) if outcome == ALLOWED else str(outcome)


def _fail(span: Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))
