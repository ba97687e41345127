"""Grants that changed recently, which decide whether a self-contained token still holds.

A token names the version of its grant. While no later version is known, its claims hold; otherwise the grant is loaded
and decides. So only the tokens of changed grants cost a query.
"""

import logging
import math
from collections.abc import Callable
from typing import Protocol

from machpay_gateway.core.oauth.grant import Grant
from machpay_gateway.singleflight import SingleFlight
from machpay_gateway.stores.change_poller import ChangePoller, Versions

logger = logging.getLogger(__name__)

_MOST_LOADED = 10_000


class GrantLookup(Protocol):
    """What it needs of the store. Raises StoreUnavailable."""

    async def grant(self, grant_id: str, now: float) -> Grant | None:
        """Return the grant as it is at *now*."""

    async def grant_versions_since(self, since: float) -> Versions:
        """Return (grant id, version) of each grant changed at or after *since*, seconds since the epoch."""


class GrantCache:
    """Polls grants. *life_seconds* is the longest life of a token: earlier changes affect no valid token."""

    def __init__(self, lookup: GrantLookup, *, life_seconds: float, clock: Callable[[], float]) -> None:
        self._lookup = lookup
        self._life_seconds = life_seconds
        self._clock = clock
        self._latest: dict[str, tuple[int, float]] = {}  # version, and when it was last reported
        self._doubtful: set[str] = set()  # another component has seen a later version
        self._loaded: dict[str, Grant | None] = {}
        self._loads = SingleFlight(self._load, failed=lambda _: None)  # raised to the callers that wait
        self._changes = ChangePoller(
            lookup.grant_versions_since,
            self._note_all,
            clock=clock,
            logger=logger,
            what="store of grants",
            back_seconds=life_seconds,
        )
        self._swept_at = -math.inf

    def is_current(self, grant_id: str, version: int, now: float) -> bool:
        """Tell whether *version* is certainly the grant's latest; does no I/O."""
        is_latest = self._latest.get(grant_id, _UNKNOWN)[0] <= version and grant_id not in self._doubtful
        return is_latest and self._changes.is_fresh(now)

    async def changed(self, grant_id: str, version: int) -> Grant | str | None:
        """Return the grant if it changed after *version*, None if not, or the reason, for the log, why it is gone.

        Raises StoreUnavailable.
        """
        if not self._changes.is_fresh(self._clock()):
            await self._changes.catch_up()
            if not self._changes.is_trusted(self._clock()):
                await self._changes.catch_up_or_fail()
        if self._latest.get(grant_id, _UNKNOWN)[0] <= version and grant_id not in self._doubtful:
            return None
        loaded = self._loaded.get(grant_id)
        if loaded is None or self._is_outdated(loaded):
            loaded = await self._loads.join(grant_id)
            if loaded is not None and self._is_outdated(loaded):
                # The load had started before the change.
                loaded = await self._loads.join(grant_id)
        return loaded or "the grant is gone"

    def note(self, grant_id: str, version: int) -> None:
        """Record that the grant is at *version*."""
        latest = self._latest.get(grant_id, _UNKNOWN)[0]
        self._latest[grant_id] = max(latest, version), self._clock()

    def forget(self, grant_id: str) -> None:
        """Load the grant again at the next look-up: another component has seen a later version."""
        self._doubtful.add(grant_id)

    async def close(self) -> None:
        """Cancel look-ups in progress."""
        await self._changes.close()
        await self._loads.close()

    def _is_outdated(self, loaded: Grant) -> bool:
        return loaded.version < self._latest.get(loaded.id, _UNKNOWN)[0] or loaded.id in self._doubtful

    def _note_all(self, versions: Versions) -> None:
        for grant_id, version in versions:
            self.note(grant_id, version)
        now = self._clock()
        if not 0 <= now - self._swept_at < self._life_seconds / 4:
            self._swept_at = now
            self._latest = {
                grant_id: (version, at)
                for grant_id, (version, at) in self._latest.items()
                if now - at < self._life_seconds * 2
            }
            self._loaded = {grant_id: grant for grant_id, grant in self._loaded.items() if grant_id in self._latest}

    async def _load(self, grant_id: str) -> Grant | None:
        self._doubtful.discard(grant_id)  # before the query: a doubt that arises meanwhile stays
        grant = await self._lookup.grant(grant_id, self._clock())
        if len(self._loaded) >= _MOST_LOADED:
            self._loaded.clear()
        self._loaded[grant_id] = grant
        if grant is not None:
            self.note(grant_id, grant.version)
        return grant


_UNKNOWN = (0, -math.inf)
