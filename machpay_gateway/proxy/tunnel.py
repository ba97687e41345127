"""An upgraded connection: bytes in both directions, each with its own end (half-close)."""

from collections.abc import Callable
from time import monotonic

from machpay_gateway.proxy.closing import half_close
from machpay_gateway.proxy.downstream import ClientStream
from machpay_gateway.proxy.upstream import UpstreamConnection, UpstreamHandler


class Tunnel(UpstreamHandler):
    """Joins the two connections once client and upstream have agreed on another protocol.

    *active_at* is when bytes last came from either, monotonic.
    """

    __slots__ = ("_client", "_client_has_ended", "_on_end", "_upstream", "_upstream_has_ended", "active_at")

    def __init__(self, client: ClientStream, upstream: UpstreamConnection, on_end: Callable[[], None]) -> None:
        """Join *client* and *upstream*; call *on_end* when either connection is lost."""
        self._client = client
        self._upstream = upstream
        self._on_end = on_end
        self.active_at = monotonic()
        self._client_has_ended = self._upstream_has_ended = False

    # The client's side.

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

    # The upstream's side.

    def upstream_received(self, data: bytes) -> None:
        """Send bytes from the upstream to the client."""
        self.active_at = monotonic()
        self._client.transport.write(data)

    def upstream_ended(self) -> bool:
        """End the upstream's direction; return whether the other one stays open."""
        self._upstream_has_ended = True
        return not self._client_has_ended and half_close(self._client.transport)

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
