"""Known keys, kept close: what makes a decision need no I/O, and what bounds how long it may be wrong.

A cached key is trusted while the store was asked for changes lately. It is asked twice a second as long as requests
come, so a change made by any process holds within a second; when the store does not answer, trust ends after 5 s.
"""

import hmac
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from machpay_gateway.core.errors import ConfigurationError, StoreUnavailable
from machpay_gateway.core.ports import KeyLookup
from machpay_gateway.core.principal import Principal, key_principal
from machpay_gateway.core.quota import Tier
from machpay_gateway.flights import SingleFlight

logger = logging.getLogger(__name__)

_SYNC_SECONDS = 0.5
_TRUST_SECONDS = 5.0
_OVERLAP_SECONDS = 10.0  # longer than a change takes from being stamped to being committed
_AGE_SECONDS = 600.0
_ABSENT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Entry:
    principal: Principal
    loaded_at: float


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
        self._loads = SingleFlight(self._load, failed=_log_failure)
        self._syncs = SingleFlight(self._synchronise, failed=_log_failure)
        self._synced_at = float("-inf")

    def known(self, digest: bytes, now: float) -> Principal | None:
        """Return the key's principal when it is cached and may be trusted at *now*; never does I/O."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        since_sync = now - self._synced_at
        if 0 <= since_sync <= _SYNC_SECONDS:
            return entry.principal
        if not 0 <= since_sync <= _TRUST_SECONDS or not 0 <= now - entry.loaded_at < _AGE_SECONDS:
            return None
        self._syncs.begin(None)
        return entry.principal

    async def find(self, digest: bytes) -> Principal | None:
        """Return the principal of the key with this secret *digest*, or None. Raises StoreUnavailable."""
        now = self._clock()
        if now < self._absent.get(digest, 0.0):
            return None
        if digest in self._entries:
            await self._syncs.join(None)
            if principal := self.known(digest, self._clock()):
                return principal
        return await self._loads.join(digest)

    def forget(self, key_id: str) -> None:
        """Drop whatever is cached of a key."""
        for digest in self._digests.pop(key_id, ()):
            self._entries.pop(digest, None)

    def __len__(self) -> int:
        return len(self._entries) + len(self._absent)

    async def _synchronise(self, _: None) -> None:
        asked_at = self._clock()
        since = max(self._synced_at, asked_at - _AGE_SECONDS) - _OVERLAP_SECONDS
        for key_id, version in await self._lookup.versions_since(since):
            if any(self._entries[digest].principal.version != version for digest in self._digests.get(key_id, ())):
                self.forget(key_id)
        self._synced_at = asked_at

    async def _load(self, digest: bytes) -> Principal | None:
        asked_at = self._clock()
        record = await self._lookup.find_by_digest(digest)
        secrets = [] if record is None else [s for s in record.secrets if hmac.compare_digest(s.digest, digest)]
        if record is None or not secrets:
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
        self._entries[digest] = _Entry(principal, loaded_at)
        self._digests.setdefault(principal.id, set()).add(digest)
        if len(self._entries) > self._size:
            evicted, entry = self._entries.popitem(last=False)
            digests = self._digests[entry.principal.id]
            digests.discard(evicted)
            if not digests:
                del self._digests[entry.principal.id]


def _log_failure(error: BaseException) -> None:
    logger.warning("The key store did not answer: %s", error)
