"""A caller's connection of HTTP/2: its frames become requests, each of which is served like one of HTTP/1.1.

h2 has the state of the protocol. Frames go to it one by one, since one that it refuses must not take along the events
of those before it, and since some are counted, and some ignored, before they cost more.
"""

import asyncio
from math import ceil
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.proxy.closing import half_close
from machpay_gateway.proxy.context import ProxyContext
from machpay_gateway.proxy.downstream import NEVER, ClientStream
from machpay_gateway.proxy.heads import Fault
from machpay_gateway.proxy.http2 import bounds
from machpay_gateway.proxy.http2.bounds import Budget
from machpay_gateway.proxy.http2.fields import Fields, read_request_block
from machpay_gateway.proxy.http2.state import Http2State
from machpay_gateway.proxy.http2_callers.stream import Http2Stream
from machpay_gateway.proxy.responses import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from machpay_gateway.proxy.upstream_request import Hops

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADER = 9  # bytes of a frame before its payload
_DATA, _HEADERS, _PRIORITY, _RST_STREAM, _GOAWAY, _CONTINUATION = 0, 1, 2, 3, 7, 9  # RFC 9113 §6
_END_STREAM, _END_HEADERS, _PADDED = 0x1, 0x4, 0x8
_PRIORITY_SIZE = 5
# RFC 9113 §5.3.2: priorities are deprecated. After a GOAWAY h2 would send nothing more, although the requests before it
# want their responses.
_IGNORED = frozenset({_PRIORITY, _GOAWAY})
_LAST_ID = 2**31 - 1
_LINGER_SECONDS = 2.0
_BODY_SECONDS = 1e9  # as for HTTP/1.1: who waits for a body is evicted last


