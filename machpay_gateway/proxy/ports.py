"""What each part of the proxy asks of those above it: they know each other by this alone."""

from asyncio import AbstractEventLoop, Transport
from collections.abc import Coroutine
from typing import Any, Protocol

from machpay_gateway.core.admission import Granted
from machpay_gateway.core.carriage import Carriage
from machpay_gateway.core.decision import Denied
from machpay_gateway.core.facts import RequestFacts
from machpay_gateway.core.principal import Anonymous, Principal
from machpay_gateway.core.reason import Reason
from machpay_gateway.core.route import Route
from machpay_gateway.gate import Gate
from machpay_gateway.proxy.bodies import Body
from machpay_gateway.proxy.framing import Request
from machpay_gateway.proxy.heads import AnswerHead, RequestHead
from machpay_gateway.proxy.pool import Pool
from machpay_gateway.proxy.readers import RequestReader

Walk = tuple[int | None, ...]  # addresses, from the client to our peer; None is one that cannot be read


class ClientTunnel(Protocol):
    """A tunnel, as the client's connection sees it."""

    def client_sent(self, data: bytes) -> None:
        """Hand bytes on to the upstream."""

    def client_said_all(self) -> bool:
        """End the client's direction; tell whether the other one goes on."""

    def client_gone(self) -> None:
        """Close the other side."""

    def client_is_full(self) -> None:
        """Read no more from the upstream for now."""

    def client_is_free(self) -> None:
        """Read on."""


class Client(Protocol):
    """The client's connection, as what serves a request sees it."""

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

    def stop_reading(self) -> None:
        """Let the client wait with what it sends."""

    def read_on(self) -> None:
        """Let the client send."""

    def send_body(self) -> None:
        """Hand on what has come of the request's body."""

    def has_body_here(self) -> bool:
        """Pass over what has come of the request's body; tell whether that was all of it."""

    def open_tunnel(self, tunnel: ClientTunnel) -> None:
        """Read no more requests: all that comes now is the tunnel's."""

    def exchange_ended(self, *, may_go_on: bool) -> None:
        """Take the next request, or close."""

    def abort(self, *, by_reset: bool) -> None:
        """Close, so that the client can tell that its answer is not whole: *by_reset* where closing would end one."""


class Carried(Protocol):
    """A request, as what carries it sees it."""

    client: Client
    request: RequestHead
    closes: bool  # the client's connection, after the answer
    due: float
    status: int
    sent_bytes: int

    def answer_head(self, answer: AnswerHead, *, is_open: bool) -> bytes:
        """Return the head of *answer* as the client gets it; the length of its body is not known when it *is_open*."""

    def switching_head(self, answer: AnswerHead) -> bytes:
        """Return the head of a 101 *answer* as the client gets it."""

    def refuse(self, reason: Reason, detail: str) -> None:
        """Answer that the request goes no further."""

    def abort(self) -> None:
        """End what cannot be ended well: the client sees that its answer is not whole."""

    def count(self) -> None:
        """Count the request now, though it goes on."""

    def finish(self, *, may_go_on: bool) -> None:
        """Note that the whole answer was sent."""

    def tunnel_ended(self) -> None:
        """Note that nothing more goes through."""

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do *work* beside everything else."""


class Counted(Protocol):
    """A request, as what counts it sees it."""

    @property
    def began_at(self) -> float:
        """When its head had come, by `time.perf_counter`."""

    @property
    def facts(self) -> RequestFacts:
        """What was decided by."""

    @property
    def principal(self) -> Principal | Anonymous | None:
        """Who is calling; None when nobody was found to be, or the control plane decides."""

    @property
    def route(self) -> Route | None:
        """The rule."""

    @property
    def grant(self) -> Granted | None:
        """What was taken of a quota."""

    @property
    def sent_bytes(self) -> int:
        """How many bytes of a body the client was sent."""


class Front(Protocol):
    """What all connections of this process share, as one of them sees it."""

    loop: AbstractEventLoop
    gate: Gate
    requests: RequestReader
    carriage: Carriage
    legacy_headers: bool
    has_control_plane: bool
    asserts: bool
    head_seconds: float
    keepalive_seconds: float

    def entered(self, connection: Any) -> None:  # noqa: ANN401 - a connection, which is above this
        """Take *connection* in, or turn it away."""

    def left(self, connection: Any) -> None:  # noqa: ANN401 - as above
        """Forget *connection*."""

    def may_speak_for_others(self, address: int | None) -> bool:
        """Tell whether the peer at *address* is a trusted proxy."""

    def next_id(self) -> bytes:
        """Return a new request id."""

    def facts_of(self, client: Client, request: Request) -> tuple[RequestFacts, Walk]:
        """Return what a decision needs to know of *request*, and who is behind whom."""

    def own_pool(self, path: str | None) -> Pool | None:
        """Return where the control plane is, if *path* is its own."""

    def is_question(self, path: str | None) -> bool:
        """Tell whether another proxy asks something at *path*."""

    def pool_for(self, principal: Principal | Anonymous) -> Pool:
        """Return the upstream for *principal*'s environment."""

    def assertion_for(self, principal: Principal | Anonymous | None) -> bytes:
        """Return a signed word about *principal*, nothing about nobody."""

    def carriage_for(self, route: Route) -> Carriage:
        """Return what holds for carrying requests of *route*."""

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do *work* beside everything else."""

    def record(self, exchange: Counted, outcome: str, status: int) -> None:
        """Count what became of *exchange*."""

    def count_fault(self, client: Client, request_id: bytes, denied: Denied, status: int) -> None:
        """Count what was no request."""
