"""What a worker admits by itself while no server answers: its share of the limit, in the same sliding window."""

from math import ceil

from machpay_gateway.core.limits.admission import Exceeded, refusal_for
from machpay_gateway.core.limits.rate import CELLS, MAX_LIMIT, CellWindow, Tier


class LocalShare:
    """One worker's share of a subject's window.

    It starts from the last reply of the server: the same share of the units taken then counts here, as of the time of
    that reply. So an outage does not hand out a second window over all workers.
    """

    def __init__(self, tier: Tier, workers: int, taken: int | None, updated_at: float, now: float) -> None:
        """Start one of *workers* shares of *tier*; *taken* is what all had taken at *updated_at*, if that is known."""
        self.workers = workers
        self._reported = 0
        started_at = now if taken is None else min(updated_at, now)
        self._window = CellWindow(tier.window_seconds, started_at)
        self._taken_before = 0 if taken is None else ceil(taken / workers)
        self._before_expires_at = started_at + tier.window_seconds * CELLS / (CELLS - 1)
        self._window.try_take(started_at, self._taken_before, self._taken_before)

    def admit(self, tier: Tier, cost: int, held: int, now: float) -> Exceeded | None:
        """Count *cost* at *now* if *tier*, this worker's share of the limits, has room for it; else the refusal."""
        if self._window.window_seconds != tier.window_seconds:
            self._window = self._window.resized(tier.window_seconds, now)
        if held >= tier.concurrency or not self._window.try_take(now, cost, tier.limit):
            return refusal_for(self._window, tier, cost, held, now)
        return None

    def count(self, cost: int, now: float) -> None:
        """Count *cost* even beyond the limit."""
        self._window.try_take(now, cost, MAX_LIMIT)

    def left(self, tier: Tier, now: float) -> tuple[int, float]:
        """Return the units left of *tier*, and the seconds until the next one frees."""
        window = self._window
        return max(0, tier.limit - window.taken), window.frees_at - now if window.taken else 0.0

    def take_backlog(self, now: float) -> int:
        """Return the units admitted here that still count and were not returned before: the server must count them."""
        self._window.advance(now)
        admitted = self._window.taken - (self._taken_before if now < self._before_expires_at else 0)
        backlog = max(0, admitted - self._reported)
        self._reported += backlog
        return backlog
