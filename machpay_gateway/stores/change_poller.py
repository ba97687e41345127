"""Knowing what changed in the store: asked in the background twice a second as long as requests come, waited for else.

So a change made by any process holds within a second. When the store does not answer, what is known is trusted until
5 s have passed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from machpay_gateway.core.errors import Unavailable
from machpay_gateway.singleflight import SingleFlight

_SYNC_SECONDS = 0.5
_FRESH_SECONDS = 1.0
_TRUST_SECONDS = 5.0
_PATIENCE_SECONDS = 0.25  # for a store that is slow to say what changed, while trust lasts
_OVERLAP_SECONDS = 60.0  # longer than a change takes from its stamp to its commit, and than hosts' clocks differ

Versions = Sequence[tuple[str, int]]


class ChangePoller:
    """Follows the versions of records. *clock* is in seconds since the epoch.

    *ask* returns (id, version) of each record changed since a moment, and *tell* is told them. The first question goes
    *back_seconds* back: whatever changed before cannot matter.
    """

    def __init__(
        self,
        ask: Callable[[float], Awaitable[Versions]],
        tell: Callable[[Versions], None],
        *,
        clock: Callable[[], float],
        logger: logging.Logger,
        what: str,
        back_seconds: float = 0.0,
    ) -> None:
        self._ask = ask
        self._tell = tell
        self._clock = clock
        self._logger = logger
        self._what = what
        self._back_seconds = back_seconds
        self._syncs = SingleFlight(self._synchronise, failed=self.log_outage)
        self.synced_at = float("-inf")
        self._is_away = False

    def is_fresh(self, now: float) -> bool:
        """Tell whether what is known holds at *now*; does no I/O, and has what is half a second old refreshed."""
        since_sync = now - self.synced_at
        # A clock that steps back makes the difference negative: then nothing is known until the store was asked.
        if not 0 <= since_sync <= _FRESH_SECONDS:
            return False
        if since_sync > _SYNC_SECONDS:
            self._syncs.begin(None)
        return True

    def is_trusted(self, now: float) -> bool:
        """Tell whether what is known may still be gone by at *now*, after the store was asked in vain."""
        return 0 <= now - self.synced_at <= _TRUST_SECONDS

    async def catch_up(self) -> None:
        """Learn what changed, unless the store is slow or away: then what is known goes on until trust ends."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._syncs.join(None)
        except (Unavailable, TimeoutError):
            return  # told by `log_outage`

    async def catch_up_or_fail(self) -> None:
        """Learn what changed, however long that takes. Raises StoreUnavailable."""
        await self._syncs.join(None)

    async def close(self) -> None:
        """Abandon a question that is under way."""
        await self._syncs.close()

    async def _synchronise(self, _: None) -> None:
        asked_at = self._clock()
        since = min(self.synced_at, asked_at)
        if since == float("-inf"):
            since = asked_at - self._back_seconds
        self._tell(await self._ask(since - _OVERLAP_SECONDS))
        self.synced_at = asked_at
        self.log_answer()

    def log_outage(self, error: BaseException) -> None:
        """Log that the store is away, once for an outage and not for each who asks: they may be many, and strangers."""
        if not self._is_away:
            self._is_away = True
            self._logger.warning("The %s does not answer.", self._what, exc_info=error)

    def log_answer(self) -> None:
        """Log that the store is there again, if it was away."""
        if self._is_away:
            self._is_away = False
            self._logger.warning("The %s answers again.", self._what)
