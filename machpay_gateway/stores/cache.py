"""The cache of keys, with which a decision needs no I/O, and the bounds on how long an entry may be stale.

A cached key is trusted as long as `ChangePoller` is up to date. Credentials are secrets of keys and sessions that were
exchanged for them: both are looked up by their digest, and both end with the key.
"""

import hmac
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

from machpay_gateway.core.decision.credential import ApiKey
from machpay_gateway.core.decision.principal import Principal, key_principal
from machpay_gateway.core.errors import ConfigurationError, Unavailable, UnreadableRecord
from machpay_gateway.core.jose.session import SessionToken, session_principal
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.keys.ports import KeyLookup
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.stores.change_poller import ChangePoller
from machpay_gateway.stores.lookup_queue import Found, LookupQueue

_AGE_SECONDS = 600.0
_ABSENT_SECONDS = 5.0
_MOST_ABSENT = 10_000
_MOST_DROPPED = 64  # signing keys; a look-up in progress when one is dropped takes seconds at most
_ATTEMPTS = 3  # to read a record that changes while it is read


class _Entry(NamedTuple):
    principal: Principal
    loaded_at: float
    loaded_until: float  # when it expires, changed or not
    number: int  # of the changes that were noted when it was read


class KeyCache:
    """A bounded cache of keys by the digest of a credential, with shared look-ups and short-lived negative entries."""

    def __init__(
        self,
        lookup: KeyLookup,
        tiers: Mapping[str, Tier],
        changes: ChangePoller,
        *,
        clock: Callable[[], float],
        size: int = 10_000,
    ) -> None:
        """Cache at most *size* credentials, and some invalid digests. *clock* is in seconds since the epoch."""
        self._tiers = tiers
        self._clock = clock
        self._size = size
        self._most_absent = min(size, _MOST_ABSENT)  # strangers can make any number of them
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._absent: dict[bytes, float] = {}
        self._signed_by: dict[bytes, str] = {}  # digests of sessions, and the signing key of each
        self._dropped: deque[str] = deque(maxlen=_MOST_DROPPED)
        self._changes = changes
        self._by_digest: LookupQueue[bytes, KeyRecord] = LookupQueue(
            partial(_by_digest, lookup), "key lookup", mark=lambda: changes.number, failed=changes.log_outage
        )
        self._by_id: LookupQueue[str, KeyRecord] = LookupQueue(
            partial(_by_id, lookup), "key lookup", mark=lambda: changes.number, failed=changes.log_outage
        )
        self.hits = self.misses = 0  # credentials that were cached, and that were looked up

    def cached(self, digest: bytes, now: float) -> Principal | None:
        """Return the principal if it is cached and may be trusted at *now*; does no I/O."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        principal, loaded_at, loaded_until, number = entry
        changes = self._changes
        # The lower bound covers a clock that was set back: nothing is trusted then until the store was polled.
        if not loaded_at <= now < loaded_until or not changes.is_fresh(now):
            return None
        if number != changes.number and changes.is_changed(principal.id, principal.account_id, number):
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
            now, entry = self._clock(), self._trusted(digest)
            if entry is not None and entry.loaded_at <= now < entry.loaded_until:
                return entry.principal
        try:
            return await self._load(presented)
        except Unavailable:
            # A record that was read lately serves through an outage, even past its age.
            if (entry := self._trusted(digest)) is None:
                raise
            return entry.principal

    def forget(self, record_id: str) -> None:
        """Note that the key, or the account, with this id has changed."""
        self._changes.note(record_id)

    def forget_signed_by(self, kids: Collection[str]) -> None:
        """Remove the sessions that the signing keys *kids* have signed, including those being looked up."""
        self._dropped.extend(kids)
        for digest in [digest for digest, kid in self._signed_by.items() if kid in kids]:
            self._drop(digest)

    def trusted_seconds(self) -> float:
        """Return for how long what is cached may be used without the store."""
        return self._changes.trusted_seconds(self._clock()) if self._entries else 0.0

    async def close(self) -> None:
        """Cancel look-ups in progress."""
        await self._changes.close()
        await self._by_digest.close()
        await self._by_id.close()

    def __len__(self) -> int:
        return len(self._entries) + len(self._absent)

    def _trusted(self, digest: bytes) -> _Entry | None:
        """Return the entry if the record has not changed as far as is known, and may still be used."""
        entry = self._entries.get(digest)
        if entry is None or not self._changes.is_trusted(self._clock()):
            return None
        principal = entry.principal
        return None if self._changes.is_changed(principal.id, principal.account_id, entry.number) else entry

    async def _load(self, presented: ApiKey | SessionToken) -> Principal | None:
        await self._changes.begin()
        digest, loaded_at = presented.digest, self._clock()
        record, number = await self._record(presented)
        for _ in range(_ATTEMPTS - 1):
            if record is None or not self._changes.is_changed(record.id, record.account_id, number):
                break
            record, number = await self._record(presented)
        self._changes.log_recovery()
        entry = self._entries.get(digest)
        if record is not None and entry is not None and entry.number == number and loaded_at < entry.loaded_until:
            return entry.principal  # of the same query
        principal = None if record is None else self._principal(presented, record)
        if principal is None:
            self._remember_absent(digest, loaded_at)
            return None
        kid = presented.kid if isinstance(presented, SessionToken) else None
        if kid is None or kid not in self._dropped:
            self._remember(digest, _Entry(principal, loaded_at, loaded_at + _AGE_SECONDS, number), kid)
        return principal

    async def _record(self, presented: ApiKey | SessionToken) -> Found[KeyRecord]:
        if isinstance(presented, SessionToken):
            return await self._by_id.find(presented.key_id)
        return await self._by_digest.find(presented.digest)

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
            raise UnreadableRecord(f"key {record.id} as stored") from exc

    def _remember_absent(self, digest: bytes, loaded_at: float) -> None:
        if digest in self._entries:
            self._drop(digest)
        if len(self._absent) >= self._most_absent:
            # The oldest eighth at once: a dict takes half the memory of an OrderedDict, but is slow to find its first.
            self._absent = dict(islice(self._absent.items(), self._most_absent // 8 + 1, None))
        self._absent[digest] = loaded_at + _ABSENT_SECONDS

    def _remember(self, digest: bytes, entry: _Entry, kid: str | None) -> None:
        self._entries[digest] = entry
        self._entries.move_to_end(digest)
        if kid is not None:
            self._signed_by[digest] = kid
        if len(self._entries) > self._size:
            self._drop(next(iter(self._entries)))

    def _drop(self, digest: bytes) -> None:
        del self._entries[digest]
        self._signed_by.pop(digest, None)


async def _by_digest(lookup: KeyLookup, digests: Sequence[bytes]) -> Mapping[bytes, KeyRecord]:
    records = await lookup.find_by_digests(digests)
    return {secret.digest: record for record in records for secret in record.secrets}


async def _by_id(lookup: KeyLookup, key_ids: Sequence[str]) -> Mapping[str, KeyRecord]:
    return {record.id: record for record in await lookup.find_by_ids(key_ids)}
