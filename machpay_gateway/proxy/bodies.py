"""Bodies as they arrive: one decoder for each kind of framing, which returns the payload and detects the end.

Decoders buffer only an unfinished line. A forwarded body is framed again: chunk extensions end here (RFC 9112 §7.1.1).
"""

import re
from collections.abc import Callable
from typing import Protocol

from machpay_gateway.proxy.framing import FIELD_LINES
from machpay_gateway.proxy.header_fields import CONTENT_TYPE, DATE, HeaderFields

# No whitespace but before an extension, no sign, no prefix; more than 15 digits would be petabytes.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[\t ]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_TRAILERS = re.compile(FIELD_LINES)
_MAX_SIZE_LINE = 256  # with its extensions, which nobody uses and an attacker may send endlessly
_MAX_TRAILERS = 8 * 1024

LAST_CHUNK = b"0\r\n"

_Step = Callable[[bytes, int, list[bytes]], int]


class BodyFramingError(Exception):
    """The body is not framed as its head declares."""


class Body(Protocol):
    """A body while it arrives. *trailers* are its trailer lines unchanged, once it is done."""

    trailers: bytes

    @property
    def is_done(self) -> bool:
        """Whether the message has ended."""

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the payload in *data*, and what follows the message. Raises BodyFramingError."""


class FixedLengthBody:
    """A body of a given length."""

    __slots__ = ("left", "trailers")

    def __init__(self, length: int) -> None:
        self.left = length
        self.trailers = b""

    @property
    def is_done(self) -> bool:
        """Whether the message has ended."""
        return self.left == 0

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the payload in *data*, and what follows the message."""
        size = len(data)
        if size <= self.left:
            self.left -= size
            return data, b""
        left, self.left = self.left, 0
        return data[:left], data[left:]


class _UnframedBody:
    """A body whose bytes are its payload, until something else than the bytes says that it *is_done*."""

    __slots__ = ("is_done", "trailers")

    def __init__(self) -> None:
        self.is_done = False
        self.trailers = b""

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Return *data*, all of which is payload."""
        return data, b""


class CloseDelimitedBody(_UnframedBody):
    """The body of a response that ends with its connection."""

    __slots__ = ()


class StreamBody(_UnframedBody):
    """The body of a message of HTTP/2, whose stream says where it ends."""

    __slots__ = ()


class ChunkedBody:
    """A body in the chunked transfer coding (RFC 9112 §7.1)."""

    __slots__ = ("_fields", "_left", "_pending", "_step", "is_done", "trailers")

    def __init__(self, fields: HeaderFields) -> None:
        """Expect the first chunk. Trailer fields that the proxy manages are refused (RFC 9110 §6.5.1).

        Content-Type and Date are the exception: some servers send them, and nobody reads them there.
        """
        self._fields = fields
        self._step: _Step = self._read_size
        self._pending = b""  # an unfinished line
        self._left = 0  # of the chunk
        self.is_done = False
        self.trailers = b""

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the payload in *data*, and what follows the message. Raises BodyFramingError."""
        pieces: list[bytes] = []
        at = 0
        if self._pending:
            data = self._pending + data
            self._pending = b""
        while not self.is_done:
            after = self._step(data, at, pieces)
            if after < 0:
                break
            at = after
        if self.is_done:
            return b"".join(pieces), data[at:]
        if self._step != self._read_payload:  # not `is not`: each access makes a new bound method
            self._pending = data[at:]
        return b"".join(pieces), b""

    def _read_size(self, data: bytes, at: int, _pieces: list[bytes]) -> int:
        """Read the line with a chunk's size; return where it ends, -1 when it is incomplete."""
        end = data.find(b"\n", at, at + _MAX_SIZE_LINE) + 1
        if not end:
            if len(data) - at >= _MAX_SIZE_LINE:
                raise BodyFramingError("a chunk size line that is too long")
            return -1
        match = _SIZE_LINE.fullmatch(data, at, end)
        if match is None:
            raise BodyFramingError("an invalid chunk size")
        self._left = int(match[1], 16)
        self._step = self._read_payload if self._left else self._read_trailers
        return end

    def _read_payload(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        piece = data[at : at + self._left]
        if piece:
            pieces.append(piece)
        self._left -= len(piece)
        if self._left:
            return -1
        self._step = self._read_chunk_end
        return at + len(piece)

    def _read_chunk_end(self, data: bytes, at: int, _pieces: list[bytes]) -> int:
        if len(data) - at < 2:  # noqa: PLR2004 - CR LF
            if data[at:] not in (b"", b"\r"):
                raise BodyFramingError("a chunk that is longer than its size")
            return -1
        if data[at : at + 2] != b"\r\n":
            raise BodyFramingError("a chunk that is longer than its size")
        self._step = self._read_size
        return at + 2

    def _read_trailers(self, data: bytes, at: int, _pieces: list[bytes]) -> int:
        if data[at : at + 2] == b"\r\n":
            self.is_done = True
            return at + 2
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            # The CR of the empty line after them may be here already.
            if len(data) - at > _MAX_TRAILERS + 1 or data.count(b"\n", at) != data.count(b"\r\n", at):
                raise BodyFramingError("trailers that are too long or malformed")
            return -1
        trailers = data[at : end + 2]
        if len(trailers) > _MAX_TRAILERS or not _TRAILERS.fullmatch(trailers):
            raise BodyFramingError("malformed trailers")
        check_trailers(trailers, self._fields)
        self.trailers = trailers
        self.is_done = True
        return end + 4


def check_trailers(trailers: bytes, fields: HeaderFields) -> None:
    """Check these lines, each with its CR LF, by the rules in *fields*. Raises BodyFramingError."""
    for line in trailers.split(b"\r\n")[:-1]:
        if (field := fields[line]) is not None and field[0] not in {CONTENT_TYPE, DATE}:
            raise BodyFramingError("a trailer field that belongs in the head")


def chunk(payload: bytes) -> bytes:
    """Return *payload*, which must not be empty, as a chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)
