"""Counting decisions: in memory at the time, in the store a second later at most.

`record` is on the way of every request. It awaits nothing and makes nothing but a tuple, once a series has begun; the
first series after a flush sets the alarm for the next whole second of the wall clock, so that a batch is of one minute
and nothing is done where nothing is counted. A batch that could not be stored is counted on with the next. One whose
commit was not answered is stored again: rather twice than never.
"""

import asyncio
import logging
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple

from machpay_gateway.core.decision.principal import Anonymous, Principal
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import GatewayError, Unavailable, describe_error
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
from machpay_gateway.core.usage.ports import UsageSink
from machpay_gateway.singleflight import SingleFlight
from machpay_gateway.telemetry.metrics import NONE, RequestCounts

logger = logging.getLogger(__name__)

_FLUSH_SECONDS = 1.0
_DROP_SECONDS = 3600.0
_NO_STATUS = 0  # of an application that answered by something that is no status
_COUNTS = len(BOUNDS) + 1
_SECONDS, _ENDED = _COUNTS, _COUNTS + 1  # where in a series, after the counts of its histogram
# More than one process serves in a second, so that it is reached in an outage alone: then some 20 MB.
_MOST_SERIES = 20_000

_SeriesKey = tuple[Principal | str | None, str | None, str, object]  # whose, or of which tier


class RecordedOutage(NamedTuple):
    """Since when usage cannot be stored, in seconds since the epoch, and why: for operators alone."""

    since: float
    reason: str


