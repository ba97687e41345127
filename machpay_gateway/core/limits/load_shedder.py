"""Load shedding: while a worker is overloaded, accounts that flood it are refused at once, so that others are served.

A request that waits behind a thousand others of one account is within every limit, and is served too late. So the
lateness of the event loop decides when to refuse, and the accounts' shares of the requests decide whom.
"""

from collections.abc import Sequence
from statistics import median

PROBE_SECONDS = 0.1
_START_SECONDS, _AIM_SECONDS = 0.15, 0.05  # of lateness on average
_MOST_SECONDS = 0.5  # that one probe counts for: a pause of the machine alone is no overload
_NEWEST = 0.3  # the weight of the newest probe: turns of the event loop take turns, long and short
_END_PROBES = 20  # without lateness and refusals
_LESS, _MORE = 0.7, 1.1  # how the capacity follows the lateness: quickly down, slowly up
_HEAVY = 4  # times as many requests as others: fewer are no flood
_LEAST = 8  # requests of one account between two probes


class LoadShedder:
    """Decides by account which requests to refuse while the worker is overloaded. Mutable.

    `count` is how many it refused. `is_shedding` is False nearly always; then nothing is counted and nothing refused.
    """

    def __init__(self) -> None:
        """Refuse nothing yet."""
        self.is_shedding = False
        self.count = 0
        self._wanted: dict[str, int] = {}  # requests since the last probe, by account
        self._allowance = float("inf")  # of each account until the next probe
        self._capacity = float("inf")  # of all of them
        self._late_seconds = 0.0  # on average
        self._calm = 0  # probes in a row

    def admits(self, account: str) -> bool:
        """Count a request of *account*, and return whether it may be served."""
        wanted = self._wanted.get(account, 0) + 1
        self._wanted[account] = wanted
        if wanted <= self._allowance:
            return True
        self.count += 1
        return False

    def probe(self, late_seconds: float) -> None:
        """Note that the event loop was *late_seconds* late to run a timer, once every `PROBE_SECONDS`."""
        self._late_seconds += _NEWEST * (min(late_seconds, _MOST_SECONDS) - self._late_seconds)
        if not self.is_shedding:
            self.is_shedding = self._late_seconds > _START_SECONDS
            return
        counts = sorted(self._wanted.values())
        self._wanted = {}
        is_calm = self._late_seconds < _AIM_SECONDS
        is_refusing = bool(counts) and counts[-1] > self._allowance
        self._calm = self._calm + 1 if is_calm and not is_refusing else 0
        if self._calm >= _END_PROBES:
            self._end()
            return
        served = sum(min(count, self._allowance) for count in counts)
        if not is_calm:
            self._capacity = max(_LEAST, served * _LESS)
        elif is_refusing:
            self._capacity = max(_LEAST, served * _MORE)
        self._allowance = max(_level(counts, self._capacity), _heavy_from(counts))

    def _end(self) -> None:
        self.is_shedding = False
        self._allowance = self._capacity = float("inf")
        self._calm = 0


def _level(counts: Sequence[int], capacity: float) -> float:
    """Return the most that each account may have so that all have *capacity* together; *counts* are sorted.

    That is max-min fairness: who wants less than its share leaves the rest to the others.
    """
    left, level = capacity, float("inf")
    for index, count in enumerate(counts):
        level = left / (len(counts) - index)
        if count > level:
            return level
        left -= count
    return float("inf")


def _heavy_from(counts: Sequence[int]) -> float:
    """Return how many requests are no flood: an account among its like is not refused, however slow the machine is."""
    *others, _ = counts or [0]
    if not others:
        return float("inf")  # it is in nobody's way
    return max(_LEAST, _HEAVY * median(others))
