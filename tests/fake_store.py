"""A key store for tests of what asks one: it counts what it is asked, can be away, and can be held mid-answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from machpay_gateway.core.decision.credential import ApiKey
from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.keys.audit import AuditHead
from machpay_gateway.core.keys.key import KeyRecord, SecretRecord
from machpay_gateway.core.keys.ports import ChangePage
from machpay_gateway.core.scopes import Scopes
from tests.clocks import FixedClock

START = 1_700_000_000.0


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def presented(number: int) -> ApiKey:
    return ApiKey("live", digest(number))


def record(number: int, **changes: object) -> KeyRecord:
    secrets = (SecretRecord(digest(number), "sk_live_…0001", START - 1000),)
    made = KeyRecord(
        id=f"key_{number}",
        account_id="acct_1",
        name="n",
        environment="live",
        tier="standard",
        scopes=Scopes(),
        allowed_ips=(),
        created_at=START - 1000,
        secrets=secrets,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # the tests know the fields


class Lookup:
    """A key store that counts what it is asked, can be away, and can be held in the middle of an answer."""

    def __init__(self, clock: FixedClock) -> None:
        self.clock = clock
        self.records: dict[bytes, KeyRecord] = {}
        self.log: list[str] = []  # ids, in the order of their changes
        self.history = b"first"  # of which the log is
        self.loads = self.syncs = 0
        self.is_away = False
        self.entered = asyncio.Event()
        self.synced = asyncio.Event()
        self.let_go = asyncio.Event()
        self.let_go.set()
        self.lookups_wait = asyncio.Event()
        self.lookups_wait.set()
        self.tells_changes = asyncio.Event()
        self.tells_changes.set()

    async def find_by_ids(self, key_ids: Sequence[str]) -> Sequence[KeyRecord]:
        await self.lookups_wait.wait()
        return list({record.id: record for record in self.records.values() if record.id in key_ids}.values())

    def put(self, stored: KeyRecord) -> None:
        """Store *stored* as a change of this moment."""
        for stale in [stale for stale, record in self.records.items() if record.id == stored.id]:
            del self.records[stale]
        self.records |= {secret.digest: stored for secret in stored.secrets}
        self.log.append(stored.id)

    async def find_by_digests(self, digests: Sequence[bytes]) -> Sequence[KeyRecord]:
        self.loads += len(digests)
        # As they were when they were asked for, whatever changes meanwhile.
        matches = [self.records[digest] for digest in digests if digest in self.records]
        self.entered.set()
        await self.let_go.wait()
        self.answer()
        return matches

    async def changes_after(self, place: AuditHead | None) -> ChangePage:
        self.syncs += 1
        await self.tells_changes.wait()
        self.synced.set()
        self.answer()
        after = AuditHead(len(self.log), self.history)
        if place is None:
            return ChangePage(after)
        if place.digest != self.history:
            return ChangePage(after, is_continuous=False)
        return ChangePage(after, self.log[place.sequence :])

    def answer(self) -> None:
        if self.is_away:
            raise StoreUnavailable("key lookup")
