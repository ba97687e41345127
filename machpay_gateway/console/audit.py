"""The audit log page and its CSV export: the account's entries, newest first."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.responses import Response, StreamingResponse

from machpay_gateway.console.audit_descriptions import (
    ACTIONS,
    CATEGORIES,
    SettingChange,
    describe_action,
    describe_actor,
    setting_changes,
)
from machpay_gateway.console.csv_files import MEDIA_TYPE, file_headers, format_csv
from machpay_gateway.console.page_request import PageRequest
from machpay_gateway.core.errors import Unavailable
from machpay_gateway.core.keys.audit import AuditFilter, AuditRow
from machpay_gateway.core.keys.key import DAY_SECONDS, is_id
from machpay_gateway.core.text import format_moment

_PAGE_SIZE, _EXPORT_BATCH_SIZE, _MAX_EXPORTED_ROWS = 50, 1000, 10_000
_MAX_FILTER_LENGTH = 200
_DATE_FORMAT = "%Y-%m-%d"
_MAX_SEQUENCE = 2**63 - 1  # the maximum of a BIGINT column
_COLUMNS = (
    "number",
    "at",
    "actor kind",
    "actor id",
    "actor e-mail",
    "address",
    "action",
    "object",
    "before",
    "after",
    "request id",
)


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """The filters as entered. A query with an *error* matches no rows."""

    action: str = ""
    actor: str = ""
    object_id: str = ""
    since: str = ""
    until: str = ""
    error: str = ""

    @property
    def parameters(self) -> dict[str, str]:
        """The URL query parameters of these filters, without empty ones."""
        parameters = {
            "action": self.action,
            "who": self.actor,
            "object": self.object_id,
            "from": self.since,
            "until": self.until,
        }
        return {name: value for name, value in parameters.items() if value}


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An entry of the audit log page: a *row* with its descriptions and the emails of the account's users.

    *object_path* is the path of the object's page, or empty.
    """

    row: AuditRow
    action: str
    actor: str
    actor_email: str | None
    object_email: str | None
    object_path: str
    changes: Sequence[SettingChange]


async def index(request: PageRequest) -> Response:
    """Return the page of the account's entries that match the filters, newest first."""
    query, before = _parse_query(request), _parse_sequence(request.query("before"))
    rows = await _find_rows(request, query, before=before, limit=_PAGE_SIZE + 1)
    emails = await _load_emails(request, rows)
    return request.render(
        "audit.html",
        query=query,
        before=before,
        entries=[_to_entry(row, emails) for row in rows[:_PAGE_SIZE]],
        has_more=len(rows) > _PAGE_SIZE,
        categories=CATEGORIES,
        actions=ACTIONS,
    )


async def export_csv(request: PageRequest) -> Response:
    """Return the newest entries that match the filters as CSV."""
    query = _parse_query(request)
    # The first batch is read before the response starts, so that an outage gets an error page.
    first_batch = await _find_rows(request, query, before=None, limit=_EXPORT_BATCH_SIZE)

    async def csv_batches() -> AsyncIterator[str]:
        yield format_csv([_COLUMNS])
        rows, remaining = first_batch, _MAX_EXPORTED_ROWS
        while rows and remaining > 0:
            try:
                emails = await _load_emails(request, rows)
                yield format_csv(_csv_row(row, emails) for row in rows)
                remaining -= len(rows)
                limit = min(_EXPORT_BATCH_SIZE, remaining)
                rows = await _find_rows(request, query, before=rows[-1].sequence, limit=limit)
            except Unavailable:  # the response has started, so the file itself has to report the error
                yield format_csv([["The database is unavailable. Older entries are missing."]])
                return

    return StreamingResponse(csv_batches(), media_type=MEDIA_TYPE, headers=file_headers("audit-log.csv"))


def _parse_query(request: PageRequest) -> AuditQuery:
    action = request.query("action")
    since, until = request.query("from")[:_MAX_FILTER_LENGTH], request.query("until")[:_MAX_FILTER_LENGTH]
    invalid = next((text for text in (since, until) if text and _parse_day(text) is None), "")
    return AuditQuery(
        action=action if action in CATEGORIES or action in ACTIONS else "",
        actor=request.query("who")[:_MAX_FILTER_LENGTH],
        object_id=request.query("object")[:_MAX_FILTER_LENGTH],
        since=since,
        until=until,
        error=f"“{invalid}” is not a date such as 2030-01-31." if invalid else "",
    )


async def _find_rows(request: PageRequest, query: AuditQuery, *, before: int | None, limit: int) -> Sequence[AuditRow]:
    # Invalid ids are not sent to the database: some characters make a statement fail.
    if query.error or not query.actor.isprintable() or (query.object_id and not is_id(query.object_id)) or not limit:
        return []
    user = await request.gateway.users.find(request.user.account_id, query.actor) if "@" in query.actor else None
    until = _parse_day(query.until)
    filters = AuditFilter(
        action=query.action or None,
        actor_id=(query.actor if user is None else user.id) or None,
        object_id=query.object_id or None,
        since=_parse_day(query.since),
        until=None if until is None else until + DAY_SECONDS,  # the day itself is included
    )
    store = request.gateway.store
    return await store.audit_page(request.user.account_id, filters=filters, before=before, limit=limit)


async def _load_emails(request: PageRequest, rows: Sequence[AuditRow]) -> Mapping[str, str]:
    """Return the emails of the account's users that *rows* mention, by id."""
    ids = (user_id for row in rows for user_id in (row.actor_id, row.object_id))
    return await request.gateway.users.emails(request.user.account_id, ids)


def _to_entry(row: AuditRow, emails: Mapping[str, str]) -> AuditEntry:
    prefix, _, _ = row.object_id.partition("_")
    collection = {"key": "keys", "app": "apps"}.get(prefix, "")
    return AuditEntry(
        row,
        describe_action(row.action),
        describe_actor(row.actor_kind),
        emails.get(row.actor_id),
        emails.get(row.object_id),
        f"/{collection}/{row.object_id}" if collection else "",
        setting_changes(row),
    )


def _csv_row(row: AuditRow, emails: Mapping[str, str]) -> Sequence[str]:
    return (
        str(row.sequence),
        format_moment(row.at),
        row.actor_kind,
        row.actor_id,
        emails.get(row.actor_id, ""),
        row.address or "",
        row.action,
        row.object_id,
        row.before,
        row.after,
        row.request_id or "",
    )


def _parse_day(text: str) -> float | None:
    """Return the start of the day in UTC; None if *text* is not a date."""
    with suppress(ValueError):
        return datetime.strptime(text, _DATE_FORMAT).replace(tzinfo=UTC).timestamp()
    return None


def _parse_sequence(text: str) -> int | None:
    """Return the sequence number; None if *text* is not one.

    The length is checked first, because parsing takes quadratic time.
    """
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(_MAX_SEQUENCE))
    return int(text) if is_number and int(text) <= _MAX_SEQUENCE else None
