"""The client's side of an exchange: flow control, the request's body as it arrives, and how the connection ends."""

import asyncio
from time import monotonic

from machpay_gateway.proxy.bodies import Body, BodyFramingError
from machpay_gateway.proxy.closing import half_close, reset
from machpay_gateway.proxy.upstream_request import Hops

NEVER = float("inf")  # the deadline of what waits without a limit
LINGER_SECONDS = 2.0
MAX_LINGER_SECONDS = 30.0  # for a client that sends its whole body before it reads the refusal


class ClientStream(asyncio.Protocol):
    """A client's connection as a `Forwarder` and a `Tunnel` use it; `ClientConnection` reads requests from it.

    *body* is what is still to come of the current request, *due* when a wait for the client times out.
    """

    __slots__ = (
        "_is_paused",
        "address",
        "began_at",
        "body",
        "buffer",
        "certificate",
        "due",
        "hops",
        "host",
        "is_full",
        "is_lingering",
        "is_trusted",
        "lingers_until",
        "scheme",
        "transport",
        "will_close",
    )

    transport: asyncio.Transport
    address: int | None
    began_at: float  # by `time.perf_counter`
    hops: Hops
    host: str
    is_trusted: bool  # the peer is a trusted proxy
    scheme: bytes

    def __init__(self) -> None:
        """Begin without a request."""
        self.buffer = b""  # received, but not parsed yet
        self.body: Body | None = None
        self.certificate = b""  # the lines of identity headers about the client's certificate, b"" without one
        self.is_full = False  # the client reads too slowly
        self.is_lingering = self._is_paused = False
        self.will_close = False  # after the current response
        self.due = self.lingers_until = NEVER

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

    def linger(self) -> None:
        """Close after the client has: closing with unread data would destroy the response (RFC 9112 §9.6)."""
        self.will_close = True
        self.body = None
        self.buffer = b""
        if self.is_lingering:
            return
        self.is_lingering = True
        self.lingers_until = monotonic() + MAX_LINGER_SECONDS
        self.due = monotonic() + LINGER_SECONDS
        self.resume_reading()
        if not half_close(self.transport):
            self.transport.close()

    def abort(self, *, by_reset: bool) -> None:
        """Close so that the client sees an incomplete response: *by_reset* where a close would mark its end."""
        self.will_close = self.is_lingering = True
        self.due = monotonic() + LINGER_SECONDS
        if by_reset:
            reset(self.transport)
        else:
            self.transport.close()  # once the client has taken what is in the write buffer
