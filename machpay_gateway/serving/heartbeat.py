"""The heartbeat of a worker: its event loop reports that it runs, and measures how late it is."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from machpay_gateway.serving.servable import HEARTBEAT_SECONDS

_PROBES = 4  # for each heartbeat: the loop may be blocked in between
_PROBE_SECONDS = HEARTBEAT_SECONDS / _PROBES
_WINDOW_SECONDS = 15.0  # no shorter than the usual time between two scrapes


class Heartbeat:
    """Reports once a second that the event loop runs, from `start` on."""

    def __init__(self) -> None:
        """Do nothing yet."""
        self._lags: deque[float] = deque([0.0], maxlen=int(_WINDOW_SECONDS / _PROBE_SECONDS))
        self._probes = 0

    @property
    def lag_seconds(self) -> float:
        """By how much the event loop was late to run a timer, at most, in the last 15 s."""
        return max(self._lags)

    def start(self, beat: Callable[[], None]) -> None:
        """Call *beat* once a second until the loop is closed."""
        self._beat = beat
        self._schedule()

    def _schedule(self) -> None:
        # Not by the loop's clock: uvloop's is the moment in which its current turn began.
        asyncio.get_running_loop().call_later(_PROBE_SECONDS, self._probe, time.monotonic() + _PROBE_SECONDS)

    def _probe(self, due: float) -> None:
        self._lags.append(max(0.0, time.monotonic() - due))
        self._probes += 1
        if self._probes % _PROBES == 0:
            self._beat()
        self._schedule()
