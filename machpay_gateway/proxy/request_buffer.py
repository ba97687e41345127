"""A request's body that is collected before any of it is forwarded, for upstreams that cannot take chunks.

Such an upstream gets a `Content-Length` and the body at once, and no slow client occupies it. Up to 1 MB is in memory,
more in an unnamed temporary file.
"""

import re
from tempfile import SpooledTemporaryFile

from machpay_gateway.proxy.header_fields import HeaderFields
from machpay_gateway.proxy.heads import ResponseHead

_MEMORY_BYTES = 1024 * 1024
_PIECE_BYTES = 64 * 1024  # that a single write to the upstream takes
_CHUNKED = b"\r\nTransfer-Encoding: chunked\r\n"  # as `RequestHead` writes it; a client's own line is dropped
_EXPECTATION = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE)
CONTINUE = ResponseHead(b"100", b" Continue", minor=True)
CONTINUE.read(b"", HeaderFields({}))


class RequestBuffer:
    """The collected body. Mutable: it is written, then read once.

    Writing to the file does not wait for the disk, but for the kernel's page cache; a full disk raises OSError.
    """

    __slots__ = ("_file", "length")

    def __init__(self) -> None:
        """Begin empty."""
        self._file = SpooledTemporaryFile(_MEMORY_BYTES)  # noqa: SIM115 - `close` is its end
        self.length = 0

    def add(self, payload: bytes) -> None:
        """Append *payload*. Raises OSError if the disk is full."""
        self._file.write(payload)
        self.length += len(payload)

    def rewind(self) -> None:
        """Begin to read at the start."""
        self._file.seek(0)

    def next_piece(self) -> bytes:
        """Return the next bytes, b"" at the end."""
        return self._file.read(_PIECE_BYTES)

    def close(self) -> None:
        """Free the memory, or the file."""
        self._file.close()


def has_expectation(head: bytes) -> bool:
    """Return whether the client waits for a 100 (RFC 9110 §10.1.1)."""
    return _EXPECTATION.search(head) is not None


def head_with_length(head: bytes, length: int) -> bytes:
    """Return *head* with *length* in place of the chunked transfer coding, and without an expectation: it was met."""
    return _EXPECTATION.sub(b"\r\n", head).replace(_CHUNKED, b"\r\nContent-Length: %d\r\n" % length, 1)
