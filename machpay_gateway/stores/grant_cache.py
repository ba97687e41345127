"""Grants that changed recently, which decide whether a self-contained token still holds.

A token names the version of its grant. While nothing that the grant depends on has changed, its claims hold; otherwise
the grant is loaded and decides. So only the tokens of changed grants cost a query, once the changes of a token's life
were followed; until then each grant costs one.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from machpay_gateway.core.oauth.grant import Dependencies, Grant
from machpay_gateway.stores.change_poller import ChangePoller
from machpay_gateway.stores.lookup_queue import Found, LookupQueue

_MOST_LOADED = 10_000
_ATTEMPTS = 3  # to read a grant that changes while it is read


class GrantLookup(Protocol):
    """What it needs of the store. Raises StoreUnavailable."""

    async def grant(self, grant_id: str, now: float) -> Grant | None:
        """Return the grant as it is at *now*."""


class GrantCache:
    """Grants by id. *life_seconds* is the longest life of a token: earlier changes affect no valid token."""

    def __init__(
        self, lookup: GrantLookup, changes: ChangePoller, *, life_seconds: float, clock: Callable[[], float]
    ) -> None:
        self._grants: LookupQueue[str, Grant] = LookupQueue(
            partial(_grants, lookup, clock), "grant", mark=lambda: changes.number, failed=changes.log_outage
        )
        self._changes = changes
        self._life_seconds = life_seconds
        self._clock = clock
        self._loaded: OrderedDict[str, Found[Grant]] = OrderedDict()

    def is_current(self, token: Dependencies, version: int, now: float) -> bool:
        """Tell whether *version* is certainly the latest of the *token*'s grant; does no I/O."""
        if not self._changes.is_fresh(now):
            return False
        loaded = self._loaded.get(token.grant)
        if loaded is None:
            return self._is_untouched(token, now)
        is_latest = loaded.value is not None and loaded.value.version <= version
        return is_latest and not self._is_changed(token, loaded.mark)

    async def changed(self, token: Dependencies, version: int) -> Grant | str | None:
        """Return the grant if it changed after *version*, None if not, or the reason, for the log, why it is gone.

        Raises StoreUnavailable.
        """
        if not self._changes.is_fresh(self._clock()):
            await self._changes.catch_up()
            if not self._changes.is_trusted(self._clock()):
                await self._changes.catch_up_or_fail()
        loaded = self._loaded.get(token.grant)
        if loaded is None and self._is_untouched(token, self._clock()):
            return None
        for _ in range(_ATTEMPTS):  # a load in progress may have started before a change
            if loaded is not None and not self._is_changed(token, loaded.mark):
                break
            loaded = await self._load(token.grant)
        if loaded is None or loaded.value is None:
            return "the grant is gone"
        return loaded.value if loaded.value.version > version else None

    def forget(self, grant_id: str) -> None:
        """Note that the grant has changed."""
        self._changes.note(grant_id)

    async def close(self) -> None:
        """Cancel look-ups in progress."""
        await self._grants.close()

    def _is_untouched(self, token: Dependencies, now: float) -> bool:
        """Return whether every change that may affect a valid token was followed, and none concerns this one."""
        changes = self._changes
        is_followed = now - changes.followed_since > self._life_seconds and changes.is_fresh(now)
        return is_followed and not self._is_changed(token, changes.floor)

    def _is_changed(self, token: Dependencies, number: int) -> bool:
        changes = self._changes
        return changes.is_changed(token.grant, token.client, number) or changes.is_changed(
            token.user, token.account, number
        )

    async def _load(self, grant_id: str) -> Found[Grant]:
        loaded = await self._grants.find(grant_id)
        self._loaded[grant_id] = loaded
        self._loaded.move_to_end(grant_id)
        if len(self._loaded) > _MOST_LOADED:
            self._loaded.popitem(last=False)
        return loaded


async def _grants(lookup: GrantLookup, clock: Callable[[], float], grant_ids: Sequence[str]) -> Mapping[str, Grant]:
    grants = [await lookup.grant(grant_id, clock()) for grant_id in grant_ids]
    return {grant.id: grant for grant in grants if grant is not None}
