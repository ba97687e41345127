"""The busiest keys of the last minutes by the stored usage, for `machpay-gateway top`."""

import time
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from machpay_gateway.core.errors import Unavailable
from machpay_gateway.core.text import format_moment
from machpay_gateway.core.usage.counters import MINUTE, UsageRow, sum_of, units_taken
from machpay_gateway.gateway import Gateway

_MINUTES = 2  # the current one and the one before: usage is stored by whole minutes
_NOT_ANSWERING = "the database does not answer"


class TopKeys:
    """Queries the busiest keys, and caches their names."""

    def __init__(self, gateway: Gateway, limit: int, *, clock: Callable[[], float] = time.time) -> None:
        """Query at most *limit* keys from the store of *gateway*. *clock* is in seconds since the epoch."""
        self._gateway = gateway
        self._limit = limit
        self._clock = clock
        self._costs = gateway.policy.costs
        self._names: dict[str, tuple[str | None, str | None]] = {}

    async def document(self) -> dict[str, Any]:
        """Return the busiest keys as JSON, or why they are not available."""
        since = MINUTE.start_of(self._clock()) - (_MINUTES - 1) * MINUTE.seconds
        document: dict[str, Any] = {"since": format_moment(since), "data": [], "mistake": None}
        try:
            await self._gateway.lifecycle.open()
            rows = await self._gateway.store.busiest(since, self._limit)
            for subject, of_key in groupby(rows, key=lambda row: row.key.subject):
                document["data"].append(await self._key(subject, list(of_key)))
        except Unavailable:
            document["mistake"] = _NOT_ANSWERING
        return document

    async def _key(self, subject: str, rows: list[UsageRow]) -> dict[str, Any]:
        name, tier = await self._name_and_tier(subject)
        total = sum_of(rows)
        return {
            "id": subject,
            "name": name,
            "tier": tier,
            "requests": total.requests,
            "outcomes": dict(sorted(total.outcomes.items(), key=lambda each: (-each[1], each[0]))),
            "of_limit": self._of_limit(tier, rows),
        }

    async def _name_and_tier(self, subject: str) -> tuple[str | None, str | None]:
        """Return the name and tier of a key; a grant has neither."""
        if subject not in self._names:
            record = await self._gateway.keys.get(None, subject)
            self._names[subject] = (None, None) if record is None else (record.name, record.tier)
        return self._names[subject]

    def _of_limit(self, tier: str | None, rows: Iterable[UsageRow]) -> float | None:
        """Return the share of its tier's limit that it used in its busiest minute, or None without a tier."""
        limits = self._gateway.settings.tiers.get(tier or "")
        a_minute = None if limits is None else limits.per_minute()
        if a_minute is None:
            return None
        in_order = sorted(rows, key=lambda row: row.key.start)
        minutes = groupby(in_order, key=lambda row: row.key.start)
        return max((units_taken(of_minute, self._costs) for _, of_minute in minutes), default=0) / a_minute
