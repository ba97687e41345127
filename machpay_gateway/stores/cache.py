"""Known keys, kept close: what makes a decision need no I/O, and what bounds how long it may be wrong.

A cached key is trusted as long as `following` knows what changed. What was presented is either a secret of the key or
a session that it was traded for: both are known by their digest, and both end with the record.
"""

import hmac
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from machpay_gateway.core.decision.credential import ApiKey
from machpay_gateway.core.decision.principal import Principal, key_principal
from machpay_gateway.core.errors import ConfigurationError, StoreUnavailable
from machpay_gateway.core.jose.session import SessionToken, session_principal
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.keys.ports import KeyLookup
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.singleflight import SingleFlight
from machpay_gateway.stores.change_poller import ChangePoller, Versions

logger = logging.getLogger(__name__)

_AGE_SECONDS = 600.0
_ABSENT_SECONDS = 5.0
_MOST_DROPPED = 64  # signing keys; a look-up that is under way when one is dropped takes seconds at most


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
        self._signed_by: dict[bytes, str] = {}  # sessions by their digest, and the signing key of each
        self._dropped: deque[str] = deque(maxlen=_MOST_DROPPED)
        self._changes = ChangePoller(
            lookup.versions_since, self._forget_changed, clock=clock, logger=logger, what="key store"
        )
        self._loads = SingleFlight(self._load, failed=self._changes.log_outage)
        self.hits = self.misses = 0  # of what was presented: known, and asked of the store

    def cached(self, digest: bytes, now: float) -> Principal | None:
        """Return the key's principal when it is cached and may be trusted at *now*; never does I/O."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        principal, loaded_at, loaded_until = entry
        # The lower bound is for a clock that steps back: then nothing is known until the store was asked.
        if not loaded_at <= now < loaded_until or not self._changes.is_fresh(now):
            return None
        self.hits += 1
        return principal

    def holds(self, digest: bytes) -> bool:
        """Tell whether a key with this secret *digest* is cached, trusted or not."""
        return digest in self._entries

    async def find(self, presented: ApiKey | SessionToken) -> Principal | None:
        """Return the principal of the key of which something was *presented*, or None. Raises StoreUnavailable."""
        digest = presented.digest
        if self._clock() < self._absent.get(digest, 0.0):
            self.hits += 1
            return None
        self.misses += 1
        if digest in self._entries:
            await self._changes.catch_up()
            now, entry = self._clock(), self._entries.get(digest)
            if entry is not None and entry.loaded_at <= now < entry.loaded_until and self._changes.is_trusted(now):
                return entry.principal
        return await self._loads.join(presented)

    def forget(self, key_id: str) -> None:
        """Drop whatever is cached of a key."""
        for digest in self._digests.pop(key_id, ()):
            self._entries.pop(digest, None)
            self._signed_by.pop(digest, None)

    def forget_signed_by(self, kids: Collection[str]) -> None:
        """Drop the sessions that one of the signing keys *kids* has signed, those too that are being looked up."""
        self._dropped.extend(kids)
        for digest in [digest for digest, kid in self._signed_by.items() if kid in kids]:
            self._drop(digest)

    async def close(self) -> None:
        """Abandon what is being asked of the store."""
        await self._changes.close()
        await self._loads.close()

    def __len__(self) -> int:
        return len(self._entries) + len(self._absent)

    def _forget_changed(self, versions: Versions) -> None:
        for key_id, version in versions:
            if any(self._entries[digest].principal.version != version for digest in self._digests.get(key_id, ())):
                self.forget(key_id)

    async def _load(self, presented: ApiKey | SessionToken) -> Principal | None:
        asked_at, digest = self._clock(), presented.digest
        if isinstance(presented, SessionToken):
            record = await self._lookup.key(None, presented.key_id)
        else:
            record = await self._lookup.find_by_digest(digest)
        self._changes.log_answer()
        principal = None if record is None else self._principal(presented, record)
        if principal is None:
            self._absent[digest] = asked_at + _ABSENT_SECONDS
            if len(self._absent) > self._size:
                self._absent.popitem(last=False)
            return None
        kid = presented.kid if isinstance(presented, SessionToken) else None
        if kid is None or kid not in self._dropped:
            self._remember(digest, principal, asked_at, kid)
        return principal

    def _principal(self, presented: ApiKey | SessionToken, record: KeyRecord) -> Principal | None:
        """Return who presents what was *presented* of *record*; None when it is nothing of it, or not any more."""
        try:
            if isinstance(presented, SessionToken):
                return session_principal(presented, record, self._tiers)
            secrets = [secret for secret in record.secrets if hmac.compare_digest(secret.digest, presented.digest)]
            # The prefix is what the caller holds, the record what we know: where they disagree, a row was swapped.
            if not secrets or record.environment != presented.environment:
                return None
            return key_principal(record, secrets[0], self._tiers)
        except ConfigurationError as exc:
            raise StoreUnavailable(f"key {record.id} as stored") from exc

    def _remember(self, digest: bytes, principal: Principal, loaded_at: float, kid: str | None) -> None:
        if self._changes.synced_at == float("-inf"):
            # Nothing older than this load is cached, so there is no change before it that could be missed.
            self._changes.synced_at = loaded_at
        self._entries[digest] = _Entry(principal, loaded_at, loaded_at + _AGE_SECONDS)
        self._digests.setdefault(principal.id, set()).add(digest)
        if kid is not None:
            self._signed_by[digest] = kid
        if len(self._entries) > self._size:
            self._drop(next(iter(self._entries)))

    def _drop(self, digest: bytes) -> None:
        key_id = self._entries.pop(digest).principal.id
        self._signed_by.pop(digest, None)
        digests = self._digests[key_id]
        digests.discard(digest)
        if not digests:
            del self._digests[key_id]
