"""Usage recording: decisions are counted in memory, and stored in batches every few seconds.

`record` is called for every request. It awaits nothing, and for an existing series it allocates only a tuple. The first
series after a flush sets a timer for a moment of the wall clock that all workers share, or the end of the minute, so
that a batch belongs to one minute and an idle process does nothing. A batch of many rows and few requests waits until
it has more requests, or until its minute ends. A batch that could not be stored is merged into the next one. A batch
whose commit was not confirmed is stored again: counted twice rather than lost.
"""

import asyncio
import logging
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from typing import NamedTuple

from machpay_gateway.core.decision.principal import Anonymous, Principal
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import GatewayError, Unavailable, describe_error
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.core.usage.counters import (
    BOUNDS,
    DAY,
    MINUTE,
    NO_SUBJECT,
    SecretUse,
    UsageBatch,
    UsageKey,
    UsageRow,
)
from machpay_gateway.core.usage.outcome import RequestOutcome, policies_of
from machpay_gateway.core.usage.ports import UsageSink
from machpay_gateway.log_throttle import LogThrottle
from machpay_gateway.singleflight import SingleFlight
from machpay_gateway.telemetry.metrics import NONE, RequestCounts
from machpay_gateway.telemetry.unknown_tiers import UnknownTiers

logger = logging.getLogger(__name__)

_DROP_SECONDS = 3600.0
_USE_SECONDS = 60.0  # the last use of a secret is stored at most that often
# A batch of fewer rows is stored when it is due. One of more waits for so many requests a row: each row is a row write.
_FEW_ROWS = 20
_REQUESTS_PER_ROW = 20
_RECORDED = ("api_key", "session", "oauth")  # kinds of callers of which there is a record
_NO_STATUS = 0  # for a response of an application without a valid status
_COUNTS = len(BOUNDS) + 1
_SECONDS, _ENDED = _COUNTS, _COUNTS + 1  # indexes in a series, after the counts of its histogram
# Half of them are stored at once, so that only an outage reaches it: then some 50 MB.
_MAX_SERIES = 50_000

# Principal or tier, route, outcome, status.
_SeriesKey = tuple[Principal | str | None, str | None, RequestOutcome, object]


class RecordedOutage(NamedTuple):
    """When storing usage began to fail, in seconds since the epoch, and why; for operators only."""

    since: float
    reason: str


class _StoredUse(NamedTuple):
    """When a use of a secret was stored, and at which version of its key."""

    stored_at: float
    version: int


