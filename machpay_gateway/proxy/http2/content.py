"""The content of a message of HTTP/2."""


class StreamBody:
    """A body whose stream says where it ends."""

    __slots__ = ("is_done", "trailers")

    def __init__(self) -> None:
        self.is_done = False
        self.trailers = b""

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Return *data*, all of which is content."""
        return data, b""