class Http2Connection(asyncio.Protocol):
    """One connection, which has taken over the transport of *client*, and its streams."""

    def __init__(
        self,
        context: ProxyContext,
        client: ClientStream,
        transport: asyncio.Transport,
        on_close: "Callable[[Http2Connection], None]",
    ) -> None:
        """Serve requests with *context* on the *transport* of *client*; call *on_close* when it is lost."""
        self.context = context
        self.transport = transport
        self.address = client.address
        self.hops: Hops = client.hops
        self.host = client.host
        self.is_trusted = client.is_trusted
        self.scheme = client.scheme
        self.certificate = client.certificate
        self._on_close = on_close
        self._streams: dict[int, Http2Stream] = {}
        self._partial = b""  # of a frame
        self._block_size = self._block_frames = 0  # of the header block that is being received
        self._resets = Budget(bounds.RESETS)
        self._control_frames = Budget(bounds.CONTROL_FRAMES)
        self._is_full = self._is_receiving = self._is_flushing = False
        self._is_draining = self._is_lingering = False
        self._last_id = _LAST_ID  # of the streams that are served
        self._highest_id = 0
        self._idle_close_at = NEVER
        self.idle_at = monotonic()
        self._due = self.idle_at + context.keepalive_seconds
        self._max_block = max(bounds.MAX_BLOCK, 2 * context.requests.limits.max_bytes)
        self._h2 = _begin(self._max_block)
        self._flush()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Do nothing: the transport is here already."""

    def data_received(self, data: bytes) -> None:
        """Handle the frames in *data*."""
        if self._is_lingering:
            return
        if self._partial:
            data = self._partial + data
        self._is_receiving = True
        at, size = 0, len(data)
        while size - at >= _HEADER and not self._is_lingering:
            length = int.from_bytes(data[at : at + 3])
            end = at + _HEADER + length
            if length > bounds.MAX_FRAME:
                self._fail(ErrorCodes.FRAME_SIZE_ERROR)
                break
            if end > size:
                break
            stream_id = int.from_bytes(data[at + 5 : at + _HEADER]) & _LAST_ID
            self._frame_received(data[at + 3], data[at + 4], stream_id, data[at:end])
            at = end
        self._is_receiving = False
        if at < size and (at or not self._partial):
            self._due = monotonic() + self.context.head_seconds  # for the rest of this frame, if no stream is open
        elif at == size and self._partial:
            self._due = monotonic() + self.context.keepalive_seconds
        self._partial = data[at:]
        self._flush()  # nothing if a frame has closed the connection

    def eof_received(self) -> bool:
        """Close."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - either way the client is gone
        """Stop all requests."""
        self._is_lingering = True
        self._on_close(self)
        self._lose_streams()

    def pause_writing(self) -> None:
        """Apply backpressure: to upstreams as their responses arrive, and to the client, whose frames are answered."""
        self._is_full = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Send what has waited."""
        self._is_full = False
        self.transport.resume_reading()
        self._send_unsent()

    # Frames from the client.

    def _frame_received(self, kind: int, flags: int, stream_id: int, frame: bytes) -> None:
        """Count a frame, and let h2 handle it unless it is ignored."""
        size = len(frame) - _HEADER
        is_in_block = self._block_frames > 0
        if kind in {_HEADERS, _CONTINUATION}:
            self._count_block(kind, flags, size)
        if self._is_flooded(kind, flags, stream_id, size):
            self._fail(ErrorCodes.ENHANCE_YOUR_CALM)
            return
        if not is_in_block and (kind in _IGNORED or kind > _CONTINUATION):
            self._is_draining |= kind == _GOAWAY
            if kind != _PRIORITY or (stream_id and size == _PRIORITY_SIZE):
                return
        if kind in {_DATA, _HEADERS} and (stream := self._streams.get(stream_id)) is not None:
            content = 0 if kind == _HEADERS else size - (frame[_HEADER] + 1 if flags & _PADDED and size else 0)
            if stream.exceeds_length(content, is_last=bool(flags & _END_STREAM)):
                self._stream_failed(stream_id, stream)
        try:
            events = self._h2.receive_data(frame)
        except H2Error:
            self._close_with_goaway()
            return
        for event in events:
            self._event_received(event)

    def _count_block(self, kind: int, flags: int, size: int) -> None:
        """Count the frames and bytes of the header block that is being received."""
        if kind == _HEADERS and not self._block_frames:
            self._block_size = 0
            if not flags & _END_HEADERS:
                self._due = monotonic() + self.context.head_seconds
        self._block_frames += 1
        self._block_size += size
        if flags & _END_HEADERS and self._block_frames <= bounds.MAX_CONTINUATIONS:
            self._block_frames = 0

    def _is_flooded(self, kind: int, flags: int, stream_id: int, size: int) -> bool:
        """Return whether a frame exceeds a bound."""
        if self._block_frames > bounds.MAX_CONTINUATIONS or self._block_size > self._max_block:
            return True
        if kind == _RST_STREAM:
            return not (self._resets if stream_id in self._streams else self._control_frames).spend()
        is_request = kind in {_HEADERS, _CONTINUATION}
        is_content = kind == _DATA and (size > 0 or bool(flags & _END_STREAM))
        return not is_request and not is_content and not self._control_frames.spend()

    def _event_received(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._request_received(event)
        elif isinstance(event, WindowUpdated):
            if event.stream_id:
                self._window_updated(event.stream_id)
            else:
                self._send_unsent()
        elif isinstance(event, RemoteSettingsChanged):
            self._h2.bound_compression()
            self._send_unsent()
        elif isinstance(event, DataReceived | StreamEnded | StreamReset | TrailersReceived):
            self._stream_event_received(event)
        elif isinstance(event, ConnectionTerminated):
            self._is_draining = True

    def _stream_event_received(self, event: DataReceived | StreamEnded | StreamReset | TrailersReceived) -> None:
        stream = self._streams.get(event.stream_id or 0)
        if stream is None:
            if isinstance(event, DataReceived):  # of a stream that was reset
                self.acknowledge(event.stream_id or 0, event.flow_controlled_length or 0)
        elif isinstance(event, DataReceived):
            stream.content_received(bytes(event.data or b""), event.flow_controlled_length or 0)
        elif isinstance(event, TrailersReceived):
            stream.trailers_received(list(event.headers or ()))
        elif isinstance(event, StreamEnded):
            stream.ended()
        else:
            self._remove(stream)
            stream.lost()

    def _request_received(self, event: RequestReceived) -> None:
        stream_id = event.stream_id or 0
        if stream_id > self._last_id or len(self._streams) >= bounds.MAX_STREAMS:
            self._refuse_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        self._highest_id = stream_id
        is_whole = event.stream_ended is not None
        block = read_request_block(event.headers or (), is_whole=is_whole)
        if isinstance(block, str):
            self._record(Fault(Reason.INVALID_MESSAGE, block))
            self._refuse_stream(stream_id, ErrorCodes.PROTOCOL_ERROR)
            return
        stream = self._streams[stream_id] = Http2Stream(self, stream_id, block, is_whole=is_whole)
        request = self.context.requests.read(block.head)
        if isinstance(request, Fault):
            response = refusal(*self._record(request), self.context.gateway.brand, legacy=False)
            stream.respond(response, minor=True, closes=False)
        else:
            stream.begin(request, block.head)

    def _record(self, fault: Fault) -> tuple[Denied, bytes]:
        """Log and count what is not a valid request; return its refusal and its id."""
        denied = Denied(fault.reason, fault.detail)
        request_id = self.context.next_request_id()
        status = refusal(denied, request_id, self.context.gateway.brand, legacy=False).status
        self.context.record_fault(self.address, perf_counter(), request_id, denied, status)
        return denied, request_id

    def _refuse_stream(self, stream_id: int, code: ErrorCodes) -> None:
        self.reset(stream_id, code)
        if not self._resets.spend():
            self._fail(ErrorCodes.ENHANCE_YOUR_CALM)

    def _stream_failed(self, stream_id: int, stream: Http2Stream) -> None:
        """Reset *stream*, whose content has another length than its head says."""
        self._remove(stream)
        stream.lost()
        self._refuse_stream(stream_id, ErrorCodes.PROTOCOL_ERROR)

    def _window_updated(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None and stream.waits_for_window:
            stream.send_unsent()

    def _send_unsent(self) -> None:
        """Send what the windows allow of all responses."""
        for stream in list(self._streams.values()):
            if self._is_full:
                break
            if stream.waits_for_window:
                stream.send_unsent()
                if not self._is_receiving:
                    self._flush()

    # What streams send.

    def send_headers(self, stream_id: int, block: Fields, *, is_last: bool) -> None:
        """Send a header *block*, with which the response begins, or ends if it *is_last*."""
        self._h2.send_headers(stream_id, block, end_stream=is_last)
        self._flush_soon()

    def send_data(self, stream_id: int, data: bytes, *, is_last: bool) -> int:
        """Send what the windows allow of *data*, the end of the response if it *is_last*; return how much that is."""
        if self._is_full:
            return 0
        sent = self._h2.send_fitting(stream_id, data, is_last=is_last)
        if sent:
            self._control_frames.earn(bounds.DATA_EARNS * ceil(sent / bounds.MAX_FRAME))
            self._flush_soon()
        return sent

    def send_end(self, stream_id: int) -> None:
        """End a response."""
        self._h2.end_stream(stream_id)
        self._flush_soon()

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Let the client send *size* bytes more."""
        if stream_id and not self._is_lingering:
            self._h2.acknowledge_received_data(size, stream_id)
            self._flush_soon()

    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        """Reset a stream."""
        if not self._is_lingering:
            self._h2.reset_stream(stream_id, code)
            self._flush_soon()

    def stream_ended(self, stream: Http2Stream) -> None:
        """Forget *stream*."""
        self._remove(stream)

    def _remove(self, stream: Http2Stream) -> None:
        self._streams.pop(stream.id, None)
        if not self._streams:
            self.idle_at = monotonic()
            self._due = self.idle_at + self.context.keepalive_seconds

    def _flush_soon(self) -> None:
        """Write at the end of this step of the event loop, all frames together."""
        if not self._is_receiving and not self._is_flushing:
            self._is_flushing = True
            self.context.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        if self._is_lingering:
            return
        if (data := self._h2.data_to_send()) and not self.transport.is_closing():
            self.transport.write(data)

    # The end.

    @property
    def in_flight(self) -> int:
        """How many requests are in progress."""
        return sum(stream.forwarder is not None for stream in self._streams.values())

    @property
    def idle_since(self) -> float:
        """When it began to wait for its client, by the monotonic clock; NEVER while it serves a request."""
        if self.transport.get_write_buffer_size():
            return NEVER
        since = self.idle_at
        for stream in self._streams.values():
            if stream.forwarder is None or stream.forwarder.tunnel is not None:
                return NEVER
            since = max(since, stream.forwarder.waiting_since + _BODY_SECONDS)
        return since

    def check_timeouts(self, now: float) -> None:
        """Handle what is due at *now*."""
        if self._is_lingering:
            if self._due <= now:
                self.transport.abort()
            return
        for stream in list(self._streams.values()):
            stream.check_timeouts(now)
        if self._due <= now and (not self._streams or self._block_frames):
            self._fail(ErrorCodes.NO_ERROR)
        elif self._is_draining and not self._streams:
            self._linger()

    def evict(self) -> None:
        """Close in favor of a new connection."""
        for stream in list(self._streams.values()):
            if stream.forwarder is not None:
                stream.forwarder.evict("its connection was closed for another client's")
        self._fail(ErrorCodes.NO_ERROR)

    def turn_away(self) -> None:
        """Close: there are too many connections."""
        self._fail(ErrorCodes.ENHANCE_YOUR_CALM)

    def drain(self, idle_close_at: float) -> None:
        """Take no more requests after *idle_close_at*, and close when all are served (RFC 9113 §6.8)."""
        self._is_draining = True
        self._idle_close_at = idle_close_at
        self._send_goaway(_LAST_ID, ErrorCodes.NO_ERROR)

    def close_idle(self, now: float, close_code: int) -> None:
        """Refuse new streams once none can be in transit any more at *now*, and close after the last.

        WebSockets are closed with *close_code*.
        """
        if not self._is_draining or now < self._idle_close_at or self._is_lingering:
            return
        if self._last_id == _LAST_ID:
            self._last_id = self._highest_id
            self._send_goaway(self._last_id, ErrorCodes.NO_ERROR)
        for stream in list(self._streams.values()):
            if stream.forwarder is not None and stream.forwarder.tunnel is not None:
                stream.forwarder.tunnel.close(close_code)
        if not self._streams:
            self._linger()

    def stop(self) -> None:
        """Cancel all requests and close."""
        for stream in list(self._streams.values()):
            stream.cancel()
        self._fail(ErrorCodes.NO_ERROR)
        self.transport.close()

    def _fail(self, code: ErrorCodes) -> None:
        """Close the connection with *code*."""
        if not self._is_lingering:
            self._send_goaway(self._highest_id, code)
            self._linger()

    def _close_with_goaway(self) -> None:
        """Close after h2 has found an error, whose GOAWAY is ready to be sent."""
        self._flush()
        self._linger()

    def _send_goaway(self, last_id: int, code: ErrorCodes) -> None:
        # Not by h2, which would send nothing more after it.
        self._flush()
        if not self._is_lingering and not self.transport.is_closing():
            frame = GoAwayFrame(0, last_stream_id=last_id, error_code=int(code))
            self.transport.write(frame.serialize())

    def _linger(self) -> None:
        """Close after the client has: closing with unread data would destroy the last frames."""
        self._is_lingering = True
        self._due = monotonic() + _LINGER_SECONDS
        self._lose_streams()
        if not half_close(self.transport):
            self.transport.close()

    def _lose_streams(self) -> None:
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.lost()


def _begin(max_block: int) -> Http2State:
    """Return the state of a new connection, whose settings are ready to be sent.

    A header block has at most *max_block* bytes of fields.
    """
    connection = Http2State(client_side=False)
    settings = {
        SettingCodes.MAX_CONCURRENT_STREAMS: bounds.MAX_STREAMS,
        SettingCodes.INITIAL_WINDOW_SIZE: bounds.STREAM_WINDOW,
        SettingCodes.MAX_FRAME_SIZE: bounds.MAX_FRAME,
        SettingCodes.MAX_HEADER_LIST_SIZE: max_block,
        SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
    }
    connection.local_settings = Settings(client=False, initial_values=settings)
    connection.decoder.max_header_list_size = max_block
    connection.initiate_connection()
    # h2 would close the connection for one stream too many, which may have been sent before the limit was known.
    settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 2 * bounds.MAX_STREAMS
    connection.local_settings = Settings(client=False, initial_values=settings)
    connection.increment_flow_control_window(bounds.CONNECTION_WINDOW - bounds.STREAM_WINDOW)
    connection.receive_data(PREFACE)
    return connection
