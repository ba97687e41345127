"""An upgraded connection: bytes both ways, each way ending by itself."""

from collections.abc import Callable

from machpay_gateway.proxy.closing import end_writing
from machpay_gateway.proxy.ports import ClientTunnel, DownstreamClient
from machpay_gateway.proxy.upstream import UpstreamConnection


class Tunnel(ClientTunnel):
    """What joins the two connections once both have agreed on another protocol."""

    __slots__ = ("_client", "_client_said_all", "_ended", "_upstream", "_upstream_said_all", "sent_bytes")

    def __init__(self, client: DownstreamClient, upstream: UpstreamConnection, ended: Callable[[], None]) -> None:
        """Join *client* and *upstream*; *ended* is called when either is gone."""
        self._client = client
        self._upstream = upstream
        self._ended = ended
        self._client_said_all = self._upstream_said_all = False
        self.sent_bytes = 0

    # The client's side.

    def client_sent(self, data: bytes) -> None:
        """Hand bytes on to the upstream."""
        self._upstream.transport.write(data)

    def client_said_all(self) -> bool:
        """End the client's direction; tell whether the other one goes on."""
        self._client_said_all = True
        return not self._upstream_said_all and end_writing(self._upstream.transport)

    def client_gone(self) -> None:
        """Close the other side once it has got all that was sent: a farewell may be on its way."""
        self._upstream.transport.close()
        self._ended()

    def client_is_full(self) -> None:
        """Read no more from the upstream for now."""
        self._upstream.transport.pause_reading()

    def client_is_free(self) -> None:
        """Read on."""
        self._upstream.transport.resume_reading()

    # The upstream's side.

    def upstream_sent(self, data: bytes) -> None:
        """Hand bytes on to the client."""
        self.sent_bytes += len(data)
        self._client.transport.write(data)

    def upstream_said_all(self) -> bool:
        """End the upstream's direction; tell whether the other one goes on."""
        self._upstream_said_all = True
        return not self._client_said_all and end_writing(self._client.transport)

    def upstream_gone(self) -> None:
        """Close the client's connection once it has got all that was sent, or does not take it."""
        self._client.abort(by_reset=False)
        self._ended()

    def upstream_is_full(self) -> None:
        """Read no more from the client for now."""
        self._client.stop_reading()

    def upstream_is_free(self) -> None:
        """Read on."""
        self._client.read_on()
