"""What a worker admits by itself while no server answers: its share of the limits, in the same arithmetic."""

from collections.abc import Mapping, Sequence
from math import ceil

from machpay_gateway.core.limits.counters import Counters
from machpay_gateway.core.limits.rate import Limits


class LocalShare(Counters):
    """One worker's share of a subject's limits.

    It starts from the last reply of the server: the same share of the units taken then counts here, as of the time of
    that reply. So an outage does not hand out a second window over all workers.
    """

    __slots__ = ("_before", "_before_expires", "_reported", "of", "workers")

    def __init__(
        self,
        limits: Limits,
        workers: int,
        left: Sequence[int] | None,
        *,
        updated_at: float,
        now: float,
        today: float,
    ) -> None:
        """Start one of *workers* shares of *limits*; *left* is what the server's last reply had left of each.

        That was at *updated_at*; None when it is unknown. Then quotas have no count until `seed` gives them one.
        """
        started_at = now if left is None else min(updated_at, now)
        super().__init__(limits.local_share(workers), started_at, today)
        self.of = limits
        self.workers = workers
        self._reported: dict[str, int] = {}
        self._before = dict.fromkeys((limit.name for limit in limits.counted), 0)
        if left is not None:
            self._before = {
                limit.name: ceil((limit.limit - units) / workers)
                for limit, units in zip(limits.counted, left, strict=True)
            }
        for rate, window in zip(limits.rates, self.windows, strict=True):
            window.take(started_at, self._before[rate.name])
        self._before_expires = {
            rate.name: started_at + window.frees_in(started_at)
            for rate, window in zip(limits.rates, self.windows, strict=True)
        }
        if left is not None:
            self.seed([self._before[quota.name] for quota in limits.quotas])

    def follow(self, limits: Limits, now: float, today: float) -> None:
        """Count by this worker's share of other *limits*."""
        self.of = limits
        self.change(limits.local_share(self.workers), now, today)

    def seed_stored(self, taken: Sequence[int]) -> None:
        """Let each quota without a count have this worker's share of *taken*, by the stored counts."""
        shares = [ceil(units / self.workers) for units in taken]
        self._before |= {quota.name: units for quota, units in zip(self.of.quotas, shares, strict=True)}
        self.seed(shares)

    def take_backlog(self, now: float, today: float) -> Mapping[str, int]:
        """Return the units admitted here that still count and were not returned before: the server must count them."""
        self.advance(now, today)
        backlog: dict[str, int] = {}
        counts = {rate.name: window.taken for rate, window in zip(self.of.rates, self.windows, strict=True)}
        counts |= {count.quota.name: count.taken for count in self.quotas}
        for name, taken in counts.items():
            is_expired = now >= self._before_expires.get(name, float("inf"))
            admitted = taken - (0 if is_expired else self._before.get(name, 0))
            if (units := admitted - self._reported.get(name, 0)) > 0:
                backlog[name] = units
                self._reported[name] = self._reported.get(name, 0) + units
        return backlog
