"""The cache of keys, with which a decision needs no I/O, and the bounds on how long an entry may be stale.

A cached key is trusted as long as `ChangePoller` is up to date. Credentials are secrets of keys and sessions that were
exchanged for them: both are looked up by their digest, and both end with the key.
"""

import hmac
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping
from itertools import islice
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
_MOST_DROPPED = 64  # signing keys; a look-up in progress when one is dropped takes seconds at most


class _Entry(NamedTuple):
    principal: Principal
    loaded_at: float
    loaded_until: float  # when it expires, changed or not


class KeyCache:
    """A bounded cache of keys by the digest of a credential, with singleflight and short-lived negative entries."""

    def __init__(
        self, lookup: KeyLookup, tiers: Mapping[str, Tier], *, clock: Callable[[], float], size: int = 10_000
    ) -> None:
        """Cache at most *size* credentials and as many invalid digests. *clock* is in seconds since the epoch."""
        self._lookup = lookup
        self._tiers = tiers
        self._clock = clock
        self._size = size
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._digests: dict[str, set[bytes]] = {}
        self._absent: dict[bytes, float] = {}
        self._signed_by: dict[bytes, str] = {}  # digests of sessions, and the signing key of each
        self._dropped: deque[str] = deque(maxlen=_MOST_DROPPED)
        self._changes = ChangePoller(
            lookup.versions_since, self._forget_changed, clock=clock, logger=logger, what="key store"
        )
        self._loads = SingleFlight(self._load, failed=self._changes.log_outage)
        self.hits = self.misses = 0  # credentials that were cached, and that were looked up

    def cached(self, digest: bytes, now: float) -> Principal | None:
        """Return the principal if it is cached and may be trusted at *now*; does no I/O."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        principal, loaded_at, loaded_until = entry
        # The lower bound covers a clock that was set back: nothing is trusted then until the store was polled.
        if not loaded_at <= now < loaded_until or not self._changes.is_fresh(now):
            return None
        self.hits += 1
        return principal

    def holds(self, digest: bytes) -> bool:
        """Tell whether the credential with this *digest* is cached, trusted or not."""
        return digest in self._entries

    async def find(self, presented: ApiKey | SessionToken) -> Principal | None:
        """Return the principal of the *presented* credential, or None if it is invalid. Raises StoreUnavailable."""
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
        """Remove the key's secrets and sessions."""
        for digest in self._digests.pop(key_id, ()):
            self._entries.pop(digest, None)
            self._signed_by.pop(digest, None)

    def forget_signed_by(self, kids: Collection[str]) -> None:
        """Remove the sessions that the signing keys *kids* have signed, including those being looked up."""
        self._dropped.extend(kids)
        for digest in [digest for digest, kid in self._signed_by.items() if kid in kids]:
            self._drop(digest)

    async def close(self) -> None:
        """Cancel look-ups in progress."""
        await self._changes.close()
        await self._loads.close()

    def __len__(self) -> int:
        return len(self._entries) + len(self._absent)

    def _forget_changed(self, versions: Versions) -> None:
        for key_id, version in versions:
            if any(self._entries[digest].principal.version != version for digest in self._digests.get(key_id, ())):
                self.forget(key_id)

    async def _load(self, presented: ApiKey | SessionToken) -> Principal | None:
        loaded_at, digest = self._clock(), presented.digest
        if isinstance(presented, SessionToken):
            record = await self._lookup.key(None, presented.key_id)
        else:
            record = await self._lookup.find_by_digest(digest)
        self._changes.log_recovery()
        principal = None if record is None else self._principal(presented, record)
        if principal is None:
            self._remember_absent(digest, loaded_at)
            return None
        kid = presented.kid if isinstance(presented, SessionToken) else None
        if kid is None or kid not in self._dropped:
            self._remember(digest, principal, loaded_at, kid)
        return principal

    def _principal(self, presented: ApiKey | SessionToken, record: KeyRecord) -> Principal | None:
        """Return the principal of the credential *presented* for the key *record*, or None if it is invalid."""
        try:
            if isinstance(presented, SessionToken):
                return session_principal(presented, record, self._tiers)
            secrets = [secret for secret in record.secrets if hmac.compare_digest(secret.digest, presented.digest)]
            # The prefix comes from the caller and the record from the store: if they disagree, a row was swapped.
            if not secrets or record.environment != presented.environment:
                return None
            return key_principal(record, secrets[0], self._tiers)
        except ConfigurationError as exc:
            raise StoreUnavailable(f"key {record.id} as stored") from exc

    def _remember_absent(self, digest: bytes, loaded_at: float) -> None:
        if len(self._absent) >= self._size:
            # The oldest eighth at once: a dict takes half the memory of an OrderedDict, but is slow to find its first.
            self._absent = dict(islice(self._absent.items(), self._size // 8 + 1, None))
        self._absent[digest] = loaded_at + _ABSENT_SECONDS

    def _remember(self, digest: bytes, principal: Principal, loaded_at: float, kid: str | None) -> None:
        if self._changes.synced_at == float("-inf"):
            # Nothing is cached from before this load, so no earlier change can be missed.
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
