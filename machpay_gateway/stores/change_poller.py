"""Polls the store for changed records: in the background, twice a second while requests arrive, else on demand.

So a change made by any process takes effect within a second. While the store does not answer, cached records are
trusted for 5 s.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from machpay_gateway.core.errors import Unavailable
from machpay_gateway.singleflight import SingleFlight

_SYNC_SECONDS = 0.5
_FRESH_SECONDS = 1.0
_TRUST_SECONDS = 5.0
_PATIENCE_SECONDS = 0.25  # for a slow store, while cached records are trusted
_OVERLAP_SECONDS = 60.0  # more than the time from a change's stamp to its commit, plus the clock skew between hosts

Versions = Sequence[tuple[str, int]]


class ChangePoller:
    """Polls the versions of records. *clock* is in seconds since the epoch.

    *load* returns (id, version) of each record changed since a time, and *apply* is called with them. The first poll
    goes *back_seconds* back: earlier changes do not matter.
    """

    def __init__(
        self,
        load: Callable[[float], Awaitable[Versions]],
        apply: Callable[[Versions], None],
        *,
        clock: Callable[[], float],
        logger: logging.Logger,
        what: str,
        back_seconds: float = 0.0,
    ) -> None:
        self._load = load
        self._apply = apply
        self._clock = clock
        self._logger = logger
        self._what = what
        self._back_seconds = back_seconds
        self._syncs = SingleFlight(self._poll, failed=self.log_outage)
        self.synced_at = float("-inf")
        self._is_away = False

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
        return 0 <= now - self.synced_at <= _TRUST_SECONDS

    async def catch_up(self) -> None:
        """Poll, but give up soon when the store is slow or unavailable: cached records are trusted a while longer."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._syncs.join(None)
        except (Unavailable, TimeoutError):
            return  # logged by `log_outage`

    async def catch_up_or_fail(self) -> None:
        """Poll, however long that takes. Raises StoreUnavailable."""
        await self._syncs.join(None)

    async def close(self) -> None:
        """Cancel a poll in progress."""
        await self._syncs.close()

    async def _poll(self, _: None) -> None:
        polled_at = self._clock()
        since = min(self.synced_at, polled_at)
        if since == float("-inf"):
            since = polled_at - self._back_seconds
        self._apply(await self._load(since - _OVERLAP_SECONDS))
        self.synced_at = polled_at
        self.log_recovery()

    def log_outage(self, error: BaseException) -> None:
        """Log an outage once and not for each request: there may be many, from anyone."""
        if not self._is_away:
            self._is_away = True
            self._logger.warning("The %s does not answer.", self._what, exc_info=error)

    def log_recovery(self) -> None:
        """Log the end of an outage, if there was one."""
        if self._is_away:
            self._is_away = False
            self._logger.warning("The %s answers again.", self._what)
