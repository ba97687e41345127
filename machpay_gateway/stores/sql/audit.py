"""Statements on the audit log. A change's row is written in the transaction that makes the change."""

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict

from sqlalchemy import ColumnElement, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from machpay_gateway.core.errors import DuplicateRequest
from machpay_gateway.core.keys.audit import EVERYTHING, AuditFilter, AuditHead, AuditRow, Change, next_row
from machpay_gateway.core.keys.idempotency import completion_marker
from machpay_gateway.core.keys.ports import AuditLog, ChangePage
from machpay_gateway.stores.schema import AUDIT_HEAD, AUDIT_LOG, OAUTH_CLIENTS
from machpay_gateway.stores.sql.engine import Database, Statements
from machpay_gateway.stores.sql.idempotency import insert_response

_FIELDS = [AUDIT_LOG.c[name] for name in AuditRow.__slots__]
_CHANGES = 1000  # in a page
_SET_TIER = "account.set_tier"
_MOST_BEHIND = 20_000  # changes: to load records again costs less than to read more of the log
_CHANGED = select(AUDIT_LOG.c.sequence, AUDIT_LOG.c.digest, AUDIT_LOG.c.action, AUDIT_LOG.c.object_id).order_by(
    AUDIT_LOG.c.sequence
)


class SqlAuditLog(Statements, AuditLog):
    """The audit log of a database."""

    @override
    async def add_change(self, change: Change, once: bytes) -> bool:
        try:
            async with change_transaction(self._database, "audit log") as connection:
                await insert_response(connection, completion_marker(once, change.at))
                await insert_change(connection, change)
        except DuplicateRequest:
            return False
        return True

    @override
    async def audit_head(self) -> AuditHead:
        async with self._database.read_connection("audit log") as connection:
            return await _head(connection)

    @override
    async def changes_after(self, place: AuditHead | None) -> ChangePage:
        async with self._database.read_connection("changes") as connection:
            head = await _head(connection)
            if place is None or head == place:
                return ChangePage(head)
            if not 0 < head.sequence - place.sequence <= _MOST_BEHIND:
                return ChangePage(head, is_continuous=False)
            # From the row of the place on: its digest proves that the log has the same history.
            is_next = AUDIT_LOG.c.sequence.between(place.sequence, place.sequence + _CHANGES)
            rows = (await connection.execute(_CHANGED.where(is_next))).all()
            if place != AuditHead() and (not rows or AuditHead(rows[0].sequence, bytes(rows[0].digest)) != place):
                return ChangePage(head, is_continuous=False)
            ids = [row.object_id for row in rows if row.sequence > place.sequence]
            ids += await _clients_of(connection, {row.object_id for row in rows if row.action == _SET_TIER})
            after = AuditHead(rows[-1].sequence, bytes(rows[-1].digest))
            return ChangePage(after, ids, is_last=after.sequence >= head.sequence)

    @override
    async def audit_page(
        self,
        account_id: str | None,
        *,
        filters: AuditFilter = EVERYTHING,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[AuditRow]:
        statement = select(*_FIELDS).where(*_conditions(filters)).order_by(AUDIT_LOG.c.sequence.desc()).limit(limit)
        if account_id is not None:
            statement = statement.where(AUDIT_LOG.c.account_id == account_id)
        if before is not None:
            statement = statement.where(AUDIT_LOG.c.sequence < before)
        async with self._database.read_connection("audit log") as connection:
            return [AuditRow(*row) for row in await connection.execute(statement)]

    @override
    async def audit_rows(self, after: int, *, limit: int = 1000) -> Sequence[AuditRow]:
        statement = select(*_FIELDS).where(AUDIT_LOG.c.sequence > after).order_by(AUDIT_LOG.c.sequence).limit(limit)
        async with self._database.read_connection("audit log") as connection:
            return [AuditRow(*row) for row in await connection.execute(statement)]


@asynccontextmanager
async def change_transaction(database: Database, operation: str) -> AsyncIterator[AsyncConnection]:
    """Yield a connection in a transaction beside which no other change runs, so that what it checks stays true.

    Raises StoreUnavailable that names *operation*.
    """
    # Every change appends to the log, so changes would wait for one another at the log's head in any case. Waiting
    # before the first statement avoids deadlocks, and a key that is created while its account's tier changes cannot
    # miss the change.
    async with database.write_transaction(operation) as connection:
        if not database.is_sqlite:  # where BEGIN IMMEDIATE has locked the database
            await connection.execute(select(AUDIT_HEAD.c.id).with_for_update())
        yield connection


async def insert_change(connection: AsyncConnection, change: Change) -> int:
    """Append *change* to the log, in a transaction of `change_transaction`. Returns its number."""
    row = next_row(await _head(connection), change)
    await connection.execute(insert(AUDIT_LOG), asdict(row))
    await connection.execute(update(AUDIT_HEAD).values(sequence=row.sequence, digest=row.digest))
    return row.sequence


async def _head(connection: AsyncConnection) -> AuditHead:
    sequence, digest = (await connection.execute(select(AUDIT_HEAD.c.sequence, AUDIT_HEAD.c.digest))).one()
    return AuditHead(sequence, bytes(digest))


async def _clients_of(connection: AsyncConnection, account_ids: Collection[str]) -> Sequence[str]:
    """Return the OAuth clients of accounts: their tokens have their tiers, and do not name these accounts."""
    if not account_ids:
        return ()
    statement = select(OAUTH_CLIENTS.c.id).where(OAUTH_CLIENTS.c.account_id.in_(account_ids))
    return (await connection.execute(statement)).scalars().all()


def _conditions(filters: AuditFilter) -> Iterator[ColumnElement[bool]]:
    """Yield what `AuditFilter.matches` checks, as conditions on rows."""
    columns = AUDIT_LOG.c
    if filters.action is not None:
        if filters.action.endswith("."):
            yield columns.action.startswith(filters.action, autoescape=True)
        else:
            yield columns.action == filters.action
    for column, wanted in ((columns.actor_id, filters.actor_id), (columns.object_id, filters.object_id)):
        if wanted is not None:
            yield column == wanted
    if filters.since is not None:
        yield columns.at >= filters.since
    if filters.until is not None:
        yield columns.at < filters.until
