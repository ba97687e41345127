"""How far this host's clock is ahead of a server's, from replies that hold the server's time."""

from collections import deque
from typing import NamedTuple

_KEPT = 5  # of the latest replies; the fastest of them is the most exact one


class _ClockReading(NamedTuple):
    seconds: float  # by which this host's clock is ahead
    error: float  # by which that may be wrong: half a round trip


class ClockSkew:
    """An estimate from the latest replies. Mutable."""

    def __init__(self) -> None:
        """Begin without any."""
        self._readings: deque[_ClockReading] = deque(maxlen=_KEPT)

    @property
    def seconds(self) -> float | None:
        """How far this host's clock is ahead of the server's; None when it is not known."""
        return min(self._readings, key=lambda reading: reading.error).seconds if self._readings else None

    def add(self, sent_at: float, server_time: float, received_at: float) -> None:
        """Add a reply with the *server_time* to a question of *sent_at*, all in seconds since the epoch."""
        reading = _ClockReading((sent_at + received_at) / 2 - server_time, abs(received_at - sent_at) / 2)
        # Earlier ones that it contradicts are wrong now: a clock was set.
        earlier = [it for it in self._readings if abs(it.seconds - reading.seconds) <= it.error + reading.error]
        self._readings = deque([*earlier, reading], maxlen=_KEPT)
