"""The pages on the audit log: who changed what, newest first, and the same as a file."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.responses import Response, StreamingResponse

from machpay_gateway.console.audit_descriptions import (
    ACTIONS,
    KINDS,
    Difference,
    action_in_words,
    actor_in_words,
    differences,
)
from machpay_gateway.console.csv_files import MEDIA_TYPE, as_csv, file_headers
from machpay_gateway.console.page_request import PageRequest
from machpay_gateway.core.errors import Unavailable
from machpay_gateway.core.keys.audit import AuditFilter, AuditRow
from machpay_gateway.core.keys.key import DAY_SECONDS, is_id
from machpay_gateway.core.text import format_moment

_PAGE, _BATCH, _MOST_EXPORTED = 50, 1000, 10_000
_LONGEST = 200
_DATE = "%Y-%m-%d"
_LAST = 2**63 - 1  # what a database's column can count to
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
    """What a look at the log asks for, as it was written; *mistake* says why it can be no row."""

    action: str = ""
    who: str = ""
    object_id: str = ""
    since: str = ""
    until: str = ""
    mistake: str = ""

    @property
    def query(self) -> dict[str, str]:
        """How an address says the same."""
        named = {"action": self.action, "who": self.who, "object": self.object_id}
        return {name: value for name, value in (named | {"from": self.since, "until": self.until}).items() if value}


@dataclass(frozen=True, slots=True)
class AuditLine:
    """A *row* as the page tells it, with the e-mails of the actor and the object if these are users of the account.

    *page* is where its object is shown, or nothing.
    """

    row: AuditRow
    action: str
    actor: str
    email: str | None
    object_email: str | None
    page: str
    differences: Sequence[Difference]


async def table(visit: PageRequest) -> Response:
    """Show the account's changes, newest first: those that were asked for."""
    asked, before = _asked(visit), _number(visit.asked("before"))
    rows = await _rows(visit, asked, before=before, limit=_PAGE + 1)
    emails = await _emails(visit, rows)
    return visit.page(
        "audit.html",
        asked=asked,
        before=before,
        told_rows=[_told(row, emails) for row in rows[:_PAGE]],
        has_more=len(rows) > _PAGE,
        kinds=KINDS,
        actions=ACTIONS,
    )


async def export(visit: PageRequest) -> Response:
    """Send the changes that were asked for as a file, as many as it may have."""
    asked = _asked(visit)
    first = await _rows(visit, asked, before=None, limit=_BATCH)  # a store that is away is told by a page

    async def lines() -> AsyncIterator[str]:
        yield as_csv([_COLUMNS])
        rows, left = first, _MOST_EXPORTED
        while rows and left > 0:
            try:
                emails = await _emails(visit, rows)
                yield as_csv(_cells(row, emails) for row in rows)
                left -= len(rows)
                rows = await _rows(visit, asked, before=rows[-1].sequence, limit=min(_BATCH, left))
            except Unavailable:  # the answer has begun: only the file itself can say that it is not whole
                yield as_csv([["The database did not answer: what is older is missing."]])
                return

    return StreamingResponse(lines(), media_type=MEDIA_TYPE, headers=file_headers("audit-log.csv"))


def _asked(visit: PageRequest) -> AuditQuery:
    action = visit.asked("action")
    since, until = visit.asked("from")[:_LONGEST], visit.asked("until")[:_LONGEST]
    wrong = next((text for text in (since, until) if text and _day(text) is None), "")
    return AuditQuery(
        action=action if action in KINDS or action in ACTIONS else "",
        who=visit.asked("who")[:_LONGEST],
        object_id=visit.asked("object")[:_LONGEST],
        since=since,
        until=until,
        mistake=f"“{wrong}” is no date, such as 2030-01-31." if wrong else "",
    )


async def _rows(visit: PageRequest, asked: AuditQuery, *, before: int | None, limit: int) -> Sequence[AuditRow]:
    # What nothing can be called must not reach a database, which may choke on it.
    if asked.mistake or not asked.who.isprintable() or (asked.object_id and not is_id(asked.object_id)) or not limit:
        return []
    named = await visit.gateway.users.find(visit.user.account_id, asked.who) if "@" in asked.who else None
    until = _day(asked.until)
    chosen = AuditFilter(
        action=asked.action or None,
        actor_id=(asked.who if named is None else named.id) or None,
        object_id=asked.object_id or None,
        since=_day(asked.since),
        until=None if until is None else until + DAY_SECONDS,  # that day too
    )
    store = visit.gateway.store
    return await store.audit_page(visit.user.account_id, chosen=chosen, before=before, limit=limit)


async def _emails(visit: PageRequest, rows: Sequence[AuditRow]) -> Mapping[str, str]:
    """Return the e-mails of the account's users whom *rows* are by or about."""
    ids = (user_id for row in rows for user_id in (row.actor_id, row.object_id))
    return await visit.gateway.users.emails(visit.user.account_id, ids)


def _told(row: AuditRow, emails: Mapping[str, str]) -> AuditLine:
    kind, _, _ = row.object_id.partition("_")
    place = {"key": "keys", "app": "apps"}.get(kind, "")
    return AuditLine(
        row,
        action_in_words(row.action),
        actor_in_words(row.actor_kind),
        emails.get(row.actor_id),
        emails.get(row.object_id),
        f"/{place}/{row.object_id}" if place else "",
        differences(row),
    )


def _cells(row: AuditRow, emails: Mapping[str, str]) -> Sequence[str]:
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


def _day(text: str) -> float | None:
    """Return when the day *text* begins in UTC, None for what is no date."""
    with suppress(ValueError):
        return datetime.strptime(text, _DATE).replace(tzinfo=UTC).timestamp()
    return None


def _number(text: str) -> int | None:
    return (
        int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(_LAST)) and int(text) <= _LAST else None
    )
