"""The store as those see it who are asked by requests: it is made ready at the first question."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol

from machpay_gateway.assembly.parts import Store, oauth_of
from machpay_gateway.core.errors import ConfigurationError, StoreUnavailable
from machpay_gateway.core.jose.signing import SigningKey
from machpay_gateway.core.keys.audit import Change
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.oauth.grant import Grant
from machpay_gateway.core.usage.counters import UsageBatch


class Openable(Protocol):
    """A gateway, as far as it can be made ready."""

    @property
    def store(self) -> Store:
        """Its store, open or not."""

    async def open(self) -> None:
        """Make keys and accounts ready to use."""

    async def serve(self) -> None:
        """Make ready to decide."""


class OpenedStore:
    """Readies the gateway at the first question: mounted applications, and some servers, get no lifespan."""

    def __init__(self, gateway: Openable) -> None:
        self._gateway = gateway

    async def find_by_digest(self, digest: bytes) -> KeyRecord | None:
        """Return the key that has a secret with this SHA-256 *digest*, whatever its status."""
        await self._open(self._gateway.serve)
        return await self._gateway.store.find_by_digest(digest)

    async def key(self, account_id: str | None, key_id: str) -> KeyRecord | None:
        """Return a key of the account, or of any for an operator (*account_id* None)."""
        await self._open(self._gateway.serve)
        return await self._gateway.store.key(account_id, key_id)

    async def versions_since(self, since: float) -> Sequence[tuple[str, int]]:
        """Return (key id, version) of each key changed at or after *since*, seconds since the epoch."""
        await self._open(self._gateway.serve)
        return await self._gateway.store.versions_since(since)

    async def grant(self, grant_id: str, now: float) -> Grant | None:
        """Return the grant as it is at *now*."""
        await self._open(self._gateway.serve)
        return await oauth_of(self._gateway.store).grant(grant_id, now)

    async def grant_versions_since(self, since: float) -> Sequence[tuple[str, int]]:
        """Return (grant id, version) of each grant changed at or after *since*, seconds since the epoch."""
        await self._open(self._gateway.serve)
        return await oauth_of(self._gateway.store).grant_versions_since(since)

    async def signing_keys(self) -> Sequence[SigningKey]:
        """Return the keys that we sign by, and did lately."""
        await self._open(self._gateway.open)
        return await self._gateway.store.signing_keys()

    async def add_signing_key(self, key: SigningKey, change: Change, *, instead_of: Collection[str] | None) -> bool:
        """Store *key* and drop those named by *instead_of*; when that is None, only if there is none: False if not."""
        await self._open(self._gateway.open)
        return await self._gateway.store.add_signing_key(key, change, instead_of=instead_of)

    async def add_usage(self, batch: UsageBatch) -> None:
        """Add *batch* to the minutes, hours and days."""
        await self._open(self._gateway.open)  # and no more than that: it may be about to close
        await self._gateway.store.add_usage(batch)

    async def drop_usage(self, now: float) -> None:
        """Drop what is older at *now*, seconds since the epoch, than it is kept."""
        await self._gateway.store.drop_usage(now)

    async def _open(self, make_ready: Callable[[], Awaitable[None]]) -> None:
        try:
            await make_ready()
        except ConfigurationError as exc:
            # At a start this stops the process; a request that comes too late for that is told 503, and the log why.
            raise StoreUnavailable("making ready to serve") from exc
