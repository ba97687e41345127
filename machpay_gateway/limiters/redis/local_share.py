"""What a worker admits by itself while no server answers: its share of the limits, in the same arithmetic."""

from collections.abc import Mapping, Sequence
from math import ceil

from machpay_gateway.core.limits.counters import Counters, QuotaCount
from machpay_gateway.core.limits.rate import Limits
from machpay_gateway.limiters.quota_ledger import QuotaBatch
from machpay_gateway.limiters.redis.backlog import Backlog, Batches, batches_of, joined
from machpay_gateway.limiters.redis.share_registry import Count, Inherited, lasts


class LocalShare(Counters):
    """One worker's share of a subject's limits.

    It starts from the last reply of the server: the same share of the units taken then counts here, as of the time of
    that reply. So an outage does not hand out a second window over all workers.
    """

    __slots__ = (
        "_batches",
        "_before",
        "_before_expires",
        "_inherited_quotas",
        "_periods",
        "_reported",
        "of",
        "workers",
    )

    def __init__(
        self,
        limits: Limits,
        workers: int,
        left: Sequence[float] | None,
        inherited: Inherited | None = None,
        *,
        updated_at: float,
        now: float,
        today: float,
    ) -> None:
        """Start one of *workers* shares of *limits*; *left* is what the server's last reply had left of each.

        That was at *updated_at*; None when it is unknown. Then quotas have no count until `seed_stored` gives them one.
        What another process took of this share is *inherited*.
        """
        self._batches: dict[str, Batches] = {}  # of what is not reported, by quota
        started_at = now if left is None else min(updated_at, now)
        taken = dict.fromkeys((limit.name for limit in limits.counted), 0)
        unreported: Mapping[str, int] = {}
        if left is not None:
            for limit, units in zip(limits.counted, left, strict=True):
                taken[limit.name] = ceil((limit.limit - units) / workers)
        if inherited is not None:
            inherited_at = now - max(0.0, inherited.age)
            started_at = inherited_at if left is None else max(started_at, inherited_at)
            taken = {limit.name: max(taken[limit.name], inherited.units(limit)) for limit in limits.counted}
            unreported = {limit.name: inherited.unreported(limit) for limit in limits.counted}
            self._batches = batches_of(inherited.batches)
        super().__init__(limits.local_share(workers), started_at, today)
        self.of = limits
        self.workers = workers
        self._reported: dict[str, int] = {}
        self._periods = {count.quota.name: count.period for count in self.quotas}
        for rate, window in zip(limits.rates, self.windows, strict=True):
            window.take(started_at, taken[rate.name])
        self._before_expires = {
            rate.name: started_at + window.frees_in(started_at)
            for rate, window in zip(limits.rates, self.windows, strict=True)
        }
        self._inherited_quotas = {quota.name: taken[quota.name] for quota in limits.quotas}
        if left is not None:
            self.seed([taken[quota.name] for quota in limits.quotas])
        else:
            taken |= dict.fromkeys(self._inherited_quotas, 0)
        self._before = {name: units - unreported.get(name, 0) for name, units in taken.items()}

    def follow(self, limits: Limits, workers: int, now: float, today: float) -> None:
        """Count by the share of *limits* that one of *workers* has, if it is another one than before."""
        if limits is self.of and workers == self.workers:
            return
        self._scale_quotas(workers, today)
        self.of, self.workers = limits, workers
        self.change(limits.local_share(workers), now, today)

    def _scale_quotas(self, workers: int, today: float) -> None:
        """Keep the fraction of each quota that is left: others have the rest of it by what is stored."""
        for count in self.quotas:
            self._advance_quota(count, today)
            more = ceil(count.taken * self.workers / workers) - count.taken
            count.taken += more
            self._before[count.quota.name] = self._before.get(count.quota.name, 0) + more

    def fits(self, workers: int, now: float) -> bool:
        """Return whether what was taken of each rate fits into the share of one of *workers*."""
        for window in self.windows:
            window.advance(now)
        rates = self.of.local_share(workers).rates
        return all(window.taken <= rate.limit for window, rate in zip(self.windows, rates, strict=True))

    def counts(self, unreported: Mapping[str, int], today: float) -> Mapping[str, Count]:
        """Return what is taken of each limit by its name, and what of it is *unreported*."""
        most = max(unreported.values(), default=0)  # as in a step, for windows that are newer
        counts = {
            rate.name: Count(window.taken, unreported.get(rate.name, most), lasts(rate.window_seconds))
            for rate, window in zip(self.of.rates, self.windows, strict=True)
        }
        for count in self.quotas:
            units = unreported.get(count.quota.name, 0)
            counts[count.quota.name] = Count(count.taken, units, count.period.ends - today)
        return counts

    def seed_stored(self, taken: Sequence[int]) -> None:
        """Let each quota without a count have this worker's share of *taken*, by the stored counts."""
        shares = [
            max(ceil(units / self.workers), self._inherited_quotas.get(quota.name, 0))
            for quota, units in zip(self.of.quotas, taken, strict=True)
        ]
        for count, units in zip(self.quotas, shares, strict=True):
            if not count.is_seeded:
                self._before[count.quota.name] = self._before.get(count.quota.name, 0) + units
        self.seed(shares)

    def store_with(self, batch: QuotaBatch, units: int, today: float) -> None:
        """Remember that *units*, which were just taken, are stored with *batch*."""
        for count in self.quotas:
            self._advance_quota(count, today)
            name = count.quota.name
            self._batches[name] = joined(self._batches.get(name, {}), {batch: units})

    def take_counted(self, now: float, today: float, units: int) -> None:
        """Take *units* that the server decides about: for quotas, they are nothing to report."""
        self.take(now, today, units)
        for count in self.quotas:
            self._advance_quota(count, today)
            self._before[count.quota.name] = self._before.get(count.quota.name, 0) + units

    def take_backlog(self, now: float, today: float) -> Backlog:
        """Return the units admitted here that still count and were not returned before: the server must count them."""
        self.advance(now, today)
        for count in self.quotas:
            self._advance_quota(count, today)
        backlog: dict[str, int] = {}
        counts = {rate.name: window.taken for rate, window in zip(self.of.rates, self.windows, strict=True)}
        counts |= {count.quota.name: count.taken for count in self.quotas}
        for name, taken in counts.items():
            is_expired = now >= self._before_expires.get(name, float("inf"))
            admitted = taken - (0 if is_expired else self._before.get(name, 0))
            if (units := admitted - self._reported.get(name, 0)) > 0:
                backlog[name] = units
                self._reported[name] = self._reported.get(name, 0) + units
        stored, self._batches = self._batches, {}
        batches = {name: of_one for name, of_one in stored.items() if sum(of_one.values()) <= backlog.get(name, 0)}
        return Backlog(backlog, batches)

    def _advance_quota(self, count: QuotaCount, today: float) -> None:
        """Let what was taken or reported in an earlier period of *count* be no part of the present one."""
        count.advance(today)
        name = count.quota.name
        if self._periods.setdefault(name, count.period) != count.period:
            self._periods[name] = count.period
            self._before[name] = self._reported[name] = 0
            self._batches.pop(name, None)
