"""Statements on the audit log. A change's row is written in the transaction that makes the change."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict

from sqlalchemy import ColumnElement, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from machpay_gateway.core.errors import DuplicateRequest
from machpay_gateway.core.keys.audit import EVERYTHING, AuditFilter, AuditHead, AuditRow, Change, next_row
from machpay_gateway.core.keys.idempotency import completion_marker
from machpay_gateway.core.keys.ports import AuditLog
from machpay_gateway.stores.schema import AUDIT_HEAD, AUDIT_LOG
from machpay_gateway.stores.sql.engine import Database, Statements
from machpay_gateway.stores.sql.idempotency import insert_response

_FIELDS = [AUDIT_LOG.c[name] for name in AuditRow.__slots__]


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


async def insert_change(connection: AsyncConnection, change: Change) -> None:
    """Append *change* to the log, in a transaction of `change_transaction`."""
    row = next_row(await _head(connection), change)
    await connection.execute(insert(AUDIT_LOG), asdict(row))
    await connection.execute(update(AUDIT_HEAD).values(sequence=row.sequence, digest=row.digest))


async def _head(connection: AsyncConnection) -> AuditHead:
    sequence, digest = (await connection.execute(select(AUDIT_HEAD.c.sequence, AUDIT_HEAD.c.digest))).one()
    return AuditHead(sequence, bytes(digest))


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
