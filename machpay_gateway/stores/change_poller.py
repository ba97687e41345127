"""Follows the log of changes: in the background, twice a second while requests arrive, else on demand.

So a change made by any process takes effect within a second. Changes have a sequence, so none depends on a clock: each
is read once, and a log with another history, as after a restored backup, is noticed. While the store does not answer,
cached records are trusted for a while.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from machpay_gateway.core.errors import GatewayError, Unavailable, describe_error
from machpay_gateway.core.keys.audit import AuditHead
from machpay_gateway.core.keys.ports import ChangePage
from machpay_gateway.log_throttle import LogThrottle
from machpay_gateway.singleflight import SingleFlight
from machpay_gateway.stores.lookup_queue import Breaker, finish_within

logger = logging.getLogger(__name__)

TRUST_SECONDS = 5.0
_SYNC_SECONDS = 0.5
_FRESH_SECONDS = 1.0
_PATIENCE_SECONDS = 0.25  # for a slow store, while cached records are trusted
_POLL_SECONDS = 1.0  # for one page
_MOST_REMEMBERED = 50_000  # changed ids in a generation, of which there are two

LoadChanges = Callable[[AuditHead | None], Awaitable[ChangePage]]


class ChangePoller:
    """Polls changes by *load*, which returns the page after a place in the log.

    A record is read with the `number` of before: `is_changed` tells whether a change was noted since. Numbers below the
    `floor` are too old to tell: they count as changed.
    """

    def __init__(
        self,
        load: LoadChanges,
        *,
        clock: Callable[[], float],
        trust_seconds: float = TRUST_SECONDS,
        on_replaced: Callable[[], None] = lambda: None,
    ) -> None:
        """Trust what is cached for *trust_seconds* without the store. *clock* is in seconds since the epoch.

        *on_replaced* is called when the log has another history than before.
        """
        self._on_replaced = on_replaced
        self._load = load
        self._clock = clock
        self._trust_seconds = trust_seconds
        self._syncs = SingleFlight(self._poll, failed=self.log_outage)
        self._breaker = Breaker()
        self._throttle = LogThrottle(logger)
        self._place: AuditHead | None = None
        self._changed: dict[str, int] = {}  # the number of the latest change, by id
        self._changed_before: dict[str, int] = {}
        self.floor = self._next_floor = 0  # all later changes are remembered
        self._is_late = False
        self._is_away = False
        self.number = 0
        self.synced_at = self.followed_since = float("-inf")

    def is_fresh(self, now: float) -> bool:
        """Tell whether cached records are up to date at *now*; does no I/O, and starts a poll after half a second."""
        since_sync = now - self.synced_at
        # Negative when the clock was set back: nothing is trusted then until the store was polled.
        if not 0 <= since_sync <= _FRESH_SECONDS:
            return False
        if since_sync > _SYNC_SECONDS:
            self._syncs.begin(None)
        return True

    def is_trusted(self, now: float) -> bool:
        """Tell whether cached records may still be used at *now* although the store did not answer."""
        return 0 <= now - self.synced_at <= self._trust_seconds

    def trusted_seconds(self, now: float) -> float:
        """Return for how long cached records may be used from *now* on if the store does not answer."""
        return max(0.0, self.synced_at + self._trust_seconds - now) if self.is_trusted(now) else 0.0

    def is_changed(self, record_id: str, owner_id: str | None, number: int) -> bool:
        """Tell whether a record that was read at *number*, or what it belongs to, may have changed since."""
        if number == self.number:
            return False
        return number < self.floor or self._is_noted(record_id, number) or self._is_noted(owner_id, number)

    def note(self, record_id: str) -> None:
        """Note that a record has changed."""
        self.number += 1
        self._changed[record_id] = self.number
        if len(self._changed) > _MOST_REMEMBERED:
            if self._changed_before:
                self.followed_since = self._clock()
            self.floor, self._next_floor = self._next_floor, self.number
            self._changed_before, self._changed = self._changed, {}

    async def catch_up(self) -> None:
        """Poll, but give up soon when the store is slow or unavailable: cached records are trusted a while longer.

        Nobody waits while it is known to be.
        """
        if self._breaker.is_open:
            return
        self._syncs.begin(None)
        if self._is_late:
            return
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._syncs.join(None)
        except TimeoutError:
            self._is_late = True
        except Unavailable:
            return  # logged by `log_outage`

    async def catch_up_or_fail(self) -> None:
        """Poll. Raises StoreUnavailable."""
        self._breaker.check()
        await self._syncs.join(None)

    async def begin(self) -> None:
        """Find out where the log ends, before anything is cached. Raises StoreUnavailable."""
        if self._place is None:
            await self.catch_up_or_fail()

    async def close(self) -> None:
        """Cancel a poll in progress."""
        await self._syncs.close()

    async def _poll(self, _: None) -> None:
        polled_at, is_last = self._clock(), False
        while not is_last:
            try:
                page = await finish_within(_POLL_SECONDS, self._load(self._place), "changes")
            except Unavailable:
                self._breaker.fail()
                raise
            self._apply(page, polled_at)
            is_last = page.is_last
        self.synced_at = polled_at
        self._is_late = False
        self._breaker.succeed()
        self.log_recovery()

    def _apply(self, page: ChangePage, polled_at: float) -> None:
        if self._place is None:
            self.followed_since = polled_at
        elif not page.is_continuous:
            self._forget_everything(polled_at)
        for changed in page.ids:
            self.note(changed)
        self._place = page.after

    def _forget_everything(self, polled_at: float) -> None:
        self.number += 1
        self.floor = self._next_floor = self.number
        self._changed, self._changed_before = {}, {}
        self.followed_since = polled_at
        self._on_replaced()
        self._throttle.log(
            logging.WARNING,
            "The database has another history than before, as after a restored backup, or far more changes than can be "
            "followed: everything that was cached is read again.",
        )

    def _is_noted(self, changed_id: str | None, number: int) -> bool:
        if changed_id is None:
            return False
        return self._changed.get(changed_id, 0) > number or self._changed_before.get(changed_id, 0) > number

    def log_outage(self, error: BaseException) -> None:
        """Log an outage once and not for each request: there may be many, from anyone."""
        if not self._is_away:
            self._is_away = True
            reason = describe_error(error) if isinstance(error, GatewayError) else f"{type(error).__name__}: {error}"
            self._throttle.log(logging.WARNING, "%s", reason)

    def log_recovery(self) -> None:
        """Log the end of an outage, if there was one."""
        if self._is_away:
            self._is_away = False
            self._throttle.log(logging.WARNING, "The database answers again.")
