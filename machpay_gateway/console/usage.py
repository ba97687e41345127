"""The pages on usage: of the account or of one key, as HTML, as JSON for its charts, and as CSV."""

from dataclasses import dataclass
from http import HTTPStatus

import orjson
from starlette.responses import Response, StreamingResponse

from machpay_gateway.console.csv_files import MEDIA_TYPE, file_headers
from machpay_gateway.console.page_request import PageError, PageRequest
from machpay_gateway.console.usage_csv import usage_lines
from machpay_gateway.console.usage_view import KeyLimits, usage_json, usage_tables, usage_texts
from machpay_gateway.core.decision.principal import key_principal
from machpay_gateway.core.decision.request_limits import request_of
from machpay_gateway.core.keys.key import KeyRecord, KeyStatus
from machpay_gateway.core.usage.outcome import OutcomeGroup
from machpay_gateway.core.usage.overview import PERIODS, Overview, OverviewPeriod
from machpay_gateway.telemetry.reports import usage_overview, usage_report

_DEFAULT_PERIOD = "day"
_JSON_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


@dataclass(frozen=True, slots=True)
class OverviewQuery:
    """What to report on: *subject* is the id of the *key*, or of the account when that is None."""

    subject: str
    key: KeyRecord | None
    period: OverviewPeriod


async def show(request: PageRequest) -> Response:
    """Show usage as texts, charts and tables."""
    query = await _parse_query(request)
    overview, limits = await _load_overview(request, query)
    return request.render(
        "usage.html",
        key=query.key,
        period=query.period,
        periods=PERIODS.values(),
        groups=[str(group) for group in OutcomeGroup],
        texts=usage_texts(overview, limits),
        labels={} if limits is None else limits.labels,
        meters=None if limits is None else limits.meters,
        tables=usage_tables(overview, request.gateway.brand),
    )


async def show_json(request: PageRequest) -> Response:
    """Return what the page's script updates the page with."""
    query = await _parse_query(request)
    overview, limits = await _load_overview(request, query)
    body = orjson.dumps(usage_json(overview, limits, request.gateway.brand))
    return Response(body, media_type="application/json", headers=_JSON_HEADERS)


async def export_csv(request: PageRequest) -> Response:
    """Return usage as CSV: one line for each route, outcome and status in each bucket."""
    query = await _parse_query(request)
    start, end = query.period.span(request.now)
    report = await usage_report(
        request.gateway.store, query.subject, start=start, end=end, bucket=query.period.bucket.name
    )
    name = f"usage-{query.subject}-{query.period.name}-{request.now:.0f}.csv"  # made of generated ids only
    # Streamed: Starlette iterates in a thread, so that formatting many lines does not block the event loop.
    return StreamingResponse(usage_lines(report.rows, report.bucket), media_type=MEDIA_TYPE, headers=file_headers(name))


async def _parse_query(request: PageRequest) -> OverviewQuery:
    """Return the validated query. Raises PageError."""
    name, key_id = request.query("period") or _DEFAULT_PERIOD, request.query("key")
    if (period := PERIODS.get(name)) is None:
        raise PageError(HTTPStatus.BAD_REQUEST, f"Invalid period: use {', '.join(PERIODS)}.")
    if not key_id:
        return OverviewQuery(request.user.account_id, None, period)
    return OverviewQuery(key_id, await request.load_key(key_id), period)


async def _load_overview(request: PageRequest, query: OverviewQuery) -> tuple[Overview, KeyLimits | None]:
    costs = None if query.key is None else request.gateway.policy.costs
    overview = await usage_overview(request.gateway.store, query.subject, query.period, request.now, costs=costs)
    return overview, await _load_limits(request, query.key)


async def _load_limits(request: PageRequest, key: KeyRecord | None) -> KeyLimits | None:
    """Return the limits of *key* and what is left of them, None unless it is an active key."""
    if key is None or key.status(request.now) is not KeyStatus.ACTIVE:
        return None
    admission_request = request_of(key_principal(key, key.secrets[0], request.gateway.policy.tiers), None, None)
    return KeyLimits(admission_request.plan, await request.gateway.limiter.remaining(admission_request))
