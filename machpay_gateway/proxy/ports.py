"""What each part of the proxy asks of those above it: they know each other by this alone.

Base classes and no protocols, because a compiled proxy calls these without looking anything up.
"""

import asyncio
from abc import ABC, abstractmethod
from asyncio import AbstractEventLoop, Transport
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.principal import Anonymous, Principal
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.limits.admission import Admitted
from machpay_gateway.core.network.proxy_options import ProxyOptions
from machpay_gateway.gate import Gate
from machpay_gateway.proxy.bodies import Body
from machpay_gateway.proxy.framing import FramedRequest
from machpay_gateway.proxy.heads import AnswerHead, RequestHead
from machpay_gateway.proxy.readers import RequestReader
from machpay_gateway.proxy.upstreams import Upstreams
from machpay_gateway.telemetry.steps import Steps
from machpay_gateway.web.page_hosts import PageGuard

if TYPE_CHECKING:
    from machpay_gateway.telemetry.traces import Trace, Traces

NEVER = float("inf")  # when what waits without a limit is due
Walk = tuple[int | None, ...]  # addresses, from the client to our peer; None is one that cannot be read


class RequestLog(Protocol):
    """Where requests are written down."""

    def add(  # noqa: PLR0917 - as the log has it
        self,
        facts: RequestFacts,
        principal: Principal | Anonymous | None,
        route: Route | None,
        outcome: str,
        status: int,
        steps: Steps,
        sent_bytes: int,
        trace_id: bytes,
    ) -> None:
        """Add a request that has come to its end by *steps*; its trace's id is empty if it has none."""


class ClientTunnel(ABC):
    """A tunnel, as the client's connection sees it."""

    __slots__ = ()

    @abstractmethod
    def client_sent(self, data: bytes) -> None:
        """Hand bytes on to the upstream."""

    @abstractmethod
    def client_said_all(self) -> bool:
        """End the client's direction; tell whether the other one goes on."""

    @abstractmethod
    def client_gone(self) -> None:
        """Close the other side."""

    @abstractmethod
    def client_is_full(self) -> None:
        """Read no more from the upstream for now."""

    @abstractmethod
    def client_is_free(self) -> None:
        """Read on."""


class Placed(Protocol):
    """A connection, as it is weighed when there are too many."""

    address: int | None
    is_trusted: bool

    @property
    def idle_since(self) -> float:
        """When it began to wait for its client, by the monotonic clock; later for one that is closed last.

        NEVER for one that is at work.
        """


class DownstreamClient(asyncio.Protocol, ABC):
    """The client's connection, as what serves a request sees it."""

    __slots__ = ()

    transport: Transport
    body: Body | None  # what is still to come of the request
    address: int | None
    host: str
    scheme: bytes
    began_at: float  # by `time.perf_counter`
    walk: Walk
    is_full: bool  # it cannot be sent any more for now
    is_trusted: bool
    will_close: bool

    @abstractmethod
    def stop_reading(self) -> None:
        """Let the client wait with what it sends."""

    @abstractmethod
    def read_on(self) -> None:
        """Let the client send."""

    @abstractmethod
    def send_body(self) -> None:
        """Hand on what has come of the request's body."""

    @abstractmethod
    def has_body_here(self) -> bool:
        """Pass over what has come of the request's body; tell whether that was all of it."""

    @abstractmethod
    def open_tunnel(self, tunnel: ClientTunnel) -> None:
        """Read no more requests: all that comes now is the tunnel's."""

    @abstractmethod
    def exchange_ended(self, *, may_go_on: bool) -> None:
        """Take the next request, or close."""

    @abstractmethod
    def abort(self, *, by_reset: bool) -> None:
        """Close, so that the client can tell that its answer is not whole: *by_reset* where closing would end one."""


class Carried(ABC):
    """A request, as what carries it sees it."""

    client: DownstreamClient
    request: RequestHead
    began_at: float  # when its head had come; this and what follows by `time.perf_counter`
    asked_at: float | None  # when the limiter was asked, if it could not answer at once
    decided_at: float | None  # None when the control plane decides
    answered_at: float | None  # when the head of the upstream's answer had come
    trace: "Trace | None"
    facts: RequestFacts
    principal: Principal | Anonymous | None  # None when nobody was found to be, or the control plane decides
    route: Route | None
    grant: Admitted | None
    closes: bool  # the client's connection, after the answer
    due: float
    status: int
    sent_bytes: int  # of a body, to the client

    @abstractmethod
    def answer_head(self, answer: AnswerHead, *, is_open: bool) -> bytes:
        """Return the head of *answer* as the client gets it; the length of its body is not known when it *is_open*."""

    @abstractmethod
    def switching_head(self, answer: AnswerHead) -> bytes:
        """Return the head of a 101 *answer* as the client gets it."""

    @abstractmethod
    def refuse(self, reason: Reason, detail: str) -> None:
        """Answer that the request goes no further."""

    @abstractmethod
    def abort(self) -> None:
        """End what cannot be ended well: the client sees that its answer is not whole."""

    @abstractmethod
    def count(self) -> None:
        """Count the request now, though it goes on."""

    @abstractmethod
    def finish(self, *, may_go_on: bool) -> None:
        """Note that the whole answer was sent."""

    @abstractmethod
    def tunnel_ended(self) -> None:
        """Note that nothing more goes through."""

    @abstractmethod
    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do *work* beside everything else."""


class Front(ABC):
    """What all connections of this process share, as one of them sees it."""

    loop: AbstractEventLoop
    gate: Gate
    requests: RequestReader
    upstreams: Upstreams
    carriage: ProxyOptions
    legacy_headers: bool
    has_control_plane: bool
    pages: PageGuard | None  # None where no pages are bound to a host
    asserts: bool
    traces: "Traces | None"
    head_seconds: float
    keepalive_seconds: float

    @abstractmethod
    def entered(self, connection: Any) -> None:  # noqa: ANN401 - a connection, which is above this
        """Take *connection* in, or turn it away."""

    @abstractmethod
    def left(self, connection: Any) -> None:  # noqa: ANN401 - as above
        """Forget *connection*."""

    @abstractmethod
    def may_speak_for_others(self, address: int | None) -> bool:
        """Tell whether the peer at *address* is a trusted proxy."""

    @abstractmethod
    def next_id(self) -> bytes:
        """Return a new request id."""

    @abstractmethod
    def facts_of(self, client: DownstreamClient, request: FramedRequest) -> tuple[RequestFacts, Walk]:
        """Return what a decision needs to know of *request*, and who is behind whom."""

    @abstractmethod
    def assertion_for(self, principal: Principal | Anonymous | None) -> bytes:
        """Return a signed word about *principal*, nothing about nobody."""

    @abstractmethod
    def begin_trace(self, exchange: Carried) -> bytes:
        """Begin the trace of *exchange*, and return the lines that tell its upstream of that."""

    @abstractmethod
    def carriage_for(self, route: Route) -> ProxyOptions:
        """Return what holds for carrying requests of *route*."""

    @abstractmethod
    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do *work* beside everything else."""

    @abstractmethod
    def record(self, exchange: Carried, outcome: str, status: int) -> None:
        """Count what became of *exchange*."""

    @abstractmethod
    def count_fault(self, client: DownstreamClient, request_id: bytes, denied: Denied, status: int) -> None:
        """Count what was no request."""
