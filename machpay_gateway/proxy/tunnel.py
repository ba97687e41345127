"""An upgraded connection: bytes in both directions, each with its own end (half-close).

The gateway ends a WebSocket with a Close frame, as an endpoint would (RFC 6455 §7.1.1): a client that sees only the end
of the connection cannot tell a restart from a broken network.
"""

from collections.abc import Callable
from time import monotonic

from machpay_gateway.proxy.closing import half_close
from machpay_gateway.proxy.downstream import ClientStream
from machpay_gateway.proxy.upstream import UpstreamConnection, UpstreamHandler
from machpay_gateway.proxy.websocket_frames import FrameBoundaries, close_frame


class Tunnel(UpstreamHandler):
    """Joins the two connections once client and upstream have agreed on another protocol.

    *active_at* is when bytes last came from either, monotonic.
    """

    __slots__ = (
        "_boundaries",
        "_client",
        "_client_has_ended",
        "_close",
        "_has_said_close",
        "_on_end",
        "_upstream",
        "_upstream_has_ended",
        "active_at",
    )

    def __init__(
        self, client: ClientStream, upstream: UpstreamConnection, on_end: Callable[[], None], *, is_websocket: bool
    ) -> None:
        """Join *client* and *upstream*; call *on_end* when either connection is lost."""
        self._boundaries = FrameBoundaries() if is_websocket else None  # of the upstream's frames
        self._close = b""  # our Close frame, which waits for the end of the upstream's current frame
        self._has_said_close = False
        self._client = client
        self._upstream = upstream
        self._on_end = on_end
        self.active_at = monotonic()
        self._client_has_ended = self._upstream_has_ended = False

    # The client's side.

    @property
    def upstream_is_behind(self) -> bool:
        """Whether the upstream has not taken yet what the client has sent."""
        return self._upstream.is_full

    def client_received(self, data: bytes) -> None:
        """Send bytes from the client to the upstream."""
        self.active_at = monotonic()
        self._upstream.transport.write(data)

    def client_ended(self) -> bool:
        """End the client's direction; return whether the other one stays open."""
        self._client_has_ended = True
        return not self._upstream_has_ended and half_close(self._upstream.transport)

    def client_lost(self) -> None:
        """Close the upstream's connection gracefully: the client's last bytes may still be in its write buffer."""
        self._upstream.transport.close()
        self._on_end()

    def client_is_full(self) -> None:
        """Apply backpressure to the upstream."""
        self._upstream.transport.pause_reading()

    def client_is_free(self) -> None:
        """End the backpressure."""
        self._upstream.transport.resume_reading()

    def close(self, code: int) -> None:
        """Send the client of a WebSocket a Close frame with this *code*, once the upstream's current frame has ended.

        Its answer closes the connection to the upstream, which closes this one.
        """
        boundaries = self._boundaries
        if boundaries is None or self._has_said_close or self._close or self._upstream_has_ended:
            return
        if boundaries.is_between_frames:
            self._client.send_bytes(close_frame(code))
            self._has_said_close = True
        else:
            self._close = close_frame(code)

    def cut(self, code: int) -> None:
        """End both directions at once: a WebSocket with a Close frame, any other protocol with a reset."""
        self.close(code)
        self._upstream.abort()
        if self._boundaries is None:
            self._client.abort(by_reset=True)
        else:
            self._client.linger()
        self._on_end()

    # The upstream's side.

    def upstream_received(self, data: bytes) -> None:
        """Send bytes from the upstream to the client, up to our own Close frame."""
        self.active_at = monotonic()
        boundaries = self._boundaries
        if boundaries is None:
            self._client.send_bytes(data)
        elif self._close:
            end = boundaries.end_of_frame(data)
            if end < 0:
                self._client.send_bytes(data)
            else:
                self._client.send_bytes(data[:end] + self._close)
                self._close, self._has_said_close = b"", True
        elif not self._has_said_close:
            boundaries.skip(data)
            self._client.send_bytes(data)

    def upstream_ended(self) -> bool:
        """End the upstream's direction; return whether the other one stays open."""
        self._upstream_has_ended = True
        return not self._client_has_ended and not self._has_said_close and self._client.send_end()

    def upstream_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - either way nothing more comes
        """Close the client's connection gracefully, within the time that it has to take the last bytes."""
        self._client.abort(by_reset=False)
        self._on_end()

    def upstream_is_full(self) -> None:
        """Apply backpressure to the client."""
        self._client.pause_reading()

    def upstream_is_free(self) -> None:
        """End the backpressure."""
        self._client.resume_reading()
