"""Known keys, kept close: what makes a decision need no I/O, and what bounds how long it may be wrong.

A cached key is trusted for a second after the store was last asked for changes. It is asked in the background twice a
second as long as requests come, and waited for otherwise; so a change made by any process holds within a second.
When the store does not answer, trust goes on until 5 s have passed, and ends.
"""

import asyncio
import hmac
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple

from machpay_gateway.core.credential import ApiKey
from machpay_gateway.core.errors import ConfigurationError, StoreUnavailable, Unavailable
from machpay_gateway.core.ports import KeyLookup
from machpay_gateway.core.principal import Principal, key_principal
from machpay_gateway.core.quota import Tier
from machpay_gateway.flights import SingleFlight

logger = logging.getLogger(__name__)

_SYNC_SECONDS = 0.5
_FRESH_SECONDS = 1.0
_TRUST_SECONDS = 5.0
_PATIENCE_SECONDS = 0.25  # for a store that is slow to say what changed, while trust lasts
_OVERLAP_SECONDS = 60.0  # longer than a change takes from its stamp to its commit, and than hosts' clocks differ
_AGE_SECONDS = 600.0
_ABSENT_SECONDS = 5.0


class _Entry(NamedTuple):
    principal: Principal
    loaded_at: float
    loaded_until: float  # when it is loaded again, changed or not


class KeyCache:
    """Bounded cache of keys by secret digest, with single flight and short-lived negative answers."""

    def __init__(
        self, lookup: KeyLookup, tiers: Mapping[str, Tier], *, clock: Callable[[], float], size: int = 10_000
    ) -> None:
        """Cache at most *size* keys and as many digests that belong to none. *clock* is in seconds since the epoch."""
        self._lookup = lookup
        self._tiers = tiers
        self._clock = clock
        self._size = size
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._digests: dict[str, set[bytes]] = {}
        self._absent: OrderedDict[bytes, float] = OrderedDict()
        self._loads = SingleFlight(self._load, failed=self._log_outage)
        self._syncs = SingleFlight(self._synchronise, failed=self._log_outage)
        self._synced_at = float("-inf")
        self._is_away = False

    def known(self, digest: bytes, now: float) -> Principal | None:
        """Return the key's principal when it is cached and may be trusted at *now*; never does I/O."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        principal, loaded_at, loaded_until = entry
        since_sync = now - self._synced_at
        # A clock that steps back makes either difference negative: then nothing is known until the store was asked.
        if not (0 <= since_sync <= _FRESH_SECONDS and loaded_at <= now < loaded_until):
            return None
        if since_sync > _SYNC_SECONDS:
            self._syncs.begin(None)
        return principal

    def holds(self, digest: bytes) -> bool:
        """Tell whether a key with this secret *digest* is cached, trusted or not."""
        return digest in self._entries

    async def find(self, presented: ApiKey) -> Principal | None:
        """Return the principal of the key whose secret was *presented*, or None. Raises StoreUnavailable."""
        digest = presented.digest
        if self._clock() < self._absent.get(digest, 0.0):
            return None
        if digest in self._entries:
            await self._ask_for_changes()
            now, entry = self._clock(), self._entries.get(digest)
            trusted = 0 <= now - self._synced_at <= _TRUST_SECONDS
            if trusted and entry is not None and entry.loaded_at <= now < entry.loaded_until:
                return entry.principal
        return await self._loads.join(presented)

    async def _ask_for_changes(self) -> None:
        """Learn what changed, unless the store is slow or away: then what is known goes on until trust ends."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._syncs.join(None)
        except (Unavailable, TimeoutError):
            return  # told by `_log_outage`

    def forget(self, key_id: str) -> None:
        """Drop whatever is cached of a key."""
        for digest in self._digests.pop(key_id, ()):
            self._entries.pop(digest, None)

    async def close(self) -> None:
        """Abandon what is being asked of the store."""
        await self._syncs.close()
        await self._loads.close()

    def __len__(self) -> int:
        return len(self._entries) + len(self._absent)

    async def _synchronise(self, _: None) -> None:
        asked_at = self._clock()
        for key_id, version in await self._lookup.versions_since(min(self._synced_at, asked_at) - _OVERLAP_SECONDS):
            if any(self._entries[digest].principal.version != version for digest in self._digests.get(key_id, ())):
                self.forget(key_id)
        self._synced_at = asked_at
        self._log_answer()

    async def _load(self, presented: ApiKey) -> Principal | None:
        asked_at, digest = self._clock(), presented.digest
        record = await self._lookup.find_by_digest(digest)
        self._log_answer()
        secrets = [] if record is None else [s for s in record.secrets if hmac.compare_digest(s.digest, digest)]
        # The prefix is what the caller holds, the record what we know: where they disagree, a row was swapped.
        if record is None or not secrets or record.environment != presented.environment:
            self._absent[digest] = asked_at + _ABSENT_SECONDS
            if len(self._absent) > self._size:
                self._absent.popitem(last=False)
            return None
        try:
            principal = key_principal(record, secrets[0], self._tiers)
        except ConfigurationError as exc:
            raise StoreUnavailable(f"key {record.id} as stored") from exc
        self._remember(digest, principal, asked_at)
        return principal

    def _remember(self, digest: bytes, principal: Principal, loaded_at: float) -> None:
        if self._synced_at == float("-inf"):
            # Nothing older than this load is cached, so there is no change before it that could be missed.
            self._synced_at = loaded_at
        self._entries[digest] = _Entry(principal, loaded_at, loaded_at + _AGE_SECONDS)
        self._digests.setdefault(principal.id, set()).add(digest)
        if len(self._entries) > self._size:
            evicted, entry = self._entries.popitem(last=False)
            digests = self._digests[entry.principal.id]
            digests.discard(evicted)
            if not digests:
                del self._digests[entry.principal.id]

    def _log_outage(self, error: BaseException) -> None:
        # Once for an outage, not once for each who asks: they may be many, and strangers.
        if not self._is_away:
            self._is_away = True
            logger.warning("The key store does not answer.", exc_info=error)

    def _log_answer(self) -> None:
        if self._is_away:
            self._is_away = False
            logger.warning("The key store answers again.")
