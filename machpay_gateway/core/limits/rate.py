"""Tiers in the notation of `limits`, and the rate limiter's arithmetic: a sliding window of fixed sub-windows.

The algorithm is the sliding window counter with exact buckets: neither a fixed window nor the weighted estimate over
two of them (both admit more than the limit around a boundary), and no sliding log (its size grows with the limit).
A window of 60 s is a ring of 61 buckets ("cells") of one second each, and the running total beside them. The oldest,
partly expired cell counts whole, so any interval of 60 s lies within the counted cells and never holds more admissions
than the limit. The price: a unit frees up to one cell late. Both hold for any window; a cell is a 60th of it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from machpay_gateway.core.errors import ConfigurationError

CELLS = 61
_CELLS_PER_WINDOW = CELLS - 1
MAX_LIMIT = 10**12
MAX_CONCURRENCY = 10**6
MAX_KEYS = 10**6
_UNIT_SECONDS = {"minute": 60, "hour": 3600}
_COMMON = re.compile(r"([0-9]{1,18})/(?:(minute|hour)|([2-9]|[1-9][0-9]) (minute|hour)s)")


@dataclass(frozen=True, slots=True)
class Tier:
    """A named set of limits: *rate* in `limits` notation (`"1000/minute"`), and *concurrency* in requests.

    *max_keys* is how many working keys an account of the tier may have, None for any number. Raises ConfigurationError
    when *rate* is not a rate, or *concurrency* or *max_keys* is below 1.
    """

    rate: str
    concurrency: int
    max_keys: int | None = None
    limit: int = field(init=False, repr=False)
    window_seconds: int = field(init=False, repr=False)
    policy_name: str = field(init=False, repr=False)
    policy_field: tuple[bytes, bytes] = field(init=False, repr=False)  # RateLimit-Policy, the same in every response
    left_format: bytes = field(init=False, repr=False)  # RateLimit, to be formatted with r, t and the slots' r

    def __post_init__(self) -> None:
        limit, window_seconds, name = parse_rate(self.rate)
        if type(self.concurrency) is not int or not 1 <= self.concurrency <= MAX_CONCURRENCY:
            raise ConfigurationError(
                f"Concurrency {self.concurrency!r} is not a number of requests: use 1 to {MAX_CONCURRENCY}"
            )
        if self.max_keys is not None and (type(self.max_keys) is not int or not 1 <= self.max_keys <= MAX_KEYS):
            raise ConfigurationError(f"{self.max_keys!r} is not a number of keys: use 1 to {MAX_KEYS}")
        policies = f'"{name}";q={limit};w={window_seconds}, "concurrency";q={self.concurrency};qu="concurrent-requests"'
        values: dict[str, object] = {
            "limit": limit,
            "window_seconds": window_seconds,
            "policy_name": name,
            "policy_field": (b"ratelimit-policy", policies.encode()),
            "left_format": f'"{name}";r=%d;t=%d, "concurrency";r=%d'.encode(),
        }
        for attribute, value in values.items():
            object.__setattr__(self, attribute, value)

    def local_share(self, workers: int) -> Self:
        """Return the limits of each of *workers* while they share no counters: an equal part, and at least 1."""
        _, per, window = self.rate.replace(" per ", "/").partition("/")
        return type(self)(f"{max(1, self.limit // workers)}{per}{window}", max(1, self.concurrency // workers))


def parse_rate(rate: str) -> tuple[int, int, str]:
    """Return the limit, the window in seconds and the window's name of *rate*, in `limits` notation.

    Raises ConfigurationError when it is not a rate.
    """
    if (common := _COMMON.fullmatch(str(rate))) is not None:
        # The forms of the defaults. `limits` parses them to the same, but importing that library takes 80 ms.
        limit, unit, multiple, units = int(common[1]), common[2], common[3], common[4]
        _check_limit(rate, limit)
        if unit:
            return limit, _UNIT_SECONDS[unit], unit
        return limit, int(multiple) * _UNIT_SECONDS[units], f"{multiple}-{units}s"
    from limits import parse_many  # noqa: PLC0415 - see above

    try:
        item, *others = parse_many(rate)
    except ValueError as exc:
        raise ConfigurationError(
            f"Rate {rate!r} is not a rate: write a number and a window, as in 1000/minute"
        ) from exc
    if others:
        raise ConfigurationError(f"Rate {rate!r} is more than one rate: a tier has one window")
    _check_limit(rate, item.amount * (item.multiples > 0))
    name = item.GRANULARITY.name if item.multiples == 1 else f"{item.multiples}-{item.GRANULARITY.name}s"
    return item.amount, item.get_expiry(), name


def _check_limit(rate: str, limit: int) -> None:
    if not 0 < limit <= MAX_LIMIT:
        raise ConfigurationError(f"Rate {rate!r} is out of range: use 1 to {MAX_LIMIT} per window")


TIERS: Mapping[str, Tier] = {
    "test": Tier("100/minute", 5),
    "standard": Tier("1000/minute", 50),
    "enterprise": Tier("10000/minute", 500),
}


class CellWindow:
    """One subject's sliding window: a ring of 61 cells and their running total. Mutable: every request counts in it.

    Times are seconds on any monotonic clock; when the clock steps back, the window stands still.
    """

    __slots__ = ("_cells", "_ends_at", "_newest", "_oldest", "_width", "frees_at", "taken", "window_seconds")

    def __init__(self, window_seconds: int, now: float) -> None:
        """Start an empty window of *window_seconds* at *now*."""
        self.window_seconds = window_seconds
        self.taken = 0
        self._width = window_seconds / _CELLS_PER_WINDOW
        self._cells = [0] * CELLS
        self._newest = self._oldest = int(now // self._width)
        self._ends_at = (self._newest + 1) * self._width  # of the newest cell
        self.frees_at = (self._oldest + CELLS) * self._width  # when the oldest cell expires, if it has units

    def try_take(self, now: float, cost: int, limit: int) -> bool:
        """Count *cost* units at *now* and return True, or count nothing when they would pass *limit*."""
        if now >= self._ends_at:
            self.advance(now)
        if self.taken + cost > limit:
            return False
        self._cells[self._newest % CELLS] += cost
        self.taken += cost
        return True

    def advance(self, now: float) -> None:
        """Drop the cells that have expired at *now*."""
        tick = int(now // self._width)
        if tick <= self._newest:
            return
        cells, expired = self._cells, min(tick - CELLS, self._newest)
        for old in range(self._oldest, expired + 1):
            self.taken -= cells[old % CELLS]
            cells[old % CELLS] = 0
        self._newest = tick
        self._ends_at = (tick + 1) * self._width
        self._oldest = max(self._oldest, tick - CELLS + 1) if self.taken else tick
        while not cells[self._oldest % CELLS] and self._oldest < tick:
            self._oldest += 1
        self.frees_at = (self._oldest + CELLS) * self._width

    def resized(self, window_seconds: int, now: float) -> Self:
        """Return a window of another length in which all units that still count are counted at *now*.

        An empty window would admit the limit twice.
        """
        self.advance(now)
        window = type(self)(window_seconds, now)
        window.try_take(now, self.taken, self.taken)
        return window

    def frees_in(self, now: float, units: int = 1) -> float:
        """Return the seconds from *now* until *units* of those taken have expired; 0.0 when fewer are taken."""
        freed = 0
        for tick in range(self._oldest, self._newest + 1):
            freed += self._cells[tick % CELLS]
            if freed and freed >= units:
                return (tick + CELLS) * self._width - now
        return 0.0
