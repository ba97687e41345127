"""The counters of one subject: the reference for what every limiter decides, in plain arithmetic."""

from collections.abc import Sequence

from machpay_gateway.core.limits.calendar import Period, period_at
from machpay_gateway.core.limits.rate import Limits, Quota, Rate
from machpay_gateway.core.limits.window import CellWindow


class Counters:
    """Windows, quotas and requests in flight of one subject. Mutable: every request counts in it.

    *now* is seconds on a monotonic clock, *today* seconds since the epoch. A quota has no count until `seed` gives it
    one.
    """

    __slots__ = ("_other_quotas", "in_flight", "limits", "quotas", "windows")

    def __init__(self, limits: Limits, now: float, today: float) -> None:
        self.limits = limits
        self.windows = [CellWindow(rate.window_seconds, now) for rate in limits.rates]
        self.quotas = [QuotaCount(quota, today) for quota in limits.quotas]
        self._other_quotas: list[QuotaCount] = []  # of earlier limits
        self.in_flight = 0

    def change(self, limits: Limits, now: float, today: float) -> None:
        """Count by other *limits* from *now* on.

        A window of the same length stays. A new one has the units of the fullest so far, counted at *now*: an empty one
        would admit its limit again. A quota that comes back goes on from its count.
        """
        self.advance(now, today)
        windows = {window.window_seconds: window for window in self.windows}
        fullest = max((window.taken for window in self.windows), default=0)
        self.windows = [windows.get(rate.window_seconds) or _filled(rate, fullest, now) for rate in limits.rates]
        counts = {count.quota.name: count for count in (*self.quotas, *self._other_quotas)}
        self.quotas = [
            counts.pop(quota.name) if quota.name in counts else QuotaCount(quota, today) for quota in limits.quotas
        ]
        self._other_quotas = list(counts.values())
        for count, quota in zip(self.quotas, limits.quotas, strict=True):
            count.quota = quota
        self.limits = limits

    def advance(self, now: float, today: float) -> None:
        """Drop what has expired."""
        for window in self.windows:
            window.advance(now)
        for count in self.quotas:
            count.advance(today)

    def has_room(self, now: float, cost: int) -> bool:
        """Return whether every limit has room for a request of *cost*; quotas as of the last `advance`."""
        limits = self.limits
        for index, window in enumerate(self.windows):
            if not window.has_room(now, cost, limits.rates[index].limit):
                return False
        for count in self.quotas:
            if count.taken + cost > count.quota.limit:
                return False
        return limits.concurrency is None or self.in_flight < limits.concurrency

    def take(self, now: float, today: float, units: int) -> None:
        """Take *units* of every window and quota, even where that overdraws them."""
        for window in self.windows:
            window.take(now, units)
        for count in self.quotas:
            count.advance(today)
            count.taken += units

    def levels(self, now: float, today: float) -> list[float]:
        """Return what is left, as `Plan` lays it out; below 0 where it is overdrawn. As of the last `advance`."""
        limits = self.limits
        levels: list[float] = []
        for index, window in enumerate(self.windows):
            levels += (limits.rates[index].limit - window.taken, window.frees_at - now if window.taken else 0.0)
        for count in self.quotas:
            levels += (count.quota.limit - count.taken, count.period.ends - today)
        if limits.concurrency is not None:
            levels.append(limits.concurrency - self.in_flight)
        return levels

    def wait_seconds(self, now: float, today: float, cost: int) -> float:
        """Return in how many seconds every rate and quota has room for *cost*; 0 when they have, or never will."""
        waits = [0.0]
        for window, rate in zip(self.windows, self.limits.rates, strict=True):
            if window.taken + cost > rate.limit:
                waits.append(window.frees_in(now, window.taken + cost - rate.limit))
        waits += [count.period.ends - today for count in self.quotas if count.taken + cost > count.quota.limit]
        return max(waits)

    def seed(self, taken: Sequence[int]) -> None:
        """Let each quota without a count have that of *taken*."""
        for count, units in zip(self.quotas, taken, strict=True):
            if not count.is_seeded:
                count.taken, count.is_seeded = count.taken + units, True

    def has_counts(self, today: float) -> bool:
        """Return whether every quota has a count, and advance them to *today*."""
        for count in self.quotas:
            count.advance(today)
            if not count.is_seeded:
                return False
        return True

    @property
    def is_seeded(self) -> bool:
        """Whether every quota has a count."""
        return all(count.is_seeded for count in self.quotas)


class QuotaCount:
    """The units taken of a *quota* in its present *period*. Mutable."""

    __slots__ = ("is_seeded", "period", "quota", "taken")

    def __init__(self, quota: Quota, today: float) -> None:
        self.quota = quota
        self.period: Period = period_at(quota.name, today)
        self.taken = 0
        self.is_seeded = False

    def advance(self, today: float) -> None:
        """Start the next period if *today* is in it. A clock that steps back stays in the period."""
        if today >= self.period.ends:
            self.period, self.taken, self.is_seeded = period_at(self.quota.name, today), 0, True


def _filled(rate: Rate, units: int, now: float) -> CellWindow:
    window = CellWindow(rate.window_seconds, now)
    window.take(now, units)
    return window
