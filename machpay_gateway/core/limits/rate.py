"""The arithmetic of quotas: tiers in `limits` notation, and the window of strict cells.

A window of 60 s is 61 counters of one second. The oldest, partly expired one counts whole: so whatever 60 seconds
one looks at, all of them lie within counted cells, and never more than the limit was admitted (rule 1 of a quota).
The price is that a unit frees up to one cell late (rule 2). Both hold for any window; a cell is its 60th part.
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
_PER_MINUTE = re.compile(r"([0-9]{1,18})/minute")


@dataclass(frozen=True, slots=True)
class Tier:
    """How much a subject may do: *rate* in `limits` notation (`"1000/minute"`), and requests at the same time.

    Raises ConfigurationError when *rate* is not a rate or *concurrency* is below 1.
    """

    rate: str
    concurrency: int
    limit: int = field(init=False, repr=False)
    window_seconds: int = field(init=False, repr=False)
    policy_name: str = field(init=False, repr=False)
    policy_field: tuple[bytes, bytes] = field(init=False, repr=False)  # RateLimit-Policy, the same for every answer
    left_format: bytes = field(init=False, repr=False)  # RateLimit, with places for r, t and the slots' r

    def __post_init__(self) -> None:
        limit, window_seconds, name = parse_rate(self.rate)
        if type(self.concurrency) is not int or not 1 <= self.concurrency <= MAX_CONCURRENCY:
            raise ConfigurationError(
                f"Concurrency {self.concurrency!r} is not a number of requests: use 1 to {MAX_CONCURRENCY}"
            )
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

    def part_of(self, workers: int) -> Self:
        """Return what each of *workers* may do when they cannot ask each other: an equal part, and at least 1."""
        _, per, window = self.rate.replace(" per ", "/").partition("/")
        return type(self)(f"{max(1, self.limit // workers)}{per}{window}", max(1, self.concurrency // workers))


def parse_rate(rate: str) -> tuple[int, int, str]:
    """Return the limit, the window in seconds and the window's name of *rate*, in `limits` notation.

    Raises ConfigurationError when it is not a rate.
    """
    if (per_minute := _PER_MINUTE.fullmatch(str(rate))) is not None:
        # The form of the defaults. `limits` reads it alike, but importing that library takes 80 ms.
        _check_limit(rate, int(per_minute[1]))
        return int(per_minute[1]), 60, "minute"
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
        raise ConfigurationError(f"Rate {rate!r} admits nothing that can be counted: use 1 to {MAX_LIMIT} per window")


TIERS: Mapping[str, Tier] = {
    "test": Tier("100/minute", 5),
    "standard": Tier("1000/minute", 50),
    "enterprise": Tier("10000/minute", 500),
}


class CellWindow:
    """One subject's window: 61 counters and their running total. Mutable, because it is counted in on every request.

    Times are seconds on any clock that only goes forward; a clock that steps back stands still here.
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
        self.frees_at = (self._oldest + CELLS) * self._width  # when the oldest cell's units free, if there are any

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
        """Forget what no longer counts at *now*."""
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
        """Return a window of another length in which all that still counts is counted as of *now*.

        A fresh window would admit the limit twice.
        """
        self.advance(now)
        window = type(self)(window_seconds, now)
        window.try_take(now, self.taken, self.taken)
        return window

    def frees_in(self, now: float, units: int = 1) -> float:
        """Return the seconds from *now* until *units* of what is taken no longer count; 0.0 when nothing is taken."""
        freed = 0
        for tick in range(self._oldest, self._newest + 1):
            freed += self._cells[tick % CELLS]
            if freed and freed >= units:
                return (tick + CELLS) * self._width - now
        return 0.0
