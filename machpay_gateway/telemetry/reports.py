"""What a key's requests add up to: the use case that the key API and the command line share."""

from collections.abc import Awaitable, Callable

from machpay_gateway.core.key import KeyRecord
from machpay_gateway.core.ports import UsageStore
from machpay_gateway.core.usage import UsageReport, checked_period

Find = Callable[[str | None, str], Awaitable[KeyRecord | None]]


class UsageReports:
    """Usage as it is stored. *find* returns the key of an account, None for an operator's, by its id."""

    def __init__(self, store: UsageStore, find: Find) -> None:
        self._store = store
        self._find = find

    async def of_key(
        self, account_id: str | None, key_id: str, *, start: float, end: float, bucket: str
    ) -> UsageReport | None:
        """Return the key's usage from *start* up to *end*, in whole buckets; None when it is not the account's.

        *bucket* is minute, hour or day. Raises InputError.
        """
        length, first, last = checked_period(start, end, bucket)
        if await self._find(account_id, key_id) is None:
            return None
        return UsageReport(key_id, length, first, last, await self._store.usage(key_id, length, first, last))
