"""What requests add up to: the use cases that the key API, the command line and the Console share."""

from collections.abc import Mapping

from machpay_gateway.core.usage.counters import MINUTE, UsageReport, parse_period, units_taken
from machpay_gateway.core.usage.overview import BusiestMinute, Overview, OverviewPeriod, build_overview
from machpay_gateway.core.usage.ports import UsageStore


async def usage_report(store: UsageStore, subject: str, *, start: float, end: float, bucket: str) -> UsageReport:
    """Return the usage of a key or an account from *start* up to *end*, in whole buckets.

    Whose key it is, the caller has asked before. *bucket* is minute, hour or day. Raises InputError.
    """
    length, first, last = parse_period(start, end, bucket)
    return UsageReport(subject, length, first, last, await store.usage(subject, length, first, last))


async def usage_overview(
    store: UsageStore, subject: str, period: OverviewPeriod, now: float, *, costs: Mapping[str, int] | None
) -> Overview:
    """Return the usage of a key or an account in the *period* that *now* is at the end of.

    The busiest minute is looked for among all that are kept, where there is a limit to set it against: where *costs*,
    those of routes, is not None.
    """
    bucket, (first, last) = period.bucket, period.span(now)
    since = max(first, MINUTE.start_of(now - MINUTE.retention_seconds))
    return build_overview(
        period,
        first,
        last,
        over_time=await store.usage(subject, bucket, first, last, over="route"),
        by_route=await store.usage(subject, bucket, first, last, over="start"),
        busiest=None if costs is None else await _busiest(store, subject, since, last, costs),
    )


async def _busiest(
    store: UsageStore, subject: str, start: int, end: int, costs: Mapping[str, int]
) -> BusiestMinute | None:
    found = await store.busiest_minute(subject, start, end)
    if found is None:
        return None
    begin, requests = found
    return BusiestMinute(begin, requests, units_taken(await store.usage(subject, MINUTE, begin, begin + 1), costs))
