"""What a worker admits by itself while no server answers: its part of the limit, in the same strict cells."""

from math import ceil

from machpay_gateway.core.limits.admission import Exceeded, exceeded
from machpay_gateway.core.limits.rate import CELLS, MAX_LIMIT, CellWindow, Tier


class LocalShare:
    """One worker's part of a subject's window.

    It starts from what was last heard of the whole window: the same part of what was taken then counts here, as of the
    moment it was heard. So all workers together begin no second window when a server goes away.
    """

    def __init__(self, tier: Tier, workers: int, taken: int | None, heard_at: float, now: float) -> None:
        """Begin one of *workers* shares of *tier*; *taken* is what was taken of all of it at *heard_at*, if known."""
        self.workers = workers
        self._told = 0
        began_at = now if taken is None else min(heard_at, now)
        self._window = CellWindow(tier.window_seconds, began_at)
        self._before = 0 if taken is None else ceil(taken / workers)
        self._before_counts_until = began_at + tier.window_seconds * CELLS / (CELLS - 1)
        self._window.try_take(began_at, self._before, self._before)

    def admit(self, tier: Tier, cost: int, held: int, now: float) -> Exceeded | None:
        """Count *cost* at *now* if this worker's part, which is *tier*, has room for it; else return the refusal."""
        if self._window.window_seconds != tier.window_seconds:
            self._window = self._window.resized(tier.window_seconds, now)
        if held >= tier.concurrency or not self._window.try_take(now, cost, tier.limit):
            return exceeded(self._window, tier, cost, held, now)
        return None

    def count(self, cost: int, now: float) -> None:
        """Count *cost*, whether there is room for it or not."""
        self._window.try_take(now, cost, MAX_LIMIT)

    def left(self, tier: Tier, now: float) -> tuple[int, float]:
        """Return the units left of *tier*, and the seconds until more are."""
        window = self._window
        return max(0, tier.limit - window.taken), window.frees_at - now if window.taken else 0.0

    def owed(self, now: float) -> int:
        """Return the units that were admitted here, still count, and were not returned before: to be told a server."""
        self._window.advance(now)
        admitted = self._window.taken - (self._before if now < self._before_counts_until else 0)
        owed = max(0, admitted - self._told)
        self._told += owed
        return owed
