"""The pages on usage: of the account or of one key, over some time, with what scripts and spreadsheets are given."""

from dataclasses import dataclass
from http import HTTPStatus

import orjson
from starlette.responses import Response, StreamingResponse

from machpay_gateway.console.csv_files import MEDIA_TYPE, file_headers
from machpay_gateway.console.page_request import PageError, PageRequest
from machpay_gateway.console.usage_csv import usage_lines
from machpay_gateway.console.usage_view import LimitMeters, document_of, tables_of, told_of
from machpay_gateway.core.decision.principal import known_tier
from machpay_gateway.core.keys.key import KeyRecord, KeyStatus
from machpay_gateway.core.limits.admission import AdmissionRequest
from machpay_gateway.core.usage.outcome import OutcomeGroup
from machpay_gateway.core.usage.overview import PERIODS, Overview, OverviewPeriod
from machpay_gateway.telemetry.reports import usage_overview, usage_report

_DEFAULT = "day"
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


@dataclass(frozen=True, slots=True)
class _UsageQuery:
    """Whose usage over which *period*: that of a *key*, or of the whole account."""

    subject: str
    key: KeyRecord | None
    period: OverviewPeriod


async def show(visit: PageRequest) -> Response:
    """Show what was counted."""
    asked = await _asked(visit)
    overview, limits = await _found(visit, asked)
    return visit.page(
        "usage.html",
        key=asked.key,
        period=asked.period,
        periods=PERIODS.values(),
        groups=[str(group) for group in OutcomeGroup],
        told_of=told_of(overview, limits),
        meters=None if limits is None else limits.meters,
        tables=tables_of(overview),
    )


async def document(visit: PageRequest) -> Response:
    """Tell scripts what was counted by now."""
    asked = await _asked(visit)
    overview, limits = await _found(visit, asked)
    body = orjson.dumps(document_of(overview, limits))
    return Response(body, media_type="application/json", headers=_HEADERS)


async def spreadsheet(visit: PageRequest) -> Response:
    """Return what was counted as CSV: a line for each kind in each bucket."""
    asked = await _asked(visit)
    start, end = asked.period.span(visit.now)
    report = await usage_report(
        visit.gateway.store, asked.subject, start=start, end=end, bucket=asked.period.bucket.name
    )
    name = f"usage-{asked.subject}-{asked.period.name}-{visit.now:.0f}.csv"  # of ids of ours alone
    # Not at once, and not in the event loop: it may be long, and requests are decided there.
    return StreamingResponse(usage_lines(report.rows, report.bucket), media_type=MEDIA_TYPE, headers=file_headers(name))


async def _asked(visit: PageRequest) -> _UsageQuery:
    name, key_id = visit.asked("period") or _DEFAULT, visit.asked("key")
    if (period := PERIODS.get(name)) is None:
        raise PageError(HTTPStatus.BAD_REQUEST, f"There is no such period: use {', '.join(PERIODS)}.")
    if not key_id:
        return _UsageQuery(visit.user.account_id, None, period)
    return _UsageQuery(key_id, await visit.key(key_id), period)


async def _found(visit: PageRequest, asked: _UsageQuery) -> tuple[Overview, LimitMeters | None]:
    costs = None if asked.key is None else visit.gateway.policy.costs
    overview = await usage_overview(visit.gateway.store, asked.subject, asked.period, visit.now, costs=costs)
    return overview, await _limits(visit, asked.key)


async def _limits(visit: PageRequest, key: KeyRecord | None) -> LimitMeters | None:
    """Return what *key* has left; None when nothing can be asked of it any more."""
    if key is None or key.status(visit.now) is not KeyStatus.ACTIVE:
        return None
    tiers = visit.gateway.policy.tiers
    tier = tiers[known_tier(key.tier, tiers)]
    return LimitMeters(tier, await visit.gateway.limiter.remaining(AdmissionRequest(key.id, key.version, tier, 0)))
