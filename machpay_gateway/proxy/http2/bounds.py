"""Bounds on what costs the gateway work and a client of HTTP/2 nothing. Beyond them its connection closes.

Each names what it stops. A well-behaved client stays far below: browsers and gRPC clients send some control frames a
second, and cancel some of their streams.
"""

from time import monotonic
from typing import NamedTuple

MAX_STREAMS = 1000  # at the same time on a connection, announced to the client
STREAM_WINDOW = 65_535  # bytes of a request's content that are buffered for its upstream
CONNECTION_WINDOW = 64 * STREAM_WINDOW  # of all its requests
MAX_FRAME = 16_384  # bytes of payload: the least that RFC 9113 §4.2 allows
MAX_BLOCK = 64 * 1024  # bytes of a header block, compressed, and of its fields; more if heads may be larger
MAX_CONTINUATIONS = 32  # frames of a header block: a flood of them is never a request (CVE-2024-27983)
TABLE_SIZE = 4096  # of the compression of responses, however large a table the client offers


class FrameRate(NamedTuple):
    """So many at once, and then so many a second."""

    burst: int
    each_second: int


# Streams that end before their response: canceled by the client (CVE-2023-44487), or reset because of what it sent
# (CVE-2025-8671). The burst lets a client cancel all that it has.
RESETS = FrameRate(MAX_STREAMS + 100, 100)
# Frames that carry neither a request nor content: SETTINGS, PING, PRIORITY, empty DATA (CVE-2019-9511 to 9518),
# and WINDOW_UPDATE beyond what the responses explain.
CONTROL_FRAMES = FrameRate(2000, 500)
DATA_EARNS = 4  # control frames for each DATA frame to the client: updates of two windows, acknowledged by half


class Budget:
    """A token bucket of one *rate*."""

    __slots__ = ("_left", "_rate", "_since")

    def __init__(self, rate: FrameRate) -> None:
        self._rate = rate
        self._left = float(rate.burst)
        self._since = monotonic()

    def spend(self) -> bool:
        """Take one; return False if none is left."""
        if self._left < 1:
            now = monotonic()
            self._left = min(float(self._rate.burst), self._left + (now - self._since) * self._rate.each_second)
            self._since = now
            if self._left < 1:
                return False
        self._left -= 1
        return True

    def earn(self, count: int) -> None:
        """Give back *count*."""
        self._left = min(float(self._rate.burst), self._left + count)
