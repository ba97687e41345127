"""What the store of usage counters provides."""

from collections.abc import Sequence
from typing import Protocol

from machpay_gateway.core.usage.counters import Bucket, Dimension, UsageBatch, UsageRow


class UsageSink(Protocol):
    """Where usage counters are written. Raises StoreUnavailable."""

    async def add_usage(self, batch: UsageBatch) -> None:
        """Add *batch*, and store the latest use of each secret: all of it, or nothing. Readers see it at once."""

    async def drop_usage(self, now: float) -> None:
        """Sum up hours and days that are over at *now*, seconds since the epoch, and delete what is past its retention.

        Several workers may do so at once.
        """


class UsageStore(UsageSink, Protocol):
    """The source of truth for usage counters. Raises StoreUnavailable."""

    async def usage(
        self, subject: str, bucket: Bucket, start: int, end: int, *, over: Dimension | None = None
    ) -> Sequence[UsageRow]:
        """Return the rows of *subject* by *bucket*, those that start in [*start*, *end*), in order.

        They are added up *over* routes or starts as by `sum_over`, which keeps the result small.
        """

    async def busiest_minute(self, subject: str, start: int, end: int) -> tuple[int, int] | None:
        """Return the start of the first minute in [*start*, *end*) with the most requests, and their number."""

    async def busiest(self, since: int, limit: int) -> Sequence[UsageRow]:
        """Return the minutes from *since* on of the *limit* keys and grants with the most requests, busiest first.

        Counters of whole accounts and of unidentified callers are left out.
        """
