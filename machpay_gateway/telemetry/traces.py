"""OpenTelemetry spans of requests, built from the moments that are recorded anyway. Imported only where traces are on.

A request has one span, named by its route. Its children are `decide`, `admission` if the limiter had to be waited for,
and `upstream`. Names and attributes follow OpenTelemetry's semantic conventions for HTTP. They hold nothing of a
header, a query or a body, and secrets in a path are masked. Unlike metrics, they hold ids of keys.
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
from machpay_gateway.core.text import mask_secrets
from machpay_gateway.core.usage.counters import ADMITTED_OUTCOMES
from machpay_gateway.core.usage.outcome import RequestOutcome, policies_of
from machpay_gateway.telemetry.steps import IncomingTrace, Steps

Record = Callable[[Principal | Anonymous | None, Route | None, RequestOutcome, object, float], None]

_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
_OTHER = "_OTHER"  # for methods that are not registered: clients can invent any number of them
_LONGEST_PATH = 1024  # characters
_SERVER_ERROR, _CLIENT_ERROR = 500, 400  # the lowest status of each kind
_CLIENT_GONE = 499
_PROPAGATOR = TraceContextTextMapPropagator()


class Trace:
    """The spans of one request."""

    __slots__ = ("_epoch", "_error", "_span", "_tracer", "_upstream", "context", "trace_id")

    def __init__(self, traces: "Traces", span: Span, context: Context, epoch: int) -> None:
        """Hold the request's *span*, a child of *context*. *epoch* is when `time.perf_counter` was 0, in ns."""
        self._tracer = traces.tracer
        self._span = span
        self._upstream: Span | None = None
        self._epoch = epoch
        self._error: str | None = None
        self.context = set_span_in_context(span, context)
        span_context = span.get_span_context()
        self.trace_id = b"%032x" % span_context.trace_id if span_context.is_valid else b""

    def start_upstream(self, at: float, method: str) -> bytes:
        """Start the span of the upstream, and return the header lines that propagate the trace to it."""
        attributes = {"http.request.method": _registered(method)}
        self._upstream = span = self._tracer.start_span(
            "upstream", self.context, SpanKind.CLIENT, attributes, start_time=self._moment(at)
        )
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, set_span_in_context(span, self.context))
        return "".join(f"{name}: {value}\r\n" for name, value in carrier.items()).encode("latin-1")

    def set_error(self, error: str) -> None:
        """Mark the response as incomplete because of *error*."""
        self._error = error

    def end(self, principal: Principal | Anonymous | None, outcome: RequestOutcome, status: int, steps: Steps) -> None:
        """End all spans at the moments of *steps*."""
        span, began_at, name = self._span, self._moment(steps.began_at), str(outcome)
        if self._upstream is not None:
            self._end_upstream(self._upstream, name, status, steps)
        if not span.is_recording():
            return
        if steps.decided_at is not None:
            decided_at = self._moment(steps.decided_at)
            self._step("decide", began_at, decided_at)
            if steps.asked_at is not None:
                self._step("admission", self._moment(steps.asked_at), decided_at)
        span.set_attribute("http.response.status_code", status)
        span.set_attribute("machpay.outcome", name)
        if policies := policies_of(outcome):
            span.set_attribute("machpay.violated_policies", policies)
        if isinstance(principal, Principal):
            span.set_attribute("machpay.tier", principal.tier)
            span.set_attribute("machpay.environment", principal.environment)
            if principal.key_id is not None:
                span.set_attribute("machpay.key_id", principal.key_id)
        if self._error is not None or status >= _SERVER_ERROR:
            _fail(span, self._error or _error_type(name, status))
        span.end(self._moment(steps.ended_at))

    def _end_upstream(self, span: Span, outcome: str, status: int, steps: Steps) -> None:
        if steps.answered_at is None:
            _fail(span, self._error or ("client_gone" if status == _CLIENT_GONE else outcome))
            span.end(self._moment(steps.ended_at))
            return
        span.set_attribute("http.response.status_code", status)
        if status >= _CLIENT_ERROR:
            _fail(span, str(status))
        span.end(self._moment(steps.answered_at))

    def _step(self, name: str, began_at: int, ended_at: int) -> None:
        self._tracer.start_span(name, self.context, start_time=began_at).end(ended_at)

    def _moment(self, at: float) -> int:
        """Return *at*, a reading of `time.perf_counter`, in nanoseconds since the epoch."""
        return self._epoch + int(at * 1e9)


