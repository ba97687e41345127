"""The connection to an upstream server, and the framing of its responses."""

import asyncio
from abc import ABC, abstractmethod
from typing import cast

from machpay_gateway.proxy.bodies import Body, ChunkedBody, CloseDelimitedBody, FixedLengthBody
from machpay_gateway.proxy.framing import HEAD_END, HeadLimits
from machpay_gateway.proxy.heads import ResponseHead
from machpay_gateway.proxy.readers import ResponseReader

_FIRST_BYTES = b"HTTP/1."
_NO_CONTENT = 204
_WITHOUT_BODY = frozenset({_NO_CONTENT, 304})


class UpstreamHandler(ABC):
    """What uses an upstream connection: a `Forwarder`, and after an upgrade a `Tunnel`.

    A base class and no protocol, because compiled code calls its methods without a lookup.
    """

    __slots__ = ()

    @abstractmethod
    def upstream_received(self, data: bytes) -> None:
        """Handle bytes from the upstream."""

    @abstractmethod
    def upstream_ended(self) -> bool:
        """Handle the end of the upstream's direction; return whether the connection stays half-open."""

    @abstractmethod
    def upstream_lost(self, exc: Exception | None) -> None:
        """Handle the end of the connection, by *exc* if something went wrong."""

    @abstractmethod
    def upstream_is_full(self) -> None:
        """Apply backpressure to the client."""

    @abstractmethod
    def upstream_is_free(self) -> None:
        """End the backpressure."""


class UpstreamConnection(asyncio.Protocol):
    """One connection, used by its *handler* or idle. *body* is the rest of the response that is being read.

    *address* is the server's. From *expires_at* on, monotonic, it gets no more requests.
    """

    __slots__ = (
        "_buffer",
        "_responses",
        "address",
        "body",
        "expires_at",
        "handler",
        "idle_since",
        "is_closing",
        "is_full",
        "is_reusable",
        "is_reused",
        "transport",
    )

    def __init__(self, responses: ResponseReader) -> None:
        """Parse the heads of responses with *responses*."""
        self._responses = responses
        self._buffer = b""
        self.handler: UpstreamHandler | None = None
        self.body: Body | None = None
        self.address = ""
        self.idle_since = 0.0
        self.expires_at = float("inf")
        self.is_closing = self.is_full = self.is_reused = False
        self.is_reusable = True
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the *transport*."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Pass bytes to the handler."""
        if self.handler is not None:
            self.handler.upstream_received(data)
        else:
            self.abort()  # a response without a request: the next request would get it

    def eof_received(self) -> bool:
        """Close, unless this is a tunnel, whose other direction may stay open."""
        self.is_closing = True  # now, not only in `connection_lost`
        return self.handler is not None and self.handler.upstream_ended()

    def connection_lost(self, exc: Exception | None) -> None:
        """Notify the handler."""
        self.is_closing = True
        if self.handler is not None:
            self.handler.upstream_lost(exc)

    def pause_writing(self) -> None:
        """Apply backpressure."""
        self.is_full = True
        if self.handler is not None:
            self.handler.upstream_is_full()

    def resume_writing(self) -> None:
        """End the backpressure."""
        self.is_full = False
        if self.handler is not None:
            self.handler.upstream_is_free()

    def abort(self) -> None:
        """Close at once, without notifying the handler."""
        self.handler = None
        self.is_closing = True
        self.transport.abort()

    def read_head(self, data: bytes) -> ResponseHead | str | None:
        """Return the next head, what is wrong with it, or None while it is incomplete. *data* is what arrived."""
        if self._buffer:
            data = self._buffer + data
        end = data.find(HEAD_END) + len(HEAD_END)
        if end < len(HEAD_END):
            self._buffer = data
            return _incomplete_head_error(data, self._responses.limits)
        self._buffer = data[end:]
        return self._responses.read(data[:end])

    def take_buffer(self) -> bytes:
        """Return what arrived after the last head, and clear it."""
        data, self._buffer = self._buffer, b""
        return data

    def begin_body(self, head: ResponseHead, data: bytes, *, is_head: bool) -> bytes:
        """Return the part of *data* that belongs to the body that *head* declares (RFC 9112 §6.3).

        `body` is then what is still to come: None if that was all. A body without a length is not decoded yet.
        *is_head* says that the request was a HEAD.
        """
        if head.closes:
            self.is_reusable = False
        length = head.length
        if head.status in _WITHOUT_BODY or is_head:
            if length and head.status == _NO_CONTENT:
                self.is_reusable = False  # RFC 9110 §8.6 forbids the length; a body may follow nevertheless
            length = 0
        if length is None:
            self.body = ChunkedBody(self._responses.fields) if head.chunked else CloseDelimitedBody()
            self.is_reusable &= head.chunked
            return data
        if len(data) < length:
            self.body = FixedLengthBody(length - len(data))
            return data
        if len(data) > length:
            self.is_reusable = False  # the next request would get what follows the response
            return data[:length]
        return data


def _incomplete_head_error(data: bytes, limits: HeadLimits) -> str | None:
    if (fault := limits.fault(data, data.count(b"\n") - 1)) is not None:
        return f"a head of {fault.detail}"
    if not data.startswith(_FIRST_BYTES[: len(data)]):
        return "not a response of HTTP/1"  # a protocol where the server speaks first, as SSH, would wait for the client
    if data.count(b"\n") != data.count(b"\r\n"):
        return "a line that does not end in CR LF"
    return None
