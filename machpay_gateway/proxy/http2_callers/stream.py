"""One request of HTTP/2 and its response: a `ClientStream` with flow control of its own in both directions."""

import asyncio
from time import monotonic, perf_counter
from typing import Protocol

from h2.errors import ErrorCodes

from machpay_gateway.proxy.bodies import Body, BodyFramingError, StreamBody, check_trailers
from machpay_gateway.proxy.context import ProxyContext
from machpay_gateway.proxy.downstream import NEVER
from machpay_gateway.proxy.forwarding import Forwarder
from machpay_gateway.proxy.framing import FramedRequest
from machpay_gateway.proxy.heads import ResponseHead
from machpay_gateway.proxy.http2.fields import (
    Fields,
    RequestBlock,
    interim_block,
    own_block,
    read_trailer_block,
    response_block,
    trailer_block,
    tunnel_block,
)
from machpay_gateway.proxy.responses import OwnResponse
from machpay_gateway.proxy.upstream_request import Hops
from machpay_gateway.proxy.websocket_frames import GOING_AWAY

_MAX_UNSENT = 64 * 1024  # bytes of a response that wait for the client, before its upstream does
_SUCCESS, _REDIRECTION = 200, 300


class StreamConnection(Protocol):
    """The connection that a stream is part of."""

    context: ProxyContext
    transport: asyncio.Transport
    address: int | None
    certificate: bytes
    hops: Hops
    host: str
    is_trusted: bool
    scheme: bytes

    def send_headers(self, stream_id: int, block: Fields, *, is_last: bool) -> None:
        """Send a header *block*, with which the response ends if it *is_last*."""

    def send_data(self, stream_id: int, data: bytes, *, is_last: bool) -> int:
        """Send what the windows allow of *data*, the end of the response if it *is_last*; return how much that is."""

    def send_end(self, stream_id: int) -> None:
        """End a response."""

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Let the client send *size* bytes more."""

    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        """Reset a stream."""

    def stream_ended(self, stream: "Http2Stream") -> None:
        """Forget *stream*."""


class Http2Stream:
    """A request in *connection*, and its response while the client takes it."""

    __slots__ = (
        "_connection",
        "_ends",
        "_fault",
        "_has_ended",
        "_inbox",
        "_is_tunnel",
        "_length",
        "_trailers",
        "_unacknowledged",
        "_unsent",
        "_unsent_before",
        "_wants_tunnel",
        "address",
        "began_at",
        "body",
        "certificate",
        "due",
        "forwarder",
        "has_sent_end",
        "hops",
        "host",
        "id",
        "is_full",
        "is_http2",
        "is_over",
        "is_trusted",
        "received",
        "scheme",
        "will_close",
    )

    def __init__(self, connection: StreamConnection, stream_id: int, block: RequestBlock, *, is_whole: bool) -> None:
        """Take the request in *block*; *is_whole* says that no content follows."""
        self.id = stream_id
        self.address = connection.address
        self.hops = connection.hops
        self.host = connection.host
        self.is_trusted = connection.is_trusted
        self.scheme = connection.scheme
        self.certificate = connection.certificate
        self.began_at = perf_counter()
        self.forwarder: Forwarder | None = None
        self.body: Body | None = None if is_whole or block.is_tunnel else StreamBody()
        self.received = 0  # bytes of content
        self.is_full = self.will_close = False
        self.is_http2 = True
        self.is_over = False  # nothing more is sent or received
        self.has_sent_end = False
        self.due = NEVER  # for the client to take the end of the response
        self._connection = connection
        self._length = block.length
        self._wants_tunnel = block.is_tunnel
        self._is_tunnel = False
        self._has_ended = is_whole
        self._inbox: list[bytes] = []
        self._fault: str | None = None
        self._unacknowledged = 0  # bytes of the windows, with padding
        self._unsent = b""
        self._unsent_before = 0  # at the last timeout
        self._ends = False  # after what is unsent
        self._trailers = b""

    def begin(self, request: FramedRequest, head: bytes) -> None:
        """Serve *request*, whose head as HTTP/1.1 is *head*."""
        self.forwarder = forwarder = Forwarder(self._connection.context, self, request, self._forwarder_ended)
        forwarder.begin(head)

    # What the client sends.

    def exceeds_length(self, size: int, *, is_last: bool) -> bool:
        """Return whether *size* more bytes of content contradict the Content-Length (RFC 9113 §8.1.1)."""
        if self._length is None:
            return False
        received = self.received + size
        return received > self._length or (is_last and received < self._length)

    def content_received(self, data: bytes, window: int) -> None:
        """Forward content, which takes *window* bytes of the flow-control windows."""
        self.received += len(data)
        self._unacknowledged += window
        forwarder = self.forwarder
        if forwarder is None:
            self._acknowledge()
        elif forwarder.tunnel is not None:
            forwarder.tunnel.client_received(data)
            if not forwarder.tunnel.upstream_is_behind:
                self._acknowledge()
        else:
            self._inbox.append(data)
            if self.body is not None and forwarder.takes_body:
                forwarder.send_body()

    def trailers_received(self, block: Fields) -> None:
        """Take the trailers, with which the request ends."""
        lines = read_trailer_block(block)
        if lines is None:
            self._fault = "malformed trailers"
        elif lines and self.body is not None:
            try:
                check_trailers(lines, self._connection.context.requests.fields)
            except BodyFramingError as exc:
                self._fault = str(exc)
            self.body.trailers = lines

    def ended(self) -> None:
        """Forward that the request has ended."""
        self._has_ended = True
        forwarder = self.forwarder
        if forwarder is None:
            self._finish_if_done()
        elif forwarder.tunnel is not None:
            if not forwarder.tunnel.client_ended():
                forwarder.client_lost()
        elif self.body is not None and forwarder.takes_body:
            forwarder.send_body()

    def lost(self) -> None:
        """Stop: the client has reset the stream, or is gone."""
        self.is_over = True
        self._unsent = b""
        self._acknowledge()
        forwarder, self.forwarder = self.forwarder, None
        if forwarder is not None:
            forwarder.client_lost()

    def cancel(self) -> None:
        """Stop without a response."""
        forwarder = self.forwarder
        if forwarder is not None and forwarder.tunnel is not None:
            forwarder.tunnel.cut(GOING_AWAY)
        elif forwarder is not None:
            self.forwarder = None
            forwarder.cancel()
        self._reset(ErrorCodes.INTERNAL_ERROR)

    # Timeouts.

    def check_timeouts(self, now: float) -> None:
        """Handle what is due at *now*."""
        if self.forwarder is not None:
            self.forwarder.check_timeouts(now)
        elif self.due <= now:
            unsent = len(self._unsent)
            if unsent < self._unsent_before:
                self._unsent_before = unsent
                self._extend()
            else:
                self._reset(ErrorCodes.CANCEL)

    def _extend(self) -> None:
        seconds = self._connection.context.options.idle_seconds
        self.due = monotonic() + seconds if seconds else NEVER

    # What a forwarder needs.

    @property
    def unwritten(self) -> int:
        """How many bytes of the response the client has not taken yet."""
        # Others of the same connection must not count as progress of one that the client does not take.
        return len(self._unsent) or self._connection.transport.get_write_buffer_size()

    @property
    def has_unread(self) -> bool:
        """Whether some of the body has arrived that was not taken."""
        return bool(self._inbox)

    def pause_reading(self) -> None:
        """Apply backpressure: the windows stay as they are."""

    def resume_reading(self) -> None:
        """Let the client send as much as was taken."""
        if not self._inbox:
            self._acknowledge()

    def take_body(self, body: Body) -> bytes:
        """Return what has arrived of the request's *body*. Raises BodyFramingError."""
        if self._fault is not None:
            raise BodyFramingError(self._fault)
        payload = b"".join(self._inbox)
        self._inbox.clear()
        if self._has_ended and isinstance(body, StreamBody):
            body.is_done = True
            self.body = None
            self._acknowledge()
        return payload

    def discard_body(self) -> bool:
        """Drop what has arrived of the body; other requests do not depend on it."""
        self.body = None
        self._inbox.clear()
        self._acknowledge()
        return True

    def send_interim(self, response: ResponseHead) -> None:
        """Send an interim response."""
        if not self.is_over:
            self._connection.send_headers(self.id, interim_block(response), is_last=False)

    def begin_response(  # noqa: PLR0917 - as ClientStream has it
        self,
        response: ResponseHead,
        start: bytes,
        added: bytes,
        payload: bytes,
        minor: bool,  # noqa: FBT001, ARG002
        closes: bool,  # noqa: FBT001, ARG002
        is_open: bool,  # noqa: FBT001
        is_whole: bool,  # noqa: FBT001
    ) -> None:
        """Send the head with the first of the body."""
        if self._wants_tunnel and _SUCCESS <= response.status < _REDIRECTION:
            self._reset(ErrorCodes.INTERNAL_ERROR)  # the client would take it for the start of the WebSocket
            return
        self._send(response_block(response, start, added, is_open=is_open), payload, is_last=is_whole)

    def send_payload(self, payload: bytes, is_last: bool, trailers: bytes) -> None:  # noqa: FBT001
        """Send more of the body."""
        if self.is_over:
            return
        self._unsent = self._unsent + payload if self._unsent else payload
        self._ends = is_last
        self._trailers = trailers
        self.send_unsent()

    def respond(self, response: OwnResponse, *, minor: bool, closes: bool) -> int:  # noqa: ARG002 - of HTTP/1
        """Send a whole response of the gateway's own."""
        self._send(own_block(response), response.body, is_last=True)
        return len(response.body)

    def switch_protocols(self, response: ResponseHead, start: bytes, added: bytes) -> bytes:
        """Accept the WebSocket, and return what the client has sent ahead."""
        self._is_tunnel = True
        self._send(tunnel_block(response, start, added), b"", is_last=False)
        ahead = b"".join(self._inbox)
        self._inbox.clear()
        return ahead

    def abort(self, *, by_reset: bool) -> None:  # noqa: ARG002 - a reset is all there is
        """End an incomplete response by a reset, a tunnel as one that has ended."""
        if self._is_tunnel:
            self.send_end()
        else:
            self._reset(ErrorCodes.INTERNAL_ERROR)

    def linger(self) -> None:
        """End the response."""
        self.send_end()

    def send_bytes(self, data: bytes) -> None:
        """Send bytes of the WebSocket."""
        self.send_payload(data, False, b"")  # noqa: FBT003 - as ClientStream has it

    def send_end(self) -> bool:
        """End the direction to the client."""
        self.send_payload(b"", True, b"")  # noqa: FBT003 - as ClientStream has it
        return not self.is_over

    # Sending.

    def send_unsent(self) -> None:
        """Send what the windows allow, and apply backpressure to the upstream while too much is left."""
        connection = self._connection
        unsent = self._unsent
        if unsent:
            sent = connection.send_data(self.id, unsent, is_last=self._ends and not self._trailers)
            self._unsent = unsent = unsent[sent:] if sent else unsent
            if not unsent and self._ends and not self._trailers:
                self._end_sent()
                return
        if not unsent and self._ends and not self.has_sent_end and not self.is_over:
            if self._trailers:
                connection.send_headers(self.id, trailer_block(self._trailers), is_last=True)
            else:
                connection.send_end(self.id)
            self._end_sent()
        elif not self.is_full and len(unsent) > _MAX_UNSENT:
            self.is_full = True
            if self.forwarder is not None:
                self.forwarder.client_is_full()
        elif self.is_full and not unsent:
            self.is_full = False
            if self.forwarder is not None:
                self.forwarder.client_is_free()

    @property
    def waits_for_window(self) -> bool:
        """Whether some of the response is left to send."""
        return bool(self._unsent)

    def _send(self, block: Fields, payload: bytes, *, is_last: bool) -> None:
        if self.is_over:
            return
        is_whole = is_last and not payload
        self._connection.send_headers(self.id, block, is_last=is_whole)
        if is_whole:
            self._end_sent()
        elif payload:
            self.send_payload(payload, is_last, b"")

    def _end_sent(self) -> None:
        self.has_sent_end = True
        self.is_full = False
        self._finish_if_done()

    def _forwarder_ended(self, _may_go_on: bool) -> None:  # noqa: FBT001 - a callback's only argument
        self.forwarder = None
        if self._is_tunnel and not self.has_sent_end:
            self.send_end()
        self._unsent_before = len(self._unsent)
        self._extend()
        self._finish_if_done()

    def _finish_if_done(self) -> None:
        """Forget the stream once both sides are done with it; a request is not needed after its response."""
        if self.is_over or self.forwarder is not None or not self.has_sent_end:
            return
        if self._has_ended:
            self.is_over = True
            self._acknowledge()
            self._connection.stream_ended(self)
        else:
            self._reset(ErrorCodes.NO_ERROR)  # RFC 9113 §8.1

    def _reset(self, code: ErrorCodes) -> None:
        if not self.is_over:
            self.is_over = True
            self._unsent = b""
            self._acknowledge()
            self._connection.reset(self.id, code)
            self._connection.stream_ended(self)

    def _acknowledge(self) -> None:
        size, self._unacknowledged = self._unacknowledged, 0
        if size:
            self._connection.acknowledge(self.id, size)
