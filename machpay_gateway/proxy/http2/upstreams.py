"""A connection of HTTP/2 to an upstream server, and the requests in it.

To what uses it, a stream is an `UpstreamConnection` of HTTP/1.1: it takes the bytes of a request and returns heads that
the rules for responses have read. So a request needs not know which version its upstream speaks.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from time import monotonic
from typing import cast

from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

from machpay_gateway.proxy.bodies import Body, ChunkedBody, FixedLengthBody, StreamBody
from machpay_gateway.proxy.framing import HEAD_END
from machpay_gateway.proxy.header_fields import HeaderFields
from machpay_gateway.proxy.heads import ResponseHead
from machpay_gateway.proxy.http2 import bounds
from machpay_gateway.proxy.http2.fields import (
    Fields,
    read_response_block,
    read_trailer_block,
    trailer_block,
    upstream_block,
)
from machpay_gateway.proxy.http2.state import Http2State
from machpay_gateway.proxy.readers import ResponseReader
from machpay_gateway.proxy.upstream import UpstreamConnection

_WINDOW = 256 * 1024  # bytes of a response that are buffered for its client
_CONNECTION_WINDOW = bounds.MAX_STREAMS * _WINDOW  # so that clients that read slowly do not stop others
_MAX_UNSENT = 64 * 1024  # bytes of a request's content that wait for the upstream, before the client does
_MAX_REPLAY = 64 * 1024  # bytes of content that are kept in case the stream is refused
_MAX_ATTEMPTS = 3
_SILENT_SECONDS = 5.0  # after which a connection whose stream was given up gets no more
_LAST_ID = 2**31 - 1
_HEADER, _GOAWAY = 9, 7
_NO_RULES = HeaderFields({}, passes_identity=True)  # the trailers of a request were checked as they came
_WITHOUT_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})

Retry = Callable[["UpstreamStream"], None]


class UpstreamStream(UpstreamConnection):
    """A request in *connection*; *retry* sends it again if it was refused."""

    __slots__ = (
        "_block",
        "_content",
        "_ends",
        "_has_ended",
        "_has_sent_end",
        "_heads",
        "_id",
        "_is_done",
        "_is_paused",
        "_replay",
        "_retry",
        "_trailers",
        "_unacknowledged",
        "_unsent",
        "attempts",
        "connection",
    )

    def __init__(self, connection: "Http2Upstream", responses: ResponseReader, retry: Retry) -> None:
        super().__init__(responses)
        self.transport = _StreamTransport(self)
        self.attempts = 0
        self._retry = retry
        self._block: Fields | None = None
        self._content: Body | None = None  # of the request, as HTTP/1.1 frames it
        self._replay: bytes | None = b""
        self._ends = False  # the request, after what is unsent
        self._trailers = b""
        self._heads: deque[ResponseHead | str] = deque()
        self._is_done = False
        self.attach(connection)

    def attach(self, connection: "Http2Upstream") -> None:
        """Use *connection*, from the beginning of the request on."""
        self.connection = connection
        self.address = connection.address
        self.is_reused = connection.has_served
        self.attempts += 1
        self._id = 0
        self._has_ended = self._has_sent_end = self._is_paused = False
        self._unacknowledged = 0
        self._unsent = self._replay or b""
        if self._block is not None:
            self._ends = self._content is None or self._content.is_done
            self._begin(self._block)

    # The request.

    def send(self, data: bytes) -> None:
        """Send *data*: the head of an HTTP/1.1 request, or what follows it."""
        if self._is_done:
            return
        block = None
        if self._block is None:
            head, _, data = data.partition(HEAD_END)
            block, length, is_chunked = upstream_block(head, self.connection.scheme)
            self._block = block
            self._content = ChunkedBody(_NO_RULES) if is_chunked else FixedLengthBody(length) if length else None
        content = self._content
        payload = b"" if content is None else content.take(data)[0]
        self._ends = content is None or content.is_done
        self._trailers = b"" if content is None else content.trailers
        if self._replay is not None:
            self._replay = self._replay + payload if len(self._replay) + len(payload) <= _MAX_REPLAY else None
        self._unsent = self._unsent + payload if self._unsent else payload
        if block is not None:
            self._begin(block)
        elif self._id:
            self.send_unsent()

    def _begin(self, block: Fields) -> None:
        is_whole = self._ends and not self._unsent and not self._trailers
        self._id = self.connection.begin(self, block, is_whole=is_whole)
        if is_whole:
            self._has_sent_end = True
        else:
            self.send_unsent()

    def send_unsent(self) -> None:
        """Send what the windows allow, and apply backpressure to the client while too much is left."""
        connection = self.connection
        if self._unsent:
            sent = connection.send_data(self._id, self._unsent, is_last=self._ends and not self._trailers)
            self._unsent = self._unsent[sent:]
            self._has_sent_end = not self._unsent and self._ends and not self._trailers
        if not self._unsent and self._ends and not self._has_sent_end and self._id:
            self._has_sent_end = True
            connection.send_end(self._id, trailer_block(self._trailers))
        if not self.is_full and len(self._unsent) > _MAX_UNSENT:
            self.pause_writing()
        elif self.is_full and not self._unsent:
            self.resume_writing()

    @property
    def unsent(self) -> int:
        """How many bytes of the request the upstream has not taken yet."""
        return len(self._unsent)

    # The response.

    def head_received(self, block: Fields, *, is_last: bool) -> None:
        """Take the head of a response, with which that ends if it *is_last*."""
        self._replay = None
        head = read_response_block(block)
        self._has_ended |= is_last
        self._heads.append("a malformed header block" if head is None else self._responses.read(head))
        if self.handler is not None:
            self.handler.upstream_received(b"")

    def content_received(self, data: bytes, window: int, *, is_last: bool) -> None:
        """Pass on content, which takes *window* bytes of the flow-control windows."""
        self._unacknowledged += window
        if is_last:
            self._end()
        if self.handler is not None and (data or is_last) and self.body is not None:
            self.handler.upstream_received(data)
        if not self._is_paused:
            self.acknowledge()
        if is_last:
            self._check_end()

    def trailers_received(self, block: Fields) -> None:
        """Take the trailers, with which the response ends."""
        lines = read_trailer_block(block)
        if lines is not None and self.body is not None:
            self.body.trailers = lines
        self.ended()

    def ended(self) -> None:
        """Pass on that the response has ended."""
        if not self._has_ended:
            self.content_received(b"", 0, is_last=True)

    def _end(self) -> None:
        self._has_ended = True
        if isinstance(self.body, StreamBody):
            self.body.is_done = True

    def _check_end(self) -> None:
        """Fail if the response has less content than its head says."""
        if self.handler is not None and self.body is not None and not self.body.is_done:
            self.lost()

    def refused(self) -> None:
        """Send the request again if the upstream has not begun with it and all of it is there, else fail."""
        self.connection.forget(self._id)
        self._id = 0
        if self._replay is None or self.attempts >= _MAX_ATTEMPTS or self.handler is None:
            self.lost()
        else:
            self._retry(self)

    def lost(self) -> None:
        """Fail: no more of the response will come."""
        self._is_done = self.is_closing = True
        handler, self.handler = self.handler, None
        self.connection.forget(self._id)
        if handler is not None:
            handler.upstream_lost(None)

    def read_head(self, data: bytes) -> ResponseHead | str | None:  # noqa: ARG002 - it is parsed already
        """Return the next head, or what is wrong with it, or None."""
        return self._heads.popleft() if self._heads else None

    def take_buffer(self) -> bytes:
        """Return b"": content comes by itself."""
        return b""

    def begin_body(self, head: ResponseHead, data: bytes, *, is_head: bool) -> bytes:  # noqa: ARG002 - as above
        """Set `body` to what is still to come, None if nothing is."""
        if self._has_ended or is_head or head.status in _WITHOUT_BODY or head.length == 0:
            self.body = None
            if self._has_ended and head.length and not is_head and head.status not in _WITHOUT_BODY:
                self.body = FixedLengthBody(head.length)  # which will not come
                asyncio.get_running_loop().call_soon(self._check_end)
        elif head.length is not None:
            self.body = FixedLengthBody(head.length)
        else:
            self.body = StreamBody()
        return b""

    def pause(self) -> None:
        """Apply backpressure to the upstream."""
        self._is_paused = True

    def resume(self) -> None:
        """End the backpressure."""
        self._is_paused = False
        self.acknowledge()

    def acknowledge(self) -> None:
        """Let the upstream send as much as was taken."""
        size, self._unacknowledged = self._unacknowledged, 0
        if size:
            self.connection.acknowledge(self._id, size)

    def abort(self) -> None:
        """End the request, if it has not ended yet, without notifying the handler."""
        self.handler = None
        self.is_closing = True
        if self._is_done:
            return
        self._is_done = True
        self.acknowledge()
        if self._id and not (self._has_ended and self._has_sent_end):
            self.connection.reset(self._id)
        self.connection.forget(self._id)


class _StreamTransport(asyncio.Transport):
    """What a handler needs of the transport of a connection, for *stream*."""

    def __init__(self, stream: UpstreamStream) -> None:
        super().__init__()
        self._stream = stream

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._stream.send(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self._stream.unsent

    def pause_reading(self) -> None:
        self._stream.pause()

    def resume_reading(self) -> None:
        self._stream.resume()

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self._stream.is_closing

    def close(self) -> None:
        self._stream.abort()

    def abort(self) -> None:
        self._stream.abort()


class Http2Upstream(UpstreamConnection):
    """One connection and its streams. *ready* is done once the server has sent its settings."""

    def __init__(self, responses: ResponseReader, scheme: bytes, retry: Retry) -> None:
        """Parse the heads of responses with *responses*; *scheme* is that of requests. *retry* sends one again."""
        super().__init__(responses)
        self.scheme = scheme
        self.has_served = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.received_at = monotonic()
        self.is_draining = False
        self._retry = retry
        self._streams: dict[int, UpstreamStream] = {}
        self._reserved = 0  # streams that have not begun
        self._partial = b""
        self._is_receiving = self._is_flushing = False
        self._h2 = Http2State(client_side=True)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the preface and the settings."""
        self.transport = cast("asyncio.Transport", transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self._fail("the server does not offer HTTP/2 (ALPN)")
            return
        settings = {
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW,
            SettingCodes.MAX_HEADER_LIST_SIZE: 4 * bounds.MAX_BLOCK,
        }
        self._h2.local_settings = Settings(client=True, initial_values=settings)
        self._h2.decoder.max_header_list_size = 4 * bounds.MAX_BLOCK
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_CONNECTION_WINDOW - bounds.STREAM_WINDOW)
        self._flush()

    @property
    def has_room(self) -> bool:
        """Whether it takes one more stream."""
        most = min(self._h2.remote_settings.max_concurrent_streams, bounds.MAX_STREAMS)
        return (
            not self.is_draining
            and not self.is_closing
            and len(self._streams) < most
            and self._h2.highest_outbound_stream_id < _LAST_ID - 2
        )

    @property
    def is_idle(self) -> bool:
        """Whether it has no streams."""
        return not self._streams

    def open(self) -> UpstreamStream:
        """Return a stream for a request."""
        return UpstreamStream(self, self._responses, self._retry)

    # What comes from the server.

    def data_received(self, data: bytes) -> None:
        """Handle the frames in *data*."""
        self.received_at = monotonic()
        if self._partial:
            data = self._partial + data
        self._is_receiving = True
        at, size = 0, len(data)
        while size - at >= _HEADER and not self.is_closing:
            end = at + _HEADER + int.from_bytes(data[at : at + 3])
            if end - at - _HEADER > bounds.MAX_FRAME:
                self._fail("a frame that is too large, or no HTTP/2")
                break
            if end > size:
                break
            self._frame_received(data[at:end])
            at = end
        self._is_receiving = False
        self._partial = data[at:]
        self._flush()

    def eof_received(self) -> bool:
        """Close."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail all requests."""
        self._fail(f"the connection was lost ({exc or 'closed'})")

    def pause_writing(self) -> None:
        """Keep content until the server reads."""
        self.is_full = True

    def resume_writing(self) -> None:
        """Send what was kept."""
        self.is_full = False
        self._send_unsent()

    def _frame_received(self, frame: bytes) -> None:
        if frame[3] == _GOAWAY:
            # Not for h2, which would send nothing more for the requests that the server still serves.
            self._goaway_received(int.from_bytes(frame[_HEADER : _HEADER + 4]) & _LAST_ID)
            return
        try:
            events = self._h2.receive_data(frame)
        except H2Error as exc:
            self._flush()
            self._fail(f"malformed HTTP/2: {exc}")
            return
        for event in events:
            self._event_received(event)

    def _goaway_received(self, last_id: int) -> None:
        self.is_draining = True
        for stream_id, stream in list(self._streams.items()):
            if stream_id > last_id:
                stream.refused()
        if not self._streams:
            self.close()

    def _event_received(self, event: Event) -> None:
        if isinstance(event, RemoteSettingsChanged):
            self._h2.bound_compression()
            if not self.ready.done():
                self.ready.set_result(None)
            self._send_unsent()
        elif isinstance(event, WindowUpdated):
            self._send_unsent()
        else:
            self._stream_event_received(event)

    def _stream_event_received(self, event: Event) -> None:
        stream = self._streams.get(getattr(event, "stream_id", None) or 0)
        if isinstance(event, DataReceived):
            size = event.flow_controlled_length or 0
            if stream is None:
                self.acknowledge(event.stream_id or 0, size)
            else:
                stream.content_received(bytes(event.data or b""), size, is_last=event.stream_ended is not None)
        elif stream is None:
            return
        elif isinstance(event, ResponseReceived | InformationalResponseReceived):
            is_last = isinstance(event, ResponseReceived) and event.stream_ended is not None
            stream.head_received(list(event.headers or ()), is_last=is_last)
        elif isinstance(event, TrailersReceived):
            stream.trailers_received(list(event.headers or ()))
        elif isinstance(event, StreamEnded):
            stream.ended()
        elif isinstance(event, StreamReset):
            if event.error_code == ErrorCodes.REFUSED_STREAM:
                stream.refused()
            else:
                stream.lost()

    # What streams send.

    def begin(self, stream: UpstreamStream, block: Fields, *, is_whole: bool) -> int:
        """Begin *stream* with a header *block*, and return its id. *is_whole* says that no content follows."""
        stream_id = self._h2.get_next_available_stream_id()
        self._streams[stream_id] = stream
        self.has_served = True
        self._h2.send_headers(stream_id, block, end_stream=is_whole)
        self._flush_soon()
        return stream_id

    def send_data(self, stream_id: int, data: bytes, *, is_last: bool) -> int:
        """Send what the windows allow of *data*, the end of the request if it *is_last*; return how much that is."""
        if self.is_full or not stream_id:
            return 0
        sent = self._h2.send_fitting(stream_id, data, is_last=is_last)
        if sent:
            self._flush_soon()
        return sent

    def send_end(self, stream_id: int, trailers: Fields) -> None:
        """End a request, with *trailers* if there are any."""
        if trailers:
            self._h2.send_headers(stream_id, trailers, end_stream=True)
        else:
            self._h2.end_stream(stream_id)
        self._flush_soon()

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Let the server send *size* bytes more."""
        if stream_id and not self.is_closing:
            self._h2.acknowledge_received_data(size, stream_id)
            self._flush_soon()

    def reset(self, stream_id: int) -> None:
        """Reset a stream whose client is gone, or has waited for too long."""
        if not self.is_closing:
            self._h2.reset_stream(stream_id, ErrorCodes.CANCEL)
            self._flush_soon()
            if monotonic() - self.received_at > _SILENT_SECONDS:
                self.is_draining = True  # nobody may be there any more

    def forget(self, stream_id: int) -> None:
        """Forget a stream; close after the last one if no more will come."""
        if self._streams.pop(stream_id, None) is not None and not self._streams:
            self.idle_since = monotonic()
            if self.is_draining:
                self.close()

    def drain(self) -> None:
        """Take no more streams, and close after the last."""
        self.is_draining = True
        if not self._streams:
            self.close()

    def close(self) -> None:
        """Close. The streams fail."""
        if not self.is_closing:
            self._h2.close_connection()
            self._flush()
            self._fail("it was closed")

    def _send_unsent(self) -> None:
        for stream in list(self._streams.values()):
            if stream.unsent:
                stream.send_unsent()

    def _flush_soon(self) -> None:
        if not self._is_receiving and not self._is_flushing:
            self._is_flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        if (data := self._h2.data_to_send()) and not self.transport.is_closing():
            self.transport.write(data)

    def _fail(self, problem: str) -> None:
        self.is_closing = self.is_draining = True
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(problem))
            self.ready.exception()  # nobody may wait for it
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.lost()
        self.transport.close()