class Traces:
    """Starts the span of each request, in a new trace or as part of the caller's."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        """Make spans by *provider*, or by the global one, which may be set later."""
        self.tracer = get_tracer("machpay_gateway", version("machpay-gateway"), provider)

    def begin(
        self,
        facts: RequestFacts,
        route: Route | None,
        incoming: IncomingTrace,
        *,
        began_at: float,
        scheme: str,
        around: Context | None = None,
    ) -> Trace:
        """Start the span of a request that *began_at*, by `time.perf_counter`.

        It is a child of the current span of *around*, if an instrumented server has set one.
        """
        epoch = time.time_ns() - time.perf_counter_ns()
        links: tuple[Link, ...] = ()
        kind = SpanKind.SERVER
        if around is not None and get_current_span(around).get_span_context().is_valid:
            context, kind = around, SpanKind.INTERNAL
        else:
            context = _context_of(incoming)
            parent = get_current_span(context).get_span_context()
            # W3C Trace Context, "Restart trace": a gateway starts a new trace for untrusted callers. Otherwise any of
            # them could have all its requests sampled, or add to other people's traces. Their context becomes a link.
            if not incoming.is_trusted and parent.is_valid:
                context, links = Context(), (Link(parent),)
        method, path = _registered(facts.method), None if route is None else route.match.partition(" ")[2]
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

    def wrap(
        self, app: ASGIApp, record: Record, trace: Trace, asked_at: float | None, decided_at: float
    ) -> tuple[ASGIApp, Record]:
        """Return *app* run within *trace*, and *record* that also ends it; it is called once for each request."""

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            token = attach(trace.context)
            try:
                await app(scope, receive, send)
            finally:
                detach(token)

        def record_and_end(
            principal: Principal | Anonymous | None,
            route: Route | None,
            outcome: RequestOutcome,
            status: object,
            began_at: float,
        ) -> None:
            record(principal, route, outcome, status, began_at)
            steps = Steps(began_at, asked_at, decided_at, None, time.perf_counter())
            trace.end(principal, outcome, status if isinstance(status, int) else 0, steps)

        return serve, record_and_end

    def begin_for_scope(
        self, scope: Scope, facts: RequestFacts, route: Route | None, *, is_trusted: bool, began_at: float
    ) -> Trace:
        """Start the span of the request of an ASGI *scope*, within the current span."""
        parents, states = [], []
        for name, value in scope["headers"]:
            if name == b"traceparent":
                parents.append(value)
            elif name == b"tracestate":
                states.append(value)
        incoming = IncomingTrace(parents[0] if len(parents) == 1 else None, tuple(states), is_trusted)
        scheme = str(scope.get("scheme", "http"))
        return self.begin(facts, route, incoming, began_at=began_at, scheme=scheme, around=get_current())


def _context_of(incoming: IncomingTrace) -> Context:
    """Return the context of the request's headers; an empty one if they have none or cannot be parsed."""
    if not incoming.parent:
        return Context()
    carrier = {"traceparent": incoming.parent.decode("latin-1")}
    if incoming.states:
        carrier["tracestate"] = b",".join(incoming.states).decode("latin-1")
    return _PROPAGATOR.extract(carrier, Context())


def _attributes(facts: RequestFacts, method: str, route: str | None, scheme: str) -> Mapping[str, str]:
    """Return the attributes at the start of a span, which samplers see."""
    attributes = {
        "http.request.method": method,
        "url.scheme": scheme,
        "machpay.request_id": facts.request_id.decode("latin-1"),
    }
    if route is not None:
        attributes["http.route"] = route
    if facts.path is not None:
        attributes["url.path"] = mask_secrets(facts.path)[:_LONGEST_PATH]
    if (address := format_address_or_none(facts.address)) is not None:
        attributes["client.address"] = address
    return attributes


def _registered(method: str) -> str:
    return method if method in _METHODS else _OTHER


def _error_type(outcome: str, status: int) -> str:
    return str(status) if outcome in ADMITTED_OUTCOMES else outcome


def _fail(span: Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))
