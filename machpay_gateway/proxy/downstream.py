"""The connection to a client: its bytes, cut into requests that are served one after the other."""

import asyncio
import re
from time import monotonic, perf_counter
from typing import cast

from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.network.address import parse_address
from machpay_gateway.proxy.answers import refusal
from machpay_gateway.proxy.bodies import BadBodyError, Body, Chunked, Counted
from machpay_gateway.proxy.carrying import Carrying
from machpay_gateway.proxy.closing import end_writing, reset
from machpay_gateway.proxy.exchange import Exchange
from machpay_gateway.proxy.framing import HEAD_END, early_fault
from machpay_gateway.proxy.heads import Fault
from machpay_gateway.proxy.ports import NEVER, ClientTunnel, DownstreamClient, Front, Walk

_MOST_AHEAD = 64 * 1024  # bytes that may come before they can go on
_BODY_SECONDS = 1e9  # so that one that waits for a body is taken after all that wait for a request
_LINGER_SECONDS = 2.0
_LONGEST_LINGER_SECONDS = 30.0  # for a client that sends all of its body before it reads why nobody wants it
_EMPTY_LINES = re.compile(rb"\A(?:\r\n)++")


class ClientConnection(DownstreamClient):
    """One connection. *exchange* is the request that is served, *body* what is still to come of it."""

    __slots__ = (
        "_ahead",
        "_front",
        "_is_lingering",
        "_is_paused",
        "_is_reading",
        "_lingers_until",
        "_untaken",
        "address",
        "began_at",
        "body",
        "due",
        "exchange",
        "host",
        "is_full",
        "is_trusted",
        "quiet_since",
        "quiet_until",
        "scheme",
        "transport",
        "tunnel",
        "walk",
        "will_close",
    )

    def __init__(self, front: Front) -> None:
        """Serve requests by *front*."""
        self._front = front
        self._ahead = b""  # what came and is not read yet
        self._is_lingering = self._is_paused = self._is_reading = self.is_full = False
        self._untaken = NEVER  # bytes that a client which is waited for had not taken when last looked at
        self.will_close = False
        self.exchange: Exchange | None = None
        self.tunnel: ClientTunnel | None = None
        self.body: Body | None = None
        self.due = self._lingers_until = NEVER
        self.quiet_until = 0.0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find out who it is, and wait for a request."""
        self.transport = cast("asyncio.Transport", transport)
        front = self._front
        peer = transport.get_extra_info("peername")
        self.host: str = peer[0] if isinstance(peer, tuple) else ""  # a Unix socket has none
        self.address = parse_address(self.host)
        self.is_trusted = front.may_speak_for_others(self.address)
        self.walk: Walk = (self.address,)
        self.scheme = b"http" if transport.get_extra_info("ssl_object") is None else b"https"
        self.began_at = perf_counter()
        self.quiet_since = monotonic()
        self.due = self.quiet_since + front.head_seconds
        front.entered(self)

    def data_received(self, data: bytes) -> None:
        """Read requests, or what follows the head of the one that is served."""
        if self.tunnel is not None:
            self.tunnel.client_sent(data)
        elif self.exchange is None:
            self._read(self._ahead + data if self._ahead else data)
        else:
            self._ahead = self._ahead + data if self._ahead else data
            carrying = self.exchange.carrying
            if self.body is not None and carrying is not None and carrying.takes_body:
                self.send_body()
            elif len(self._ahead) > _MOST_AHEAD:
                self.stop_reading()

    def eof_received(self) -> bool:
        """Close: a client that has said all is gone, unless this is a tunnel."""
        return self.tunnel is not None and self.tunnel.client_said_all()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - gone is gone
        """End what was under way."""
        self.will_close = True
        self._front.left(self)
        exchange, self.exchange = self.exchange, None
        if self.tunnel is not None:
            self.tunnel.client_gone()
        elif exchange is not None:
            exchange.client_gone()

    def pause_writing(self) -> None:
        """Pass the pressure on."""
        self.is_full = True
        if (pressed := self._other_side()) is not None:
            pressed.client_is_full()

    def resume_writing(self) -> None:
        """Pass the relief on."""
        self.is_full = False
        if (pressed := self._other_side()) is not None:
            pressed.client_is_free()
        elif self.exchange is None and not self._is_reading:
            self._take_next()

    def stop_reading(self) -> None:
        """Let the client wait with what it sends."""
        if not self._is_paused and not self.transport.is_closing():
            self._is_paused = True
            self.transport.pause_reading()

    def read_on(self) -> None:
        """Let the client send."""
        if self._is_paused and not self.transport.is_closing():
            self._is_paused = False
            self.transport.resume_reading()

    def send_body(self) -> None:
        """Hand on what has come of the request's body."""
        body, carrying = self.body, None if self.exchange is None else self.exchange.carrying
        if body is None or carrying is None:
            return
        data, self._ahead = self._ahead, b""
        try:
            payload, self._ahead = body.take(data)
        except BadBodyError as exc:
            self.will_close = True
            carrying.client_broke(str(exc))
            return
        if body.is_done:
            self.body = None  # before anything else: the next request may be served by then, and has its own
        carrying.send(payload, is_last=body.is_done, trailers=body.trailers)
        if not body.is_done and not carrying.is_pressed:
            self.read_on()

    def has_body_here(self) -> bool:
        """Pass over what has come of the request's body; tell whether that was all of it."""
        body, self.body = self.body, None
        if body is None:
            return True
        data, self._ahead = self._ahead, b""
        try:
            _, self._ahead = body.take(data)
        except BadBodyError:
            return False
        return body.is_done

    def open_tunnel(self, tunnel: ClientTunnel) -> None:
        """Read no more requests: all that comes now is the tunnel's."""
        self.tunnel = tunnel
        if self.is_full:
            tunnel.client_is_full()
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            tunnel.client_sent(ahead)
        self.read_on()

    def exchange_ended(self, *, may_go_on: bool) -> None:
        """Take the next request, or close."""
        self.exchange = None
        if self.transport.is_closing():
            return
        if not may_go_on or self.will_close:
            self._linger()
            return
        self.quiet_since = now = monotonic()
        self.due = now + self._front.keepalive_seconds
        if not self._is_reading:
            self._take_next()

    def expire(self) -> None:
        """End a wait that took too long: for a request, or for the client to take what it was sent."""
        if not self._is_lingering and self._ahead:
            self._refuse(Fault(Reason.REQUEST_TIMEOUT, "the head did not arrive in time"))
            return
        untaken = self.transport.get_write_buffer_size()
        if self._is_lingering and not 0 < untaken < self._untaken:
            self.due = NEVER
            self.transport.abort()
            return
        self._untaken = float(untaken)
        self.due = monotonic() + _LINGER_SECONDS
        if not self._is_lingering:
            self._is_lingering = True
            self.transport.close()

    @property
    def idle_since(self) -> float:
        """When it began to wait for its client, by the monotonic clock; later for one that is closed last.

        NEVER for one that is at work: its request is decided, carried or answered.
        """
        if self.tunnel is not None or self.transport.get_write_buffer_size():
            return NEVER
        if self.exchange is None:
            return self.quiet_since
        carrying = self.exchange.carrying
        return NEVER if carrying is None else carrying.waiting_since + _BODY_SECONDS

    def give_place(self) -> None:
        """Close at once for somebody else, after an answer if the client has begun to send."""
        if self.exchange is not None:
            self.exchange.give_up("its connection was closed for another client's")
            self.transport.close()
        elif self._ahead:
            self.turn_away()
        else:
            self.transport.abort()

    def turn_away(self) -> None:
        """Answer that there are too many, and close at once: one that lingered would still be one of them."""
        self._refuse(Fault(Reason.UNAVAILABLE, "too many connections"), lingers=False)

    def close(self) -> None:
        """Close what is quiet."""
        self.transport.close()

    def abort(self, *, by_reset: bool) -> None:
        """Close, so that the client can tell that its answer is not whole: *by_reset* where closing would end one."""
        self.will_close = self._is_lingering = True
        self.due = monotonic() + _LINGER_SECONDS
        self.exchange = None
        if by_reset:
            reset(self.transport)
        else:
            self.transport.close()  # once it has got what there is

    def _read(self, data: bytes) -> None:
        """Serve the requests in *data*, as long as each can be answered at once."""
        if self._is_lingering:
            self.due = min(monotonic() + _LINGER_SECONDS, self._lingers_until)
            return
        self._is_reading, front = True, self._front
        while not self._is_lingering:
            if self.is_full:  # its answers would pile up
                self._ahead = data
                self.stop_reading()
                break
            if data[:2] == b"\r\n":  # RFC 9112 §2.2: empty lines before a request are ignored
                data = _EMPTY_LINES.sub(b"", data, count=1)  # all at once: somebody may send nothing else
            end = data.find(HEAD_END) + len(HEAD_END)
            if end < len(HEAD_END):
                self._wait_for_more(data)
                break
            raw, self._ahead = data[:end], data[end:]
            request = front.requests.read(raw)
            if isinstance(request, Fault):
                self._refuse(request)
                break
            head = request.head
            if head.chunked:
                self.body = Chunked(front.requests.fields)
            elif head.length:
                self.body = Counted(head.length)
            exchange = self.exchange = Exchange(front, self, request)
            exchange.begin(raw)
            if not exchange.is_over or not self._ahead:
                break
            data, self._ahead = self._ahead, b""
        self._is_reading = False

    def _take_next(self) -> None:
        """Serve what has come already, and let the client send."""
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            self._read(ahead)
        if not self.is_full:
            self.read_on()

    def _wait_for_more(self, data: bytes) -> None:
        if not self._ahead and data:
            self.due = monotonic() + self._front.head_seconds  # from the first byte on, however slowly the others come
        self._ahead = data
        if (fault := early_fault(data)) is not None:
            self._refuse(fault)

    def _refuse(self, fault: Fault, *, lingers: bool = True) -> None:
        """Answer what is no request, and close."""
        self.will_close = True
        denied = Denied(fault.reason, fault.detail)
        request_id = self._front.next_id()
        answer, status = refusal(denied, request_id, legacy=False, closes=True)
        self._front.count_fault(self, request_id, denied, status)
        self.transport.write(answer)
        if lingers:
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """Close once the client has: closing on bytes that were not read would destroy the answer (RFC 9112 §9.6)."""
        self.will_close = True
        self.body = None
        self._ahead = b""
        self.exchange = None
        if self._is_lingering:
            return
        self._is_lingering = True
        self._lingers_until = monotonic() + _LONGEST_LINGER_SECONDS
        self.due = monotonic() + _LINGER_SECONDS
        self.read_on()
        if not end_writing(self.transport):
            self.transport.close()

    def _other_side(self) -> ClientTunnel | Carrying | None:
        return self.tunnel or (self.exchange.carrying if self.exchange is not None else None)
