"""The units that quotas have admitted, stored within a second: what counts start from where no limiter holds them."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from machpay_gateway.core.errors import Unavailable
from machpay_gateway.core.limits.calendar import DAY_SECONDS, period_at
from machpay_gateway.core.limits.ports import QuotaStore, StoredUnits
from machpay_gateway.core.limits.rate import Quota
from machpay_gateway.log_throttle import LogThrottle
from machpay_gateway.singleflight import SingleFlight

logger = logging.getLogger(__name__)

_FLUSH_SECONDS = 1.0


class QuotaBatch:
    """Units that are stored together: once they are, it has a *number*. Mutable."""

    __slots__ = ("number",)

    def __init__(self, number: int | None = None) -> None:
        self.number = number


class QuotaLedger:
    """Counts units by subject and day in memory, and stores the sums every second; closing it stores the rest.

    A sum that could not be stored is added to the next one. One whose commit was not confirmed is stored again: counted
    twice rather than lost.
    """

    def __init__(self, store: QuotaStore, *, clock: Callable[[], float] = time.time) -> None:
        """Store in *store*. *clock* is in seconds since the epoch."""
        self._store = store
        self._clock = clock
        self._units: Counter[tuple[str, int]] = Counter()
        self._batches: list[QuotaBatch] = []  # of what is not stored; what is counted now goes with the last one
        self._flushes = SingleFlight(self._flush, failed=self._log_outage)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_loop: asyncio.AbstractEventLoop | None = None
        self._is_away = False
        self._throttle = LogThrottle(logger)

    def count(self, subject: str, units: int) -> QuotaBatch:
        """Count *units* of *subject*, now. Returns the batch with which they are stored."""
        self._units[subject, int(self._clock() // DAY_SECONDS)] += units
        if not self._batches:
            self._batches.append(QuotaBatch())
        loop = asyncio.get_running_loop()
        # A timer of another event loop does not count: that loop may be closed.
        if self._timer is None or self._timer_loop is not loop:
            self._timer, self._timer_loop = loop.call_later(_FLUSH_SECONDS, self._start_flush), loop
        return self._batches[-1]

    async def taken(self, subject: str, quotas: Sequence[Quota]) -> list[StoredUnits]:
        """Return the units of *subject* in the present period of each of *quotas*. Raises StoreUnavailable."""
        for _ in range(2):  # a flush that has begun already may lack what was counted since
            await self._flushes.join(None)
        today = self._clock()
        return [
            await self._store.quota_units(subject, period_at(quota.name, today).begins // DAY_SECONDS)
            for quota in quotas
        ]

    async def close(self) -> None:
        """Store the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            while self._units or self._flushes.is_under_way(None):
                await self._flushes.join(None)
        except Unavailable:
            logger.exception("%d units are missing from the stored quotas.", sum(self._units.values()))

    def _start_flush(self) -> None:
        self._timer = None
        self._flushes.begin(None)

    async def _flush(self, _: None) -> None:
        units, self._units = self._units, Counter()
        if not units:
            return
        batches, self._batches = self._batches, []
        rows = [(subject, day, count) for (subject, day), count in units.items()]
        try:
            number = await self._store.add_quota_units(rows, self._clock())
        except BaseException:
            self._units.update(units)
            self._batches = batches + self._batches
            raise
        for batch in batches:
            batch.number = number
        self._is_away = False

    def _log_outage(self, error: BaseException) -> None:
        if not self._is_away:
            self._is_away = True
            self._throttle.log(
                logging.WARNING, "Quotas cannot be stored; the gateway retries every second.", error=error
            )
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer, self._timer_loop = loop.call_later(_FLUSH_SECONDS, self._start_flush), loop
