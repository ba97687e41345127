"""What is asked of the store of usage counters."""

from collections.abc import Sequence
from typing import Protocol

from machpay_gateway.core.usage.counters import Bucket, Dimension, UsageBatch, UsageRow


class UsageSink(Protocol):
    """Where what was counted goes. Raises StoreUnavailable."""

    async def add_usage(self, batch: UsageBatch) -> None:
        """Add *batch* to the minutes, hours and days, and note the uses that are later than those known: all, or none.

        Each length of time is added to by itself, so no job rolls minutes up that could lose or double a count.
        """

    async def drop_usage(self, now: float) -> None:
        """Drop what is older at *now*, seconds since the epoch, than its length of time is kept."""


class UsageStore(UsageSink, Protocol):
    """The source of truth for what was counted. Raises StoreUnavailable."""

    async def usage(
        self, subject: str, bucket: Bucket, start: int, end: int, *, over: Dimension | None = None
    ) -> Sequence[UsageRow]:
        """Return the rows of *subject* by *bucket*, those that start in [*start*, *end*), in order.

        Added up *over* routes or starts they are as `summed_over` has them: so many fewer that people can wait for it.
        """

    async def busiest_minute(self, subject: str, start: int, end: int) -> tuple[int, int] | None:
        """Return the start of the minute in [*start*, *end*) with the most requests, the first such, and how many."""

    async def busiest(self, since: int, limit: int) -> Sequence[UsageRow]:
        """Return the minutes from *since* on of the *limit* keys and grants with the most requests, those first.

        What is counted of a whole account, or of nobody, is left out.
        """