class UsageRecorder:
    """Counts decisions, and hands them to *store* in batches. Closing it stores what is left."""

    def __init__(
        self,
        store: UsageSink,
        *,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.perf_counter,
        most_series: int = _MOST_SERIES,
        clean_up: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Count nothing yet. *clean_up* is called when old usage is dropped, once an hour: there is one such round.

        *clock* is in seconds since the epoch, *timer* in seconds that never go back.

        Past *most_series*, what is new is counted as nobody's, without its route: the totals stay true.
        """
        self._store = store
        self._clock = clock
        self._timer = timer
        self._most_series = most_series
        self._clean_up = clean_up
        self._live: dict[_SeriesKey, list[float]] = {}
        self._live_since = 0.0
        self._rows: dict[UsageKey, UsageRow] = {}
        self._uses: dict[bytes, SecretUse] = {}
        self._accounts: dict[str, str] = {}  # of the subjects in rows
        self.requests = RequestCounts()
        self.unstored = 0  # requests that are gathered, and in no batch that was stored
        self._flushes = SingleFlight(self._flush, failed=self._log_outage)
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self.outage: RecordedOutage | None = None
        self._dropped_at = float("-inf")

    def open(self) -> None:
        """Go on to store what is counted, in this event loop. It is open from the start: there may be no lifespan."""
        self._is_closed = False
        if self._live or self._rows:
            self._set_alarm()

    async def close(self) -> None:
        """Store what is left. What is counted from now on stays in memory until it is opened again."""
        self._is_closed = True
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        try:
            while self._live or self._rows or self._uses or self._flushes.is_under_way(None):
                await self._flushes.join(None)
        except Unavailable:
            self.gather()
            logger.exception("%d requests are not in the stored usage.", self.unstored)

    def record(
        self,
        principal: Principal | Anonymous | None,
        route: Route | None,
        outcome: str,
        status: object,
        began_at: float,
    ) -> None:
        """Count a decision whose request *began_at*, by `time.perf_counter`, and has ended now.

        The *status* is what an application gave as such.
        Whoever is neither a key nor an app is nobody, tokens of other issuers too.
        """
        ended_at = self._timer()
        seconds = ended_at - began_at
        # By the principal and not by its subject: that one is a secret's, and is hashed at no cost.
        key = (
            None if not isinstance(principal, Principal) else principal if principal.kind != "jwt" else principal.tier,
            None if route is None else route.match,
            outcome,
            status,
        )
        series = self._live.get(key)
        if series is None:
            series = self._begin(key)
        series[bisect_left(BOUNDS, seconds)] += 1
        series[_SECONDS] += seconds
        series[_ENDED] = ended_at

    def _begin(self, key: _SeriesKey) -> list[float]:
        if not self._live:
            self._live_since = self._clock()
        self._set_alarm()
        if len(self._live) >= self._most_series:
            key = (None, None, key[2], _known_status(key[3]))
        return self._live.setdefault(key, [0] * _COUNTS + [0.0, 0.0])

    def _set_alarm(self) -> None:
        """Flush at the next whole second. An alarm of another event loop may never ring: it may be closed."""
        loop = asyncio.get_running_loop()
        if self._is_closed or (self._alarm is not None and self._alarm_loop is loop):
            return
        delay = _FLUSH_SECONDS - self._clock() % _FLUSH_SECONDS
        self._alarm, self._alarm_loop = loop.call_later(delay, self._ring), loop

    def _ring(self) -> None:
        self._alarm = None
        self._flushes.begin(None)

    async def _flush(self, _: None) -> None:
        batch = self._taken()
        try:
            await self._store.add_usage(batch)
        except BaseException:
            self._put_back(batch)
            raise
        else:
            self.unstored -= sum(row.count for row in batch.rows)
            self._log_answer()
            await self._drop_old()
        finally:
            if self._live or self._rows:
                self._set_alarm()

    async def _drop_old(self) -> None:
        now = self._clock()
        if now - self._dropped_at >= _DROP_SECONDS:
            await self._store.drop_usage(now)
            if self._clean_up is not None:
                await self._clean_up()
            self._dropped_at = now

    def _taken(self) -> UsageBatch:
        """Return all that was counted, and begin anew."""
        self.gather()
        batch = UsageBatch(tuple(self._rows.values()), tuple(self._uses.values()), self._accounts)
        self._rows, self._uses, self._accounts = {}, {}, {}
        return batch

    def gather(self) -> None:
        """Have `requests` tell all that was counted; make rows of it, and of its principals the uses of secrets."""
        live, self._live = self._live, {}
        start = MINUTE.start_of(self._live_since)
        epoch = self._clock() - self._timer()  # of the timer, in seconds since the epoch
        for (whose, route, outcome, status), series in live.items():
            subject, tier = (whose.subject, whose.tier) if isinstance(whose, Principal) else (NO_SUBJECT, whose or NONE)
            if isinstance(whose, Principal):
                if whose.account_id is not None:
                    self._accounts[subject] = whose.account_id
                self._note(whose, epoch + series[_ENDED])
            key = UsageKey(subject, start, route or "", str(outcome), _known_status(status))
            row = UsageRow(key, series[_SECONDS], tuple(map(int, series[:_COUNTS])))
            self._count(row)
            self.unstored += row.count
            self.requests.add(tier, row)

    def _put_back(self, batch: UsageBatch) -> None:
        for row in batch.rows:
            self._count(row)
        self._accounts.update(batch.accounts)
        for use in batch.uses:
            self._keep(use)

    def _count(self, row: UsageRow) -> None:
        if row.key not in self._rows and len(self._rows) >= self._most_series:
            # By the day: by the minute even nobody's would be without bound.
            start = DAY.start_of(row.key.start)
            row = replace(row, key=row.key._replace(subject=NO_SUBJECT, start=start, route=""))
        known = self._rows.get(row.key)
        self._rows[row.key] = row if known is None else known.plus(row)

    def _note(self, principal: Principal, at: float) -> None:
        if principal.secret_digest is not None:
            self._keep(SecretUse(principal.secret_digest, principal.id, at))

    def _keep(self, use: SecretUse) -> None:
        known = self._uses.get(use.digest)
        if (known is None and len(self._uses) < self._most_series) or (known is not None and known.at < use.at):
            self._uses[use.digest] = use

    def _log_outage(self, error: BaseException) -> None:
        # Once for an outage, not once a second.
        if self.outage is None:
            reason = describe_error(error) if isinstance(error, GatewayError) else str(error)
            self.outage = RecordedOutage(self._clock(), reason)
            logger.warning("Usage cannot be stored; it is kept and tried again every second.", exc_info=error)

    def _log_answer(self) -> None:
        if self.outage is not None:
            self.outage = None
            logger.warning("Usage is stored again.")


def _known_status(status: object) -> int:
    """Return *status*, unless an application made it up: it must not end a batch, nor make rows without bound."""
    return int(status) if isinstance(status, int) and 100 <= status <= 999 else _NO_STATUS  # noqa: PLR2004 - RFC 9110 §15
