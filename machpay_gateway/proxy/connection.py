"""The connection to a client: its bytes are parsed into requests, which are served one after the other."""

import asyncio
import re
from time import monotonic, perf_counter, time
from typing import TYPE_CHECKING, TypeAlias, cast

from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.network.address import parse_address
from machpay_gateway.proxy.bodies import LAST_CHUNK, Body, BodyFramingError, ChunkedBody, FixedLengthBody, chunk
from machpay_gateway.proxy.closing import half_close, reset
from machpay_gateway.proxy.context import ProxyContext
from machpay_gateway.proxy.downstream import NEVER
from machpay_gateway.proxy.forwarding import Forwarder
from machpay_gateway.proxy.framing import HEAD_END, incomplete_head_fault
from machpay_gateway.proxy.heads import Fault, ResponseHead
from machpay_gateway.proxy.http2_callers.connection import PREFACE, Http2Connection
from machpay_gateway.proxy.responses import (
    NO_CONTENT,
    OwnResponse,
    date_line,
    interim_head,
    own_response_bytes,
    refusal,
    switching_head,
)
from machpay_gateway.proxy.upstream_request import Hops
from machpay_gateway.proxy.websocket_frames import GOING_AWAY

if TYPE_CHECKING:
    from collections.abc import Callable

_LINGER_SECONDS = 2.0
_MAX_LINGER_SECONDS = 30.0  # for a client that sends its whole body before it reads the refusal
_MAX_BUFFERED = 64 * 1024  # bytes that a client may send before they can be forwarded
_BODY_SECONDS = 1e9  # makes a connection that waits for a body younger than all that wait for a request
_EMPTY_LINES = re.compile(rb"\A(?:\r\n)++")


CallerConnection: TypeAlias = "ClientConnection | Http2Connection"


