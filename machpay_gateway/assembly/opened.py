"""The store as requests and background tasks use it: the first query opens the gateway."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING

from machpay_gateway.core.errors import ConfigurationError, StoreUnavailable
from machpay_gateway.core.jose.signing import SigningKey
from machpay_gateway.core.keys.audit import AuditHead, Change
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.keys.ports import ChangePage
from machpay_gateway.core.limits.ports import StoredUnits
from machpay_gateway.core.usage.counters import UsageBatch
from machpay_gateway.gateway import Lifecycle

if TYPE_CHECKING:
    from machpay_gateway.core.oauth.grant import Grant
    from machpay_gateway.core.store import Store


class OpenedStore:
    """Opens the gateway at the first query, because mounted applications, and some servers, get no lifespan.

    Its *lifecycle* is set once that exists: it closes components that read through this store.
    """

    lifecycle: Lifecycle

    def __init__(self, store: "Store") -> None:
        self._store = store

    async def find_by_digests(self, digests: Sequence[bytes]) -> Sequence[KeyRecord]:
        """Return the keys that have a secret with one of these SHA-256 *digests*, whatever their status."""
        await self._ready(self.lifecycle.serve)
        return await self._store.find_by_digests(digests)

    async def find_by_ids(self, key_ids: Sequence[str]) -> Sequence[KeyRecord]:
        """Return the keys with these ids."""
        await self._ready(self.lifecycle.serve)
        return await self._store.find_by_ids(key_ids)

    async def changes_after(self, place: AuditHead | None) -> ChangePage:
        """Return what has changed after *place* in the audit log; without one, only where that ends."""
        await self._ready(self.lifecycle.serve)
        return await self._store.changes_after(place)

    async def grant(self, grant_id: str, now: float) -> "Grant | None":
        """Return the grant as it is at *now*."""
        await self._ready(self.lifecycle.serve)
        return await self._store.grant(grant_id, now)

    async def signing_keys(self) -> Sequence[SigningKey]:
        """Return the keys that we sign by now or did lately."""
        await self._ready(self.lifecycle.open)
        return await self._store.signing_keys()

    async def add_signing_key(self, key: SigningKey, change: Change, *, instead_of: Collection[str] | None) -> bool:
        """Store *key* and drop those named by *instead_of*; when that is None, only if there is none: False if not."""
        await self._ready(self.lifecycle.open)
        return await self._store.add_signing_key(key, change, instead_of=instead_of)

    async def add_usage(self, batch: UsageBatch) -> None:
        """Add *batch*."""
        await self._ready(self.lifecycle.open)  # not `serve`: the gateway may be about to close
        await self._store.add_usage(batch)

    async def drop_usage(self, now: float) -> None:
        """Drop the usage that is past its retention at *now*, seconds since the epoch; sum up the rest before."""
        await self._store.drop_usage(now)

    async def add_quota_units(self, units: Sequence[tuple[str, int, int]], now: float) -> int:
        """Add a batch of *units*: a subject, a day since the epoch, and what to add to it. Returns its number."""
        await self._ready(self.lifecycle.open)  # not `serve`: the gateway may be about to close
        return await self._store.add_quota_units(units, now)

    async def quota_units(self, subject: str, since: int) -> StoredUnits:
        """Return the units of *subject* on the day *since* and later."""
        await self._ready(self.lifecycle.open)
        return await self._store.quota_units(subject, since)

    async def drop_quota_units(self, now: float) -> None:
        """Delete the units that no quota counts any more at *now*, seconds since the epoch."""
        await self._store.drop_quota_units(now)

    @staticmethod
    async def _ready(make_ready: Callable[[], Awaitable[None]]) -> None:
        try:
            await make_ready()
        except ConfigurationError as exc:
            # At a start this stops the process. A request that arrives later gets a 503, and the log has the reason.
            raise StoreUnavailable("making ready to serve") from exc
