"""Where WebSocket frames end in a tunnel, so that the gateway can add a Close frame of its own (RFC 6455 §5.2, §5.5.1).

Payloads are not read: the tunnel forwards bytes. A Close frame may stand between the fragments of a message, but not
inside a frame.
"""

import struct

GOING_AWAY = 1001  # RFC 6455 §7.4.1: the server goes down
POLICY_VIOLATION = 1008  # RFC 6455 §7.4.1
SERVICE_RESTART = 1012  # of the IANA registry of close codes: the client may connect again, after a random delay

_CLOSE = 0x88  # the last frame of a message, with the opcode of Close
_SHORT_HEADER, _LONGEST_HEADER, _MASK_BYTES = 2, 14, 4
_LENGTH_BITS, _MASKED = 0x7F, 0x80
_EXTENDED = {126: 2, 127: 8}  # a marker in place of the length: how many bytes of length follow


class FrameBoundaries:
    """Follows the frames of one direction. Mutable."""

    __slots__ = ("_header", "_left")

    def __init__(self) -> None:
        """Begin before the first frame."""
        self._header = b""  # the beginning of a frame whose length is not known yet
        self._left = 0  # bytes of the current frame

    @property
    def is_between_frames(self) -> bool:
        """Whether all that has come are complete frames."""
        return not self._left and not self._header

    def skip(self, data: bytes) -> None:
        """Take *data*."""
        self._take(data, len(data))

    def end_of_frame(self, data: bytes) -> int:
        """Take *data* up to the end of the current frame; return where that is, or -1 if the frame goes on."""
        at = 0 if self.is_between_frames else self._take(data, 1)
        return at if self.is_between_frames else -1

    def _take(self, data: bytes, most: int) -> int:
        """Take frames until at least *most* bytes are taken, or all of *data*; return how many were."""
        size, taken = len(data), len(self._header)
        if taken:
            data, size, most = self._header + data, size + taken, most + taken
        at = self._left
        while at < most:
            header = data[at : at + _LONGEST_HEADER]
            end = _end_of(header)
            if end < 0:
                self._header, self._left = header, 0
                return size - taken
            at += end
        self._header = b""
        self._left = max(at - size, 0)
        return min(at, size) - taken


def close_frame(code: int, reason: str = "") -> bytes:
    """Return a server's Close frame, which is not masked, with a *reason* of at most 123 bytes."""
    payload = struct.pack("!H", code) + reason.encode()
    return bytes((_CLOSE, len(payload))) + payload


def _end_of(header: bytes) -> int:
    """Return the length of the frame that begins with *header*, -1 if too little of that is there to know."""
    if len(header) < _SHORT_HEADER:
        return -1
    second = header[1]
    length = second & _LENGTH_BITS
    size = _SHORT_HEADER + (_MASK_BYTES if second & _MASKED else 0)
    if length in _EXTENDED:
        extended = _SHORT_HEADER + _EXTENDED[length]
        if len(header) < extended:
            return -1
        length = int.from_bytes(header[_SHORT_HEADER:extended], "big")
        size += extended - _SHORT_HEADER
    return size + length
