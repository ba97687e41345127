"""The busiest keys of the last minutes by the stored usage, for `machpay-gateway top`."""

import asyncio
import time
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from machpay_gateway.cli.key_limits import KeyLevels, read_levels
from machpay_gateway.core.errors import Unavailable
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.text import format_moment
from machpay_gateway.core.usage.counters import MINUTE, UsageRow, sum_of, units_taken
from machpay_gateway.gateway import Gateway

_MINUTES = 2  # the current one and the one before: usage is stored by whole minutes
_NOT_ANSWERING = "the database does not answer"


class TopKeys:
    """Queries the busiest keys and what is left of their limits, and caches their records."""

    def __init__(self, gateway: Gateway, limit: int, *, clock: Callable[[], float] = time.time) -> None:
        """Query at most *limit* keys from the store of *gateway*. *clock* is in seconds since the epoch."""
        self._gateway = gateway
        self._limit = limit
        self._clock = clock
        self._costs = gateway.policy.costs
        self._records: dict[str, KeyRecord | None] = {}

    async def document(self) -> dict[str, Any]:
        """Return the busiest keys as JSON, or why they are not available."""
        since = MINUTE.start_of(self._clock()) - (_MINUTES - 1) * MINUTE.seconds
        document: dict[str, Any] = {"since": format_moment(since), "data": [], "mistake": None}
        try:
            await self._gateway.lifecycle.open()
            rows = await self._gateway.store.busiest(since, self._limit)
            by_subject = {subject: list(of_key) for subject, of_key in groupby(rows, key=lambda row: row.key.subject)}
            records = {subject: await self._record(subject) for subject in by_subject}
            levels = await asyncio.gather(*map(self._levels, records.values()))  # together, for one call to Redis
            document["data"] += map(self._key, by_subject, records.values(), by_subject.values(), levels)
        except Unavailable:
            document["mistake"] = _NOT_ANSWERING
        return document

    def _key(self, subject: str, record: KeyRecord | None, rows: list[UsageRow], levels: KeyLevels) -> dict[str, Any]:
        total, tightest = sum_of(rows), levels.tightest
        tier = None if record is None else record.tier
        return {
            "id": subject,
            "name": None if record is None else record.name,
            "tier": tier,
            "requests": total.requests,
            "outcomes": dict(sorted(total.outcomes.items(), key=lambda each: (-each[1], each[0]))),
            "of_limit": self._of_limit(tier, rows),
            "tightest": None if tightest is None else tightest.document(),
        }

    async def _record(self, subject: str) -> KeyRecord | None:
        """Return the record of a key; a grant has none."""
        if subject not in self._records:
            self._records[subject] = await self._gateway.keys.get(None, subject)
        return self._records[subject]

    async def _levels(self, record: KeyRecord | None) -> KeyLevels:
        """Return what is left of the limits of a key; of a grant, nothing is known."""
        if record is None:
            return KeyLevels(())
        levels = await read_levels(self._gateway, record)
        if levels.is_stale:
            del self._records[record.id]  # the next time, it is read again
        return levels

    def _of_limit(self, tier: str | None, rows: Iterable[UsageRow]) -> float | None:
        """Return the share of its tier's limit that it used in its busiest minute, or None without a tier."""
        limits = self._gateway.settings.tiers.get(tier or "")
        a_minute = None if limits is None else limits.per_minute()
        if a_minute is None:
            return None
        in_order = sorted(rows, key=lambda row: row.key.start)
        minutes = groupby(in_order, key=lambda row: row.key.start)
        return max((units_taken(of_minute, self._costs) for _, of_minute in minutes), default=0) / a_minute