class UsageRecorder:
    """Counts decisions, and stores them in batches. Closing it stores the rest."""

    def __init__(
        self,
        store: UsageSink,
        *,
        seconds: float = 5.0,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.perf_counter,
        max_series: int = _MAX_SERIES,
        clean_up: Callable[[], Awaitable[None]] | None = None,
        tiers: Collection[str] = TIERS,
    ) -> None:
        """Start with nothing counted. What is counted is stored every *seconds*, at most 60.

        *clean_up* is called once an hour, when old usage is dropped.
        *tiers* are the configured ones: callers with others are counted and logged, too.
        *clock* is in seconds since the epoch, *timer* in seconds of a monotonic clock. Beyond *max_series*, new series
        are counted without caller and route, so that the totals stay right.
        """
        self._store = store
        self._seconds = float(seconds)
        self._clock = clock
        self._timer = timer
        self._max_series = max_series
        self._clean_up = clean_up
        self.unknown_tiers = UnknownTiers(tiers, clock=timer)
        self._live: dict[_SeriesKey, list[float]] = {}
        self._live_since = 0.0
        self._rows: dict[UsageKey, UsageRow] = {}
        self._uses: dict[bytes, tuple[SecretUse, int]] = {}  # with the version of the key
        self._uses_stored: dict[bytes, _StoredUse] = {}  # by digest, of the last _USE_SECONDS
        self._accounts: dict[str, str] = {}  # by the subjects in rows
        self.requests = RequestCounts()
        self.unstored = 0  # gathered requests that no stored batch has
        self._flushes = SingleFlight(self._flush, failed=self._log_outage)
        self._flush_timer: asyncio.TimerHandle | None = None
        self._timer_loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self.outage: RecordedOutage | None = None
        self._throttle = LogThrottle(logger)
        self._dropped_at = float("-inf")

    def open(self) -> None:
        """Resume storing, in this event loop. A new recorder is open: an application may have no lifespan."""
        self._is_closed = False
        if self._has_unstored:
            self._schedule_flush()

    @property
    def _has_unstored(self) -> bool:
        return bool(self._live or self._rows or self._uses)

    async def close(self) -> None:
        """Store the rest. Later counts stay in memory until `open` is called."""
        self._is_closed = True
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        try:
            while self._has_unstored or self._flushes.is_under_way(None):
                await self._flushes.join(None)
        except Unavailable:
            self.gather()
            logger.exception("%d requests are missing from the stored usage.", self.unstored)

    def record(
        self,
        principal: Principal | Anonymous | None,
        route: Route | None,
        outcome: RequestOutcome,
        status: object,
        began_at: float,
    ) -> None:
        """Count a request that *began_at*, by `time.perf_counter`, and ends now.

        *status* is whatever the application sent. Callers of which there is no record are counted as one.
        """
        ended_at = self._timer()
        seconds = ended_at - began_at
        # The principal instead of its subject: hashing by identity costs less, and each secret has its own principal.
        key = (
            None
            if not isinstance(principal, Principal)
            else principal
            if principal.kind in _RECORDED
            else principal.tier,
            None if route is None else route.match,
            outcome,
            status,
        )
        series = self._live.get(key)
        if series is None:
            series = self._new_series(key)
        series[bisect_left(BOUNDS, seconds)] += 1
        series[_SECONDS] += seconds
        series[_ENDED] = ended_at

    def _new_series(self, key: _SeriesKey) -> list[float]:
        if not self._live:
            self._live_since = self._clock()
        self._schedule_flush()
        if len(self._live) == self._max_series // 2:
            self._flush_early()
        if len(self._live) >= self._max_series:
            key = (None, None, key[2], _valid_status(key[3]))
        return self._live.setdefault(key, [0] * _COUNTS + [0.0, 0.0])

    def _schedule_flush(self) -> None:
        """Flush when it is due. A timer of another event loop does not count: that loop may be closed."""
        loop = asyncio.get_running_loop()
        if self._is_closed or (self._flush_timer is not None and self._timer_loop is loop):
            return
        now = self._clock()
        delay = min(self._seconds - now % self._seconds, MINUTE.seconds - now % MINUTE.seconds)
        self._flush_timer, self._timer_loop = loop.call_later(delay, self._start_flush), loop

    def _flush_early(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._start_flush()

    def _start_flush(self) -> None:
        self._flush_timer = None
        self._flushes.begin(None)

    async def _flush(self, _: None) -> None:
        try:
            self.gather()
            batch = self._take_due()
            if batch.rows or batch.uses:
                await self._store_batch(batch)
        finally:
            if self._has_unstored:
                self._schedule_flush()

    async def _store_batch(self, batch: UsageBatch) -> None:
        try:
            await self._store.add_usage(batch)
        except BaseException:
            self._put_back(batch)
            raise
        self.unstored -= sum(row.count for row in batch.rows)
        self._log_answer()
        await self._drop_old()

    async def _drop_old(self) -> None:
        now = self._clock()
        if now - self._dropped_at >= _DROP_SECONDS:
            await self._store.drop_usage(now)
            if self._clean_up is not None:
                await self._clean_up()
            self._dropped_at = now

    def _take_due(self) -> UsageBatch:
        """Return what is to be stored now of what was gathered, and start a new batch."""
        rows: dict[UsageKey, UsageRow] = {}
        accounts: dict[str, str] = {}
        if self._are_rows_due():
            rows, self._rows = self._rows, rows
            accounts, self._accounts = self._accounts, accounts
        return UsageBatch(tuple(rows.values()), self._take_due_uses(), accounts)

    def _are_rows_due(self) -> bool:
        rows = len(self._rows)
        if self._is_closed or rows <= _FEW_ROWS or rows >= self._max_series // 2:
            return True
        if self.unstored >= _REQUESTS_PER_ROW * rows:
            return True
        oldest = next(iter(self._rows))
        return oldest.start < MINUTE.start_of(self._clock())

    def _take_due_uses(self) -> tuple[SecretUse, ...]:
        now = self._clock()
        stored = self._uses_stored = {
            digest: use for digest, use in self._uses_stored.items() if now - use.stored_at < _USE_SECONDS
        }
        due = [digest for digest, (_, version) in self._uses.items() if self._is_due(stored.get(digest), version)]
        uses = []
        for digest in due:
            use, version = self._uses.pop(digest)
            stored[digest] = _StoredUse(now, version)
            uses.append(use)
        return tuple(uses)

    def _is_due(self, stored: _StoredUse | None, version: int) -> bool:
        """Return whether to store a use; so is the first since a change of the key: who rotates it waits for it."""
        return self._is_closed or stored is None or stored.version != version

    def gather(self) -> None:
        """Move the counts of live series to `requests`, to rows, and to the last uses of secrets."""
        live, self._live = self._live, {}
        configured = self.unknown_tiers.configured
        start = MINUTE.start_of(self._live_since)
        epoch = self._clock() - self._timer()  # when the timer was 0, in seconds since the epoch
        for (caller, route, outcome, status), series in live.items():
            subject, tier = NO_SUBJECT, NONE
            if isinstance(caller, Principal):
                subject, tier = caller.subject, caller.tier
                if caller.account_id is not None:
                    self._accounts[subject] = caller.account_id
                self._add_use_of(caller, epoch + series[_ENDED])
                if tier not in configured or caller.account_tier not in configured:
                    self.unknown_tiers.add(caller, int(sum(series[:_COUNTS])))
            elif caller is not None:
                tier = caller
            key = UsageKey(subject, start, route or "", str(outcome), _valid_status(status))
            row = UsageRow(key, series[_SECONDS], tuple(map(int, series[:_COUNTS])))
            self._count(row)
            self.unstored += row.count
            self.requests.add(tier, row, policies_of(outcome))

    def _put_back(self, batch: UsageBatch) -> None:
        for row in batch.rows:
            self._count(row)
        self._accounts.update(batch.accounts)
        for use in batch.uses:
            stored = self._uses_stored.pop(use.digest, None)
            self._add_use(use, 0 if stored is None else stored.version)

    def _count(self, row: UsageRow) -> None:
        if row.key not in self._rows and len(self._rows) >= self._max_series:
            # By the day, because a row for each minute would have no bound.
            start = DAY.start_of(row.key.start)
            row = replace(row, key=row.key._replace(subject=NO_SUBJECT, start=start, route=""))
        total = self._rows.get(row.key)
        self._rows[row.key] = row if total is None else total.plus(row)

    def _add_use_of(self, principal: Principal, at: float) -> None:
        if principal.secret_digest is not None:
            self._add_use(SecretUse(principal.secret_digest, principal.id, at), principal.version)

    def _add_use(self, use: SecretUse, version: int) -> None:
        last = self._uses.get(use.digest)
        if (last is None and len(self._uses) < self._max_series) or (last is not None and last[0].at < use.at):
            self._uses[use.digest] = use, version

    def _log_outage(self, error: BaseException) -> None:
        # Once for each outage, not at every try.
        if self.outage is None:
            reason = describe_error(error) if isinstance(error, GatewayError) else str(error)
            self.outage = RecordedOutage(self._clock(), reason)
            self._throttle.log(
                logging.WARNING, "Usage cannot be stored; the gateway retries every %g s.", self._seconds, error=error
            )

    def _log_answer(self) -> None:
        if self.outage is not None:
            self.outage = None
            self._throttle.log(logging.WARNING, "Usage is stored again.")


def _valid_status(status: object) -> int:
    """Return *status* if it is valid: other values could fail a batch, or make any number of rows."""
    return int(status) if isinstance(status, int) and 100 <= status <= 999 else _NO_STATUS  # noqa: PLR2004 - RFC 9110 §15
