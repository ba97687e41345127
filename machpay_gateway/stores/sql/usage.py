"""Statements on what was counted. Rows are written in one order everywhere, so that workers do not wait in a circle."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

from sqlalchemy import BigInteger, Row, Table, delete, desc, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from machpay_gateway.core.usage.counters import (
    ACCOUNT_PREFIX,
    DAY,
    HOUR,
    MINUTE,
    NO_SUBJECT,
    Bucket,
    Dimension,
    SecretUse,
    UsageKey,
    UsageRow,
    merge_rows,
)
from machpay_gateway.stores.schema import LATENCIES, SECRET_USES, USAGE_DAYS, USAGE_HOURS, USAGE_MINUTES
from machpay_gateway.stores.sql.upsert import insert_or

_TABLES: Mapping[Bucket, Table] = {MINUTE: USAGE_MINUTES, HOUR: USAGE_HOURS, DAY: USAGE_DAYS}
_KEY = UsageKey._fields
_LATENCIES = tuple(f"latency_{number:02}" for number in range(LATENCIES))
_SUMS = ("seconds", *_LATENCIES)


async def add_rows(connection: AsyncConnection, rows: Sequence[UsageRow]) -> None:
    """Add *rows* to every table."""
    for bucket, table in _TABLES.items():
        statement = insert_or(connection.dialect.name, table)
        sums = {name: table.c[name] + statement.excluded[name] for name in _SUMS}
        # One statement a row, many rows a call: SQLite allows no more than 32,766 values in one statement.
        await connection.execute(
            statement.on_conflict_do_update(index_elements=_KEY, set_=sums),
            [
                {**row.key._asdict(), "seconds": row.seconds, **dict(zip(_LATENCIES, row.histogram, strict=True))}
                for row in merge_rows(rows, bucket)
            ],
        )


async def note_uses(connection: AsyncConnection, uses: Sequence[SecretUse]) -> None:
    """Note the *uses* that are later than those known."""
    statement = insert_or(connection.dialect.name, SECRET_USES)
    latest = {"last_used_at": statement.excluded.last_used_at}
    is_later = statement.excluded.last_used_at > SECRET_USES.c.last_used_at
    await connection.execute(
        statement.on_conflict_do_update(index_elements=["digest"], set_=latest, where=is_later),
        [{"digest": digest, "key_id": key_id, "last_used_at": at} for digest, key_id, at in sorted(uses)],
    )


async def rows_of(
    connection: AsyncConnection, subject: str, bucket: Bucket, start: int, end: int
) -> Sequence[UsageRow]:
    """Return the rows of *subject* that start in [*start*, *end*), in order."""
    table = _TABLES[bucket]
    statement = (
        select(*(table.c[name] for name in (*_KEY, *_SUMS)))
        .where(table.c.subject == subject, table.c.start >= start, table.c.start < end)
        .order_by(*(table.c[name] for name in _KEY))
    )
    return [_row(found) for found in await connection.execute(statement)]


async def busiest(connection: AsyncConnection, since: int, limit: int) -> Sequence[UsageRow]:
    """Return the minutes from *since* on of the *limit* keys and grants with the most requests in them, those first."""
    table = USAGE_MINUTES
    requests = reduce(add, (table.c[name] for name in _LATENCIES))
    is_of_one = (table.c.subject != NO_SUBJECT) & ~table.c.subject.startswith(ACCOUNT_PREFIX, autoescape=True)
    totals = (
        select(table.c.subject, func.sum(requests).label("requests"))
        .where(table.c.start >= since, is_of_one)
        .group_by(table.c.subject)
    )
    top = totals.order_by(desc("requests"), table.c.subject).limit(limit).subquery()
    statement = (
        select(*(table.c[name] for name in (*_KEY, *_SUMS)))
        .join(top, top.c.subject == table.c.subject)
        .where(table.c.start >= since)
        .order_by(top.c.requests.desc(), *(table.c[name] for name in _KEY))
    )
    return [_row(found) for found in await connection.execute(statement)]


async def sums_of(
    connection: AsyncConnection, subject: str, bucket: Bucket, start: int, end: int, *, over: Dimension
) -> Sequence[UsageRow]:
    """Return the rows of *subject* that start in [*start*, *end*) added up *over* routes or starts, in order."""
    table = _TABLES[bucket]
    kept = [name for name in _KEY if name != over]
    sums = (func.sum(table.c[name]).cast(table.c[name].type) for name in _SUMS)  # PostgreSQL's sums are longer numbers
    statement = (
        select(*(table.c[name] for name in kept), *sums)
        .where(table.c.subject == subject, table.c.start >= start, table.c.start < end)
        .group_by(*(table.c[name] for name in kept))
        .order_by(*(table.c[name] for name in kept))
    )
    blank = {"route": "", "start": start}[over]
    width = len(kept)
    return [
        UsageRow(UsageKey(**{over: blank, **dict(zip(kept, row, strict=False))}), row[width], tuple(row[width + 1 :]))
        for row in await connection.execute(statement)
    ]


async def busiest_minute(connection: AsyncConnection, subject: str, start: int, end: int) -> tuple[int, int] | None:
    """Return the start of the minute in [*start*, *end*) with the most requests, the first such, and how many."""
    table = USAGE_MINUTES
    requests = func.sum(reduce(add, (table.c[name] for name in _LATENCIES))).cast(BigInteger)
    statement = (
        select(table.c.start, requests)
        .where(table.c.subject == subject, table.c.start >= start, table.c.start < end)
        .group_by(table.c.start)
        .order_by(requests.desc(), table.c.start)
        .limit(1)
    )
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else (row[0], row[1])


async def delete_old(connection: AsyncConnection, now: float) -> None:
    """Delete what is older at *now* than it is kept."""
    for bucket, table in _TABLES.items():
        await connection.execute(delete(table).where(table.c.start < bucket.start_of(now - bucket.retention_seconds)))


def _row(found: Row[Any]) -> UsageRow:
    width = len(_KEY)
    return UsageRow(UsageKey(*found[:width]), found[width], tuple(found[width + 1 :]))