class ClientConnection(asyncio.Protocol):
    """One connection of HTTP/1.1: the `ClientStream` of each of its requests.

    *forwarder* serves the current request, *body* is what is still to come of it, and *due* is when a wait for the
    client times out.
    """

    __slots__ = (
        "_context",
        "_is_chunked",
        "_is_lingering",
        "_is_new",
        "_is_parsing",
        "_is_paused",
        "_lingers_until",
        "_on_close",
        "_on_open",
        "_peer",
        "_unwritten",
        "address",
        "began_at",
        "body",
        "buffer",
        "certificate",
        "due",
        "forwarder",
        "hops",
        "host",
        "idle_at",
        "idle_close_at",
        "is_full",
        "is_trusted",
        "scheme",
        "transport",
        "will_close",
    )

    is_http2 = False
    transport: asyncio.Transport
    address: int | None
    began_at: float
    hops: Hops
    host: str
    is_trusted: bool
    scheme: bytes

    def __init__(
        self,
        context: ProxyContext,
        on_open: "Callable[[CallerConnection], None]",
        on_close: "Callable[[CallerConnection], None]",
        peer: str | None = None,
    ) -> None:
        """Serve requests with *context*; call *on_open* and *on_close* when the connection is made and lost.

        *peer* is the address of its peer if the transport does not have it.
        """
        self._peer = peer
        self._context = context
        self._on_open = on_open
        self._on_close = on_close
        self.buffer = b""  # received, but not parsed yet
        self._is_parsing = self._is_paused = self._is_lingering = False
        self._is_chunked = False  # the body of the current response
        self._is_new = True  # no request was served yet
        self._unwritten = NEVER  # bytes that the client had not taken at the last timeout
        self.idle_close_at = 0.0  # during a shutdown, the earliest time to close an idle connection or a WebSocket
        self.forwarder: Forwarder | None = None
        self.body: Body | None = None
        self.certificate = b""
        self.is_full = False
        self.will_close = False
        self.due = self._lingers_until = NEVER

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Identify the peer, and wait for a request."""
        self.transport = cast("asyncio.Transport", transport)
        context = self._context
        self.host = _peer_host(transport) if self._peer is None else self._peer
        self.address = parse_address(self.host)
        self.is_trusted = context.is_trusted_proxy(self.host)
        self.hops = (self.address,)
        tls = transport.get_extra_info("ssl_object")
        self.scheme = b"http" if tls is None else b"https"
        if tls is not None and context.takes_certificates:
            self.certificate = context.certificate_lines(tls)
        self.began_at = perf_counter()
        self.idle_at = monotonic()
        self.due = self.idle_at + context.head_seconds
        self._on_open(self)

    def data_received(self, data: bytes) -> None:
        """Parse requests, or pass on what follows the head of the current one."""
        forwarder = self.forwarder
        if forwarder is None:
            self._parse(self.buffer + data if self.buffer else data)
        elif forwarder.tunnel is not None:
            forwarder.tunnel.client_received(data)
        else:
            self.buffer = self.buffer + data if self.buffer else data
            if self.body is not None and forwarder.takes_body:
                forwarder.send_body()
            elif len(self.buffer) > _MAX_BUFFERED:
                self.pause_reading()

    def eof_received(self) -> bool:
        """Close, unless this is a tunnel, whose other direction may stay open."""
        forwarder = self.forwarder
        return forwarder is not None and forwarder.tunnel is not None and forwarder.tunnel.client_ended()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - either way the client is gone
        """Stop the current request."""
        self.will_close = True
        self._on_close(self)
        forwarder, self.forwarder = self.forwarder, None
        if forwarder is not None:
            forwarder.client_lost()

    def pause_writing(self) -> None:
        """Apply backpressure to the upstream."""
        self.is_full = True
        if self.forwarder is not None:
            self.forwarder.client_is_full()

    def resume_writing(self) -> None:
        """End the backpressure, or parse the pipelined requests that waited for it."""
        self.is_full = False
        if self.forwarder is not None:
            self.forwarder.client_is_free()
        elif not self._is_parsing:
            self._parse_next()

    @property
    def unwritten(self) -> int:
        """How many bytes of the response the client has not taken yet."""
        return self.transport.get_write_buffer_size()

    @property
    def has_unread(self) -> bool:
        """Whether some of the body has arrived that was not taken."""
        return bool(self.buffer)

    def pause_reading(self) -> None:
        """Apply backpressure to the client."""
        if not self._is_paused and not self.transport.is_closing():
            self._is_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """End the backpressure."""
        if self._is_paused and not self.transport.is_closing():
            self._is_paused = False
            self.transport.resume_reading()

    def take_body(self, body: Body) -> bytes:
        """Return what has arrived of the current request's *body*. Raises BodyFramingError."""
        data, self.buffer = self.buffer, b""
        payload, self.buffer = body.take(data)
        if body.is_done:
            self.body = None  # now: the next request, with its own body, may begin before this one has ended
        return payload

    def discard_body(self) -> bool:
        """Drop what has arrived of the request's body; return whether that was all of it."""
        body, self.body = self.body, None
        if body is None:
            return True
        data, self.buffer = self.buffer, b""
        try:
            _, self.buffer = body.take(data)
        except BodyFramingError:
            return False
        return body.is_done

    def send_interim(self, response: ResponseHead) -> None:
        """Send an interim response."""
        self.transport.write(interim_head(response))

    def begin_response(  # noqa: PLR0917 - as ClientStream has it
        self,
        response: ResponseHead,
        start: bytes,
        added: bytes,
        payload: bytes,
        minor: bool,  # noqa: FBT001
        closes: bool,  # noqa: FBT001
        is_open: bool,  # noqa: FBT001
        is_whole: bool,  # noqa: FBT001, ARG002
    ) -> None:
        """Send the head with the first of the body, in one write."""
        self._is_chunked = is_open and minor
        lines = b"\r\n"
        if not response.is_dated:  # RFC 9110 §6.6.1: a recipient that forwards the response adds the time of receipt
            added += date_line(int(time())) + b"\r\n"
        if is_open:
            lines = b"Transfer-Encoding: chunked\r\n\r\n" if minor else b"\r\n"
        elif response.length is not None and response.status != NO_CONTENT:
            # Without a body, it is the length that a GET would have (RFC 9110 §9.3.2) or of the cached copy (§15.4.5).
            lines = b"Content-Length: %d\r\n\r\n" % response.length
        if closes:
            lines = b"Connection: close\r\n" + lines
        elif not minor:
            lines = b"Connection: keep-alive\r\n" + lines
        self.transport.write(b"".join((start, response.via, added, lines, payload)))

    def send_payload(self, payload: bytes, is_last: bool, trailers: bytes) -> None:  # noqa: FBT001
        """Send more of the body."""
        if self._is_chunked:
            payload = chunk(payload) if payload else b""
            if is_last:
                payload += LAST_CHUNK + trailers + b"\r\n"
        if payload:
            self.transport.write(payload)

    def respond(self, response: OwnResponse, *, minor: bool, closes: bool) -> int:
        """Send a whole response of the gateway's own."""
        data = own_response_bytes(response, minor=minor, closes=closes)
        self.transport.write(data)
        return len(data)

    def switch_protocols(self, response: ResponseHead, start: bytes, added: bytes) -> bytes:
        """Send the response, and return what the client has sent ahead of it."""
        self.transport.write(switching_head(response, start, added))
        ahead, self.buffer = self.buffer, b""
        return ahead

    def send_bytes(self, data: bytes) -> None:
        """Send bytes of the protocol that the connection was switched to."""
        self.transport.write(data)

    def send_end(self) -> bool:
        """End the direction to the client; return whether the other one stays open."""
        return half_close(self.transport)

    def linger(self) -> None:
        """Close after the client has: closing with unread data would destroy the response (RFC 9112 §9.6)."""
        self.will_close = True
        self.body = None
        self.buffer = b""
        if self._is_lingering:
            return
        self._is_lingering = True
        self._lingers_until = monotonic() + _MAX_LINGER_SECONDS
        self.due = monotonic() + _LINGER_SECONDS
        self.resume_reading()
        if not half_close(self.transport):
            self.transport.close()

    def abort(self, *, by_reset: bool) -> None:
        """Close so that the client sees an incomplete response: *by_reset* where a close would mark its end."""
        self.will_close = self._is_lingering = True
        self.due = monotonic() + _LINGER_SECONDS
        if by_reset:
            reset(self.transport)
        else:
            self.transport.close()  # once the client has taken what is in the write buffer

    @property
    def in_flight(self) -> int:
        """How many requests are in progress."""
        return self.forwarder is not None

    def check_timeouts(self, now: float) -> None:
        """Handle what is due at *now*."""
        if self.forwarder is not None:
            self.forwarder.check_timeouts(now)
        elif self.due <= now:
            self.expire()

    def expire(self) -> None:
        """End a wait for the client that took too long: for a request, or for it to take a response."""
        if not self._is_lingering and self.buffer:
            self._refuse(Fault(Reason.REQUEST_TIMEOUT, "the head did not arrive in time"))
            return
        unwritten = self.transport.get_write_buffer_size()
        if self._is_lingering and not 0 < unwritten < self._unwritten:
            self.due = NEVER
            self.transport.abort()
            return
        self._unwritten = float(unwritten)
        self.due = monotonic() + _LINGER_SECONDS
        if not self._is_lingering:
            self._is_lingering = True
            self.transport.close()

    @property
    def idle_since(self) -> float:
        """When it began to wait for its client, by the monotonic clock; later for one that is evicted last.

        NEVER while its request is decided, forwarded or answered.
        """
        forwarder = self.forwarder
        if self.transport.get_write_buffer_size():
            return NEVER
        if forwarder is None:
            return self.idle_at
        return NEVER if forwarder.tunnel is not None else forwarder.waiting_since + _BODY_SECONDS

    def evict(self) -> None:
        """Close at once in favor of a new connection, after a response if the client has begun to send a request."""
        if self.forwarder is not None:
            self.forwarder.evict("its connection was closed for another client's")
            self.transport.close()
        elif self.buffer:
            self.turn_away()
        else:
            self.transport.abort()

    def turn_away(self) -> None:
        """Respond that there are too many connections, and close at once: lingering would keep the connection open."""
        self._refuse(Fault(Reason.UNAVAILABLE, "too many connections"), lingers=False)

    def drain(self, idle_close_at: float) -> None:
        """Close after the current request, or at *idle_close_at* if there is none then."""
        self.will_close = True
        self.idle_close_at = idle_close_at

    def close_idle(self, now: float, close_code: int) -> None:
        """Close if it is idle, and no request is in transit any more at *now*; a WebSocket with *close_code*."""
        if now < self.idle_close_at:
            return
        if self.forwarder is None:
            self.transport.close()
        elif self.forwarder.tunnel is not None:
            self.forwarder.tunnel.close(close_code)

    def stop(self) -> None:
        """Cancel the current request and close."""
        forwarder, self.forwarder = self.forwarder, None
        if forwarder is not None and forwarder.tunnel is not None:
            forwarder.tunnel.cut(GOING_AWAY)
            self.transport.close()
            return
        if forwarder is not None:
            forwarder.cancel()
        self.abort(by_reset=True)

    def _parse(self, data: bytes) -> None:
        """Serve the requests in *data*, as long as each response can be sent at once."""
        if self._is_lingering:
            self.due = min(monotonic() + _LINGER_SECONDS, self._lingers_until)
            return
        self._is_parsing, context = True, self._context
        while not self._is_lingering:
            if self.is_full:  # responses to pipelined requests would fill the memory
                self.buffer = data
                self.pause_reading()
                break
            if data[:2] == b"\r\n":  # RFC 9112 §2.2: ignore empty lines before a request
                data = _EMPTY_LINES.sub(b"", data, count=1)  # all at once: an attacker may send nothing else
            end = data.find(HEAD_END) + len(HEAD_END)
            if end < len(HEAD_END):
                self._wait_for_more(data)
                break
            raw, self.buffer = data[:end], data[end:]
            request = context.requests.read(raw)
            if isinstance(request, Fault):
                self._refuse_unless_http2(request, data)
                break
            head = request.head
            if head.chunked:
                self.body = ChunkedBody(context.requests.fields)
            elif head.length:
                self.body = FixedLengthBody(head.length)
            forwarder = self.forwarder = Forwarder(context, self, request, self._request_ended)
            forwarder.begin(raw)
            if not forwarder.is_over or not self.buffer:
                break
            data, self.buffer = self.buffer, b""
        self._is_parsing = False

    def _request_ended(self, may_go_on: bool) -> None:  # noqa: FBT001 - a callback's only argument
        """Serve the next request if the connection *may_go_on*, else close."""
        self.forwarder = None
        self._is_new = False
        if self.transport.is_closing():
            return
        if not may_go_on or self.will_close:
            self.linger()
            return
        self.idle_at = now = monotonic()
        self.due = now + self._context.keepalive_seconds
        if not self._is_parsing:
            self._parse_next()

    def _parse_next(self) -> None:
        """Serve what has arrived already, and let the client send more."""
        if self.buffer:
            data, self.buffer = self.buffer, b""
            self._parse(data)
        if not self.is_full:
            self.resume_reading()

    def _wait_for_more(self, data: bytes) -> None:
        if not self.buffer and data:
            self.due = monotonic() + self._context.head_seconds  # from the first byte on, however slow the others are
        self.buffer = data
        if (fault := incomplete_head_fault(data, self._context.requests.limits)) is not None:
            self._refuse_unless_http2(fault, data)

    def _refuse_unless_http2(self, fault: Fault, data: bytes) -> None:
        """Refuse *data*, which is no request of HTTP/1.1, unless a connection of HTTP/2 begins with it."""
        size = min(len(data), len(PREFACE))
        if not self._context.takes_http2 or not self._is_new or data[:size] != PREFACE[:size]:
            self._refuse(fault)
        elif size < len(PREFACE):
            self.buffer = data
        else:
            self._on_close(self)
            connection = Http2Connection(self._context, self, self.transport, self._on_close)
            self.transport.set_protocol(connection)
            self._on_open(connection)
            connection.data_received(data[size:])

    def _refuse(self, fault: Fault, *, lingers: bool = True) -> None:
        """Respond to what is not a valid request, and close."""
        self.will_close = True
        denied = Denied(fault.reason, fault.detail)
        request_id = self._context.next_request_id()
        response = refusal(denied, request_id, self._context.gateway.brand, legacy=False)
        self._context.record_fault(self.address, self.began_at, request_id, denied, response.status)
        self.respond(response, minor=True, closes=True)
        if lingers:
            self.linger()
        else:
            self.transport.close()


def _peer_host(transport: asyncio.BaseTransport) -> str:
    peer = transport.get_extra_info("peername")
    return peer[0] if isinstance(peer, tuple) else ""  # after a reset there is none
