"""What a key's requests add up to: the use case that the key API and the command line share."""

from machpay_gateway.core.ports import UsageStore
from machpay_gateway.core.usage import UsageReport, checked_period


async def usage_report(store: UsageStore, key_id: str, *, start: float, end: float, bucket: str) -> UsageReport:
    """Return the key's usage from *start* up to *end*, in whole buckets; whose key it is, the caller has asked before.

    *bucket* is minute, hour or day. Raises InputError.
    """
    length, first, last = checked_period(start, end, bucket)
    return UsageReport(key_id, length, first, last, await store.usage(key_id, length, first, last))
