"""Bodies as they arrive: each kind of framing hands out what is payload, and says when the message ends.

Nothing is kept but an unfinished line. What is sent on is framed anew: chunk extensions end here (RFC 9112 §7.1.1).
"""

import re
from collections.abc import Callable
from typing import Protocol

from machpay_gateway.proxy.fields import DATE, TYPE, Fields
from machpay_gateway.proxy.framing import FIELD_LINES

# No blank but before an extension, no sign, no prefix; more digits than this would be petabytes.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[\t ]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_TRAILERS = re.compile(FIELD_LINES)
_MAX_SIZE_LINE = 256  # with its extensions, which nobody uses and somebody may send for ever
_MAX_TRAILERS = 8 * 1024

LAST_CHUNK = b"0\r\n"

_Step = Callable[[bytes, int, list[bytes]], int]


class BadBodyError(Exception):
    """The body is not framed as its head said."""


class Body(Protocol):
    """A body while it arrives. *trailers* has its trailer fields as they came, once it is done."""

    trailers: bytes

    @property
    def is_done(self) -> bool:
        """Whether the message has ended."""

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the payload in *data*, and what stands after the end of the message. Raises BadBodyError."""


class Counted:
    """A body of a length that is known."""

    __slots__ = ("left", "trailers")

    def __init__(self, length: int) -> None:
        self.left = length
        self.trailers = b""

    @property
    def is_done(self) -> bool:
        """Whether the message has ended."""
        return self.left == 0

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the payload in *data*, and what stands after it."""
        size = len(data)
        if size <= self.left:
            self.left -= size
            return data, b""
        left, self.left = self.left, 0
        return data[:left], data[left:]


class UntilClose:
    """The body of an answer that ends with its connection."""

    __slots__ = ("is_done", "trailers")

    def __init__(self) -> None:
        self.is_done = False
        self.trailers = b""

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Return *data*, all of which is payload."""
        return data, b""


class Chunked:
    """A body in chunks."""

    __slots__ = ("_fields", "_left", "_pending", "_step", "is_done", "trailers")

    def __init__(self, fields: Fields) -> None:
        """Expect the first chunk. A trailer field of any managed kind is a mistake (RFC 9110 §6.5.1).

        But for Content-Type and Date, which some do send and nobody reads there.
        """
        self._fields = fields
        self._step: _Step = self._size
        self._pending = b""  # the beginning of a line
        self._left = 0  # of the chunk
        self.is_done = False
        self.trailers = b""

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the payload in *data*, and what stands after the last chunk. Raises BadBodyError."""
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
        if self._step != self._payload:  # each time another object, and equal
            self._pending = data[at:]
        return b"".join(pieces), b""

    def _size(self, data: bytes, at: int, _pieces: list[bytes]) -> int:
        """Read a line with a chunk's size; return where it ends, -1 when it has not come whole."""
        end = data.find(b"\n", at, at + _MAX_SIZE_LINE) + 1
        if not end:
            if len(data) - at >= _MAX_SIZE_LINE:
                raise BadBodyError("a chunk's size that does not end")
            return -1
        match = _SIZE_LINE.fullmatch(data, at, end)
        if match is None:
            raise BadBodyError("a chunk's size that is none")
        self._left = int(match[1], 16)
        self._step = self._payload if self._left else self._trailer
        return end

    def _payload(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        piece = data[at : at + self._left]
        if piece:
            pieces.append(piece)
        self._left -= len(piece)
        if self._left:
            return -1
        self._step = self._line_end
        return at + len(piece)

    def _line_end(self, data: bytes, at: int, _pieces: list[bytes]) -> int:
        if len(data) - at < 2:  # noqa: PLR2004 - CR LF
            if data[at:] not in (b"", b"\r"):
                raise BadBodyError("a chunk that is longer than its size")
            return -1
        if data[at : at + 2] != b"\r\n":
            raise BadBodyError("a chunk that is longer than its size")
        self._step = self._size
        return at + 2

    def _trailer(self, data: bytes, at: int, _pieces: list[bytes]) -> int:
        if data[at : at + 2] == b"\r\n":
            self.is_done = True
            return at + 2
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            # Of the empty line after them, the CR may have come.
            if len(data) - at > _MAX_TRAILERS + 1 or data.count(b"\n", at) != data.count(b"\r\n", at):
                raise BadBodyError("trailers that do not end")
            return -1
        trailers = data[at : end + 2]
        if len(trailers) > _MAX_TRAILERS or not _TRAILERS.fullmatch(trailers):
            raise BadBodyError("trailers that are no fields")
        for line in trailers.split(b"\r\n")[:-1]:
            if (field := self._fields[line]) is not None and field[0] not in {TYPE, DATE}:
                raise BadBodyError("a trailer that belongs into a head")
        self.trailers = trailers
        self.is_done = True
        return end + 4


def chunk(payload: bytes) -> bytes:
    """Return *payload*, which is not empty, as a chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)
