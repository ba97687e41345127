"""The rate limiter's arithmetic: a sliding window of fixed sub-windows.

The algorithm is the sliding window counter with exact buckets: neither a fixed window nor the weighted estimate over
two of them (both admit more than the limit around a boundary), and no sliding log (its size grows with the limit).
A window of 60 s is a ring of 61 buckets ("cells") of one second each, and the running total beside them. The oldest,
partly expired cell counts whole, so any interval of 60 s lies within the counted cells and never holds more admissions
than the limit. The price: a unit frees up to one cell late. Both hold for any window. A cell is a 60th of a window of a
minute or more. Shorter windows have cells of a second, but at least 12: a finer one would cost more than it gains.
"""

_MOST_CELLS, _FEWEST_CELLS = 60, 12


def cells_of(window_seconds: int) -> int:
    """Return the number of cells that cover a window. One more is counted: the one that expires."""
    return max(_FEWEST_CELLS, min(window_seconds, _MOST_CELLS))


class CellWindow:
    """A sliding window: a ring of cells and their running total. Mutable: every request counts in it.

    Times are seconds on any monotonic clock; when the clock steps back, the window stands still.
    """

    __slots__ = ("_cells", "_count", "_ends_at", "_newest", "_oldest", "_width", "frees_at", "taken", "window_seconds")

    def __init__(self, window_seconds: int, now: float) -> None:
        """Start an empty window of *window_seconds* at *now*."""
        self.window_seconds = window_seconds
        self.taken = 0
        self._count = cells_of(window_seconds) + 1
        self._width = window_seconds / (self._count - 1)
        self._cells = [0] * self._count
        self._newest = self._oldest = int(now // self._width)
        self._ends_at = (self._newest + 1) * self._width  # of the newest cell
        self.frees_at = (self._oldest + self._count) * self._width  # when the oldest cell expires, if it has units

    def try_take(self, now: float, cost: int, limit: int) -> bool:
        """Count *cost* units at *now* and return True, or count nothing when they would pass *limit*."""
        if now >= self._ends_at:
            self.advance(now)
        if self.taken + cost > limit:
            return False
        self._cells[self._newest % self._count] += cost
        self.taken += cost
        return True

    def has_room(self, now: float, cost: int, limit: int) -> bool:
        """Return whether *cost* units at *now* would not pass *limit*."""
        if now >= self._ends_at:
            self.advance(now)
        return self.taken + cost <= limit

    def take(self, now: float, cost: int) -> None:
        """Count *cost* units at *now*, even where they overdraw the window."""
        if now >= self._ends_at:
            self.advance(now)
        self._cells[self._newest % self._count] += cost
        self.taken += cost

    def advance(self, now: float) -> None:
        """Drop the cells that have expired at *now*."""
        tick = int(now // self._width)
        if tick <= self._newest:
            return
        cells, count = self._cells, self._count
        for old in range(self._oldest, min(tick - count, self._newest) + 1):
            self.taken -= cells[old % count]
            cells[old % count] = 0
        self._newest = tick
        self._ends_at = (tick + 1) * self._width
        self._oldest = max(self._oldest, tick - count + 1) if self.taken else tick
        while not cells[self._oldest % count] and self._oldest < tick:
            self._oldest += 1
        self.frees_at = (self._oldest + self._count) * self._width

    def frees_in(self, now: float, units: int = 1) -> float:
        """Return the seconds from *now* until *units* of those taken have expired; 0.0 when fewer are taken."""
        freed = 0
        for tick in range(self._oldest, self._newest + 1):
            freed += self._cells[tick % self._count]
            if freed and freed >= units:
                return (tick + self._count) * self._width - now
        return 0.0
