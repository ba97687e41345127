"""The heartbeat of a worker: its event loop reports that it runs, and measures how late it is."""

from collections import deque
from collections.abc import Callable

from machpay_gateway.serving.servable import HEARTBEAT_SECONDS
from machpay_gateway.telemetry.loop_lag import LoopLag

_PROBES = 4  # for each heartbeat: the loop may be blocked in between
_PROBE_SECONDS = HEARTBEAT_SECONDS / _PROBES
_WINDOW_SECONDS = 15.0  # no shorter than the usual time between two scrapes


class Heartbeat:
    """Reports once a second that the event loop runs, from `start` on."""

    def __init__(self) -> None:
        """Do nothing yet."""
        self._lag = LoopLag(_PROBE_SECONDS, self._probe)
        self._latest: deque[float] = deque([0.0], maxlen=int(_WINDOW_SECONDS / _PROBE_SECONDS))
        self._probes = 0

    @property
    def lag_seconds(self) -> float:
        """By how much the event loop was late to run a timer, at most, in the last 15 s."""
        return max(self._latest)

    def start(self, beat: Callable[[], None]) -> None:
        """Call *beat* once a second until the loop is closed."""
        self._beat = beat
        self._lag.open()

    def _probe(self, seconds: float) -> None:
        self._latest.append(seconds)
        self._probes += 1
        if self._probes % _PROBES == 0:
            self._beat()
