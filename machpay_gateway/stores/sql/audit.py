"""Statements on the audit log. A change's row is written in the transaction that makes the change."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict

from sqlalchemy import ColumnElement, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from machpay_gateway.core.keys.audit import AuditFilter, AuditHead, AuditRow, Change, next_row
from machpay_gateway.stores.schema import AUDIT_HEAD, AUDIT_LOG
from machpay_gateway.stores.sql.engine import Database

_FIELDS = [AUDIT_LOG.c[name] for name in AuditRow.__slots__]


async def lock_log(connection: AsyncConnection) -> None:
    """Let one transaction at a time make changes, until this one has ended. SQLite's BEGIN IMMEDIATE did already."""
    if connection.dialect.name == "postgresql":
        await connection.execute(select(AUDIT_HEAD.c.id).with_for_update())


@asynccontextmanager
async def changing(database: Database, what: str) -> AsyncIterator[AsyncConnection]:
    """Give a connection in a transaction that no other change runs beside, so that each finds what it checks.

    Raises StoreUnavailable that names *what*.
    """
    # Each change ends at the log's head, so they wait there anyhow. Waiting first, nobody holds a row meanwhile
    # that another needs, and a key that is added while its account's tier changes cannot miss the change.
    async with database.writing(what) as connection:
        await lock_log(connection)
        yield connection


async def insert_change(connection: AsyncConnection, change: Change) -> None:
    """Append *change* to the log, which this transaction has locked."""
    row = next_row(await head(connection), change)
    await connection.execute(insert(AUDIT_LOG), asdict(row))
    await connection.execute(update(AUDIT_HEAD).values(sequence=row.sequence, digest=row.digest))


async def head(connection: AsyncConnection) -> AuditHead:
    """Return the log's head."""
    sequence, digest = (await connection.execute(select(AUDIT_HEAD.c.sequence, AUDIT_HEAD.c.digest))).one()
    return AuditHead(sequence, bytes(digest))


async def rows_before(
    connection: AsyncConnection,
    account_id: str | None,
    *,
    chosen: AuditFilter,
    before: int | None,
    limit: int,
) -> Sequence[AuditRow]:
    """Return at most *limit* rows, newest first, the *chosen* before the sequence number *before*."""
    statement = select(*_FIELDS).where(*_picking(chosen)).order_by(AUDIT_LOG.c.sequence.desc()).limit(limit)
    if account_id is not None:
        statement = statement.where(AUDIT_LOG.c.account_id == account_id)
    if before is not None:
        statement = statement.where(AUDIT_LOG.c.sequence < before)
    return [AuditRow(*row) for row in await connection.execute(statement)]


def _picking(chosen: AuditFilter) -> Iterator[ColumnElement[bool]]:
    """Yield what `AuditFilter.picks` says, as conditions on rows."""
    columns = AUDIT_LOG.c
    if chosen.action is not None:
        is_whole = not chosen.action.endswith(".")
        same = columns.action == chosen.action
        yield same if is_whole else columns.action.startswith(chosen.action, autoescape=True)
    for column, wanted in ((columns.actor_id, chosen.actor_id), (columns.object_id, chosen.object_id)):
        if wanted is not None:
            yield column == wanted
    if chosen.since is not None:
        yield columns.at >= chosen.since
    if chosen.until is not None:
        yield columns.at < chosen.until


async def rows_after(connection: AsyncConnection, after: int, *, limit: int) -> Sequence[AuditRow]:
    """Return at most *limit* rows of everybody, oldest first, those after the sequence number *after*."""
    statement = select(*_FIELDS).where(AUDIT_LOG.c.sequence > after).order_by(AUDIT_LOG.c.sequence).limit(limit)
    return [AuditRow(*row) for row in await connection.execute(statement)]
