"""Reports of stored usage, for the key API, the command line and the Console."""

from collections.abc import Mapping

from machpay_gateway.core.usage.counters import MINUTE, UsageReport, parse_period, units_taken
from machpay_gateway.core.usage.overview import BusiestMinute, Overview, OverviewPeriod, build_overview
from machpay_gateway.core.usage.ports import UsageStore


async def usage_report(store: UsageStore, subject: str, *, start: float, end: float, bucket: str) -> UsageReport:
    """Return the usage of a key or an account from *start* up to *end*, in whole buckets.

    The caller has checked that the key belongs to the account. *bucket* is minute, hour or day. Raises InputError.
    """
    length, first, last = parse_period(start, end, bucket)
    return UsageReport(subject, length, first, last, await store.usage(subject, length, first, last))


async def usage_overview(
    store: UsageStore, subject: str, period: OverviewPeriod, now: float, *, costs: Mapping[str, int] | None
) -> Overview:
    """Return the usage of a key or an account in the *period* that ends at *now*.

    With *costs*, those of routes, it includes the busiest of all stored minutes, to compare with a limit.
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
    busiest = await store.busiest_minute(subject, start, end)
    if busiest is None:
        return None
    begin, requests = busiest
    return BusiestMinute(begin, requests, units_taken(await store.usage(subject, MINUTE, begin, begin + 1), costs))
