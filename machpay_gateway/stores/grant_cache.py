"""Grants that changed lately: what a gateway must know to trust a token that it verifies by itself.

A token says which version of its grant it was made for. As long as no later one is known, it is worth what it says;
else the grant is loaded, and has the last word. So no token costs a question but those of grants that changed.
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
    """What is asked of the store. Raises StoreUnavailable."""

    async def grant(self, grant_id: str, now: float) -> Grant | None:
        """Return the grant as it is at *now*."""

    async def grant_versions_since(self, since: float) -> Versions:
        """Return (grant id, version) of each grant changed at or after *since*, seconds since the epoch."""


class GrantCache:
    """Follows grants. *life_seconds* is how long a token may live: what changed before that concerns none."""

    def __init__(self, lookup: GrantLookup, *, life_seconds: float, clock: Callable[[], float]) -> None:
        self._lookup = lookup
        self._life_seconds = life_seconds
        self._clock = clock
        self._latest: dict[str, tuple[int, float]] = {}  # version, and when it was last heard of
        self._doubted: set[str] = set()  # somebody knows of a later version than we do
        self._loaded: dict[str, Grant | None] = {}
        self._loads = SingleFlight(self._load, failed=lambda _: None)  # whoever waits hears of it
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
        """Tell whether the grant is at *version* still, as far as is known without I/O."""
        is_latest = self._latest.get(grant_id, _UNHEARD)[0] <= version and grant_id not in self._doubted
        return is_latest and self._changes.is_fresh(now)

    async def changed(self, grant_id: str, version: int) -> Grant | str | None:
        """Return the grant if it has changed since *version*, None if not; a text, for the log, if it is gone.

        Raises StoreUnavailable when that is not known and cannot be found out.
        """
        if not self._changes.is_fresh(self._clock()):
            await self._changes.catch_up()
            if not self._changes.is_trusted(self._clock()):
                await self._changes.catch_up_or_fail()
        if self._latest.get(grant_id, _UNHEARD)[0] <= version and grant_id not in self._doubted:
            return None
        loaded = self._loaded.get(grant_id)
        if loaded is None or self._is_outdated(loaded):
            loaded = await self._loads.join(grant_id)
            if loaded is not None and self._is_outdated(loaded):
                # Somebody had asked before it changed, and this is their answer.
                loaded = await self._loads.join(grant_id)
        return loaded or "the grant is gone"

    def note(self, grant_id: str, version: int) -> None:
        """Remember that the grant is at *version*."""
        known = self._latest.get(grant_id, _UNHEARD)[0]
        self._latest[grant_id] = max(known, version), self._clock()

    def forget(self, grant_id: str) -> None:
        """Load the grant when it is next asked for: somebody knows of a later version."""
        self._doubted.add(grant_id)

    async def close(self) -> None:
        """Abandon what is being asked of the store."""
        await self._changes.close()
        await self._loads.close()

    def _is_outdated(self, loaded: Grant) -> bool:
        return loaded.version < self._latest.get(loaded.id, _UNHEARD)[0] or loaded.id in self._doubted

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
        self._doubted.discard(grant_id)  # before the question: a doubt that comes while it is under way stays
        grant = await self._lookup.grant(grant_id, self._clock())
        if len(self._loaded) >= _MOST_LOADED:
            self._loaded.clear()
        self._loaded[grant_id] = grant
        if grant is not None:
            self.note(grant_id, grant.version)
        return grant


_UNHEARD = (0, -math.inf)
