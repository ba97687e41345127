"""What requests add up to: the use cases that the key API, the command line and the Console share."""

from machpay_gateway.core.overview import Busiest, Overview, Period, overview_of
from machpay_gateway.core.ports import UsageStore
from machpay_gateway.core.usage import MINUTE, UsageReport, checked_period


async def usage_report(store: UsageStore, subject: str, *, start: float, end: float, bucket: str) -> UsageReport:
    """Return the usage of a key or an account from *start* up to *end*, in whole buckets.

    Whose key it is, the caller has asked before. *bucket* is minute, hour or day. Raises InputError.
    """
    length, first, last = checked_period(start, end, bucket)
    return UsageReport(subject, length, first, last, await store.usage(subject, length, first, last))


async def usage_overview(store: UsageStore, subject: str, period: Period, now: float, *, is_limited: bool) -> Overview:
    """Return the usage of a key or an account in the *period* up to *now*, in whole buckets.

    The busiest minute is looked for among all that are kept, where there is a limit to set it against: *is_limited*.
    """
    bucket, first, last = checked_period(now - period.seconds, now, period.bucket.name)
    since = max(first, MINUTE.start_of(now - MINUTE.kept_seconds))
    busiest = await store.busiest_minute(subject, since, last) if is_limited else None
    return overview_of(
        subject,
        period,
        first,
        last,
        over_time=await store.usage(subject, bucket, first, last, over="route"),
        by_route=await store.usage(subject, bucket, first, last, over="start"),
        busiest=None if busiest is None else Busiest(*busiest),
    )
