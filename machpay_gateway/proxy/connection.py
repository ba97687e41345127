"""The connection to a client: its bytes are parsed into requests, which are served one after the other."""

import asyncio
import re
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, cast

from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.network.address import parse_address
from machpay_gateway.proxy.bodies import ChunkedBody, FixedLengthBody
from machpay_gateway.proxy.context import ProxyContext
from machpay_gateway.proxy.downstream import LINGER_SECONDS, NEVER, ClientStream
from machpay_gateway.proxy.forwarding import Forwarder
from machpay_gateway.proxy.framing import HEAD_END, incomplete_head_fault
from machpay_gateway.proxy.heads import Fault
from machpay_gateway.proxy.responses import refusal
from machpay_gateway.proxy.websocket_frames import GOING_AWAY

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_BUFFERED = 64 * 1024  # bytes that a client may send before they can be forwarded
_BODY_SECONDS = 1e9  # makes a connection that waits for a body younger than all that wait for a request
_EMPTY_LINES = re.compile(rb"\A(?:\r\n)++")


class ClientConnection(ClientStream):
    """One connection. *forwarder* serves the current request."""

    __slots__ = (
        "_context",
        "_is_parsing",
        "_on_close",
        "_on_open",
        "_peer",
        "_unwritten",
        "forwarder",
        "idle_at",
        "idle_close_at",
    )

    def __init__(
        self,
        context: ProxyContext,
        on_open: "Callable[[ClientConnection], None]",
        on_close: "Callable[[ClientConnection], None]",
        peer: str | None = None,
    ) -> None:
        """Serve requests with *context*; call *on_open* and *on_close* when the connection is made and lost.

        *peer* is the address of its peer if the transport does not have it.
        """
        super().__init__()
        self._peer = peer
        self._context = context
        self._on_open = on_open
        self._on_close = on_close
        self._is_parsing = False
        self._unwritten = NEVER  # bytes that the client had not taken at the last timeout
        self.forwarder: Forwarder | None = None
        self.idle_close_at = 0.0  # during a shutdown, the earliest time to close an idle connection or a WebSocket

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

    def expire(self) -> None:
        """End a wait for the client that took too long: for a request, or for it to take a response."""
        if not self.is_lingering and self.buffer:
            self._refuse(Fault(Reason.REQUEST_TIMEOUT, "the head did not arrive in time"))
            return
        unwritten = self.transport.get_write_buffer_size()
        if self.is_lingering and not 0 < unwritten < self._unwritten:
            self.due = NEVER
            self.transport.abort()
            return
        self._unwritten = float(unwritten)
        self.due = monotonic() + LINGER_SECONDS
        if not self.is_lingering:
            self.is_lingering = True
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

    def close(self) -> None:
        """Close an idle connection."""
        self.transport.close()

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
        if self.is_lingering:
            self.due = min(monotonic() + LINGER_SECONDS, self.lingers_until)
            return
        self._is_parsing, context = True, self._context
        while not self.is_lingering:
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
                self._refuse(request)
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
            self._refuse(fault)

    def _refuse(self, fault: Fault, *, lingers: bool = True) -> None:
        """Respond to what is not a valid request, and close."""
        self.will_close = True
        denied = Denied(fault.reason, fault.detail)
        request_id = self._context.next_request_id()
        response, status = refusal(denied, request_id, self._context.gateway.brand, legacy=False, closes=True)
        self._context.record_fault(self, request_id, denied, status)
        self.transport.write(response)
        if lingers:
            self.linger()
        else:
            self.transport.close()


def _peer_host(transport: asyncio.BaseTransport) -> str:
    peer = transport.get_extra_info("peername")
    return peer[0] if isinstance(peer, tuple) else ""  # after a reset there is none
