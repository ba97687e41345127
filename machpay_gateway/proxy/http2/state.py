"""The state of a connection of HTTP/2, as the h2 library has it."""

from collections.abc import Iterable

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, H2Connection
from h2.stream import H2Stream
from typing_extensions import override

from machpay_gateway.proxy.http2 import bounds


class Http2State(H2Connection):
    """State that leaves header fields and the length of content to its user.

    h2 itself closes the connection for one malformed message, or one whose Content-Length is wrong, and with it the
    requests of others: both a proxy in front of the gateway and an upstream have many callers' requests in one
    connection.
    """

    def __init__(self, *, client_side: bool) -> None:
        """Begin on the side of the client, or of the server. `fields` checks the fields of messages."""
        super().__init__(
            H2Configuration(
                client_side=client_side,
                header_encoding=None,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )

    def bound_compression(self) -> None:
        """Use no larger table for compression than ours, after the other side has offered one."""
        self.encoder.header_table_size = min(self.encoder.header_table_size, bounds.TABLE_SIZE)

    def send_fitting(self, stream_id: int, data: bytes, *, is_last: bool) -> int:
        """Send what the windows allow of *data*, the end of the stream if it *is_last*; return how much that is."""
        left = min(len(data), self.local_flow_control_window(stream_id))
        at = 0
        while at < left:
            piece = data[at : min(at + bounds.MAX_FRAME, left)]
            at += len(piece)
            self.send_data(stream_id, piece, end_stream=is_last and at == len(data))
        return at

    @override
    def _begin_new_stream(self, stream_id: int, allowed_ids: AllowedStreamIDs) -> H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream._initialize_content_length = _ignore  # type: ignore[method-assign]  # noqa: SLF001 - see above
        return stream


def _ignore(headers: Iterable[object]) -> None:
    """Expect no length of *headers*."""
