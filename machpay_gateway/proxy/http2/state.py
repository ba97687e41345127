"""The state of a connection of HTTP/2, as the h2 library has it."""

from collections.abc import Iterable

from h2.connection import AllowedStreamIDs, H2Connection
from h2.stream import H2Stream
from typing_extensions import override


class Http2State(H2Connection):
    """State that leaves the length of content to its user.

    h2 itself closes the connection for one message whose Content-Length is wrong, and with it the requests of others:
    both a proxy in front of the gateway and an upstream have many callers' requests in one connection.
    """

    @override
    def _begin_new_stream(self, stream_id: int, allowed_ids: AllowedStreamIDs) -> H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream._initialize_content_length = _ignore  # type: ignore[method-assign]  # noqa: SLF001 - see above
        return stream


def _ignore(headers: Iterable[object]) -> None:
    """Expect no length of *headers*."""
