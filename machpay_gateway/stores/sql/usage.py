"""Statements on usage counters. Every worker writes rows in the same order, so that they cannot deadlock."""

from collections.abc import Mapping, Sequence
from functools import cache, reduce
from operator import add
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Executable, Table, and_, delete, desc, func, select
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from machpay_gateway.core.usage.counters import (
    ACCOUNT_PREFIX,
    DAY,
    HOUR,
    MINUTE,
    NO_SUBJECT,
    Bucket,
    Dimension,
    SecretUse,
    UsageBatch,
    UsageKey,
    UsageRow,
    merge_rows,
)
from machpay_gateway.core.usage.ports import UsageStore
from machpay_gateway.stores.schema import LATENCIES, SECRET_USES, USAGE_DAYS, USAGE_HOURS, USAGE_MINUTES
from machpay_gateway.stores.sql.engine import Statements
from machpay_gateway.stores.sql.upsert import dialect_insert

_TABLES: Mapping[Bucket, Table] = {MINUTE: USAGE_MINUTES, HOUR: USAGE_HOURS, DAY: USAGE_DAYS}
_KEY = UsageKey._fields
_LATENCIES = tuple(f"latency_{number:02}" for number in range(LATENCIES))
_SUMS = ("seconds", *_LATENCIES)
_COLUMNS = (*_KEY, *_SUMS)


def _sum_of_requests() -> ColumnElement[Any]:
    return func.sum(reduce(add, (USAGE_MINUTES.c[name] for name in _LATENCIES)))


class SqlUsage(Statements, UsageStore):
    """The usage counters of a database."""

    @override
    async def add_usage(self, batch: UsageBatch) -> None:
        async with self._database.write_transaction("usage") as connection:
            if batch.rows:
                await _add_rows(connection, batch.all_rows)
            if batch.uses:
                await _update_last_uses(connection, batch.uses)

    @override
    async def drop_usage(self, now: float) -> None:
        async with self._database.write_transaction("old usage") as connection:
            for bucket, table in _TABLES.items():
                oldest = bucket.start_of(now - bucket.retention_seconds)
                await connection.execute(delete(table).where(table.c.start < oldest))

    @override
    async def usage(
        self, subject: str, bucket: Bucket, start: int, end: int, *, over: Dimension | None = None
    ) -> Sequence[UsageRow]:
        table = _TABLES[bucket]
        dimensions = [name for name in _KEY if name != over]
        is_within = and_(table.c.subject == subject, table.c.start >= start, table.c.start < end)
        order = [table.c[name] for name in dimensions]
        async with self._database.read_connection("usage") as connection:
            if over is None:
                rows = await connection.execute(
                    select(*order, *(table.c[name] for name in _SUMS)).where(is_within).order_by(*order)
                )
                return [_row(row) for row in rows]
            # PostgreSQL's sum of integers is a numeric.
            sums = (func.sum(table.c[name]).cast(table.c[name].type) for name in _SUMS)
            rows = await connection.execute(select(*order, *sums).where(is_within).group_by(*order).order_by(*order))
            position, blank = _KEY.index(over), {"route": "", "start": start}[over]
            return [_row((*row[:position], blank, *row[position:])) for row in rows]

    @override
    async def busiest_minute(self, subject: str, start: int, end: int) -> tuple[int, int] | None:
        table, requests = USAGE_MINUTES, _sum_of_requests().cast(BigInteger)
        statement = (
            select(table.c.start, requests)
            .where(table.c.subject == subject, table.c.start >= start, table.c.start < end)
            .group_by(table.c.start)
            .order_by(requests.desc(), table.c.start)
            .limit(1)
        )
        async with self._database.read_connection("usage") as connection:
            row = (await connection.execute(statement)).one_or_none()
        return None if row is None else (row[0], row[1])

    @override
    async def busiest(self, since: int, limit: int) -> Sequence[UsageRow]:
        table = USAGE_MINUTES
        is_credential = (table.c.subject != NO_SUBJECT) & ~table.c.subject.startswith(ACCOUNT_PREFIX, autoescape=True)
        top = (
            select(table.c.subject, _sum_of_requests().label("requests"))
            .where(table.c.start >= since, is_credential)
            .group_by(table.c.subject)
            .order_by(desc("requests"), table.c.subject)
            .limit(limit)
            .subquery()
        )
        statement = (
            select(*(table.c[name] for name in (*_KEY, *_SUMS)))
            .join(top, top.c.subject == table.c.subject)
            .where(table.c.start >= since)
            .order_by(top.c.requests.desc(), *(table.c[name] for name in _KEY))
        )
        async with self._database.read_connection("usage") as connection:
            return [_row(row) for row in await connection.execute(statement)]


async def _add_rows(connection: AsyncConnection, rows: Sequence[UsageRow]) -> None:
    # One row a statement, and many rows an execution: SQLite takes at most 32,766 values in one statement.
    for bucket in _TABLES:
        parameters = [
            dict(zip(_COLUMNS, (*row.key, row.seconds, *row.histogram), strict=True))
            for row in merge_rows(rows, bucket)
        ]
        await connection.execute(_add(connection.dialect.name, bucket), parameters)


@cache  # building it takes 1 ms, and every worker adds rows once a second
def _add(dialect: str, bucket: Bucket) -> Executable:
    table = _TABLES[bucket]
    statement = dialect_insert(dialect, table)
    sums = {name: table.c[name] + statement.excluded[name] for name in _SUMS}
    return statement.on_conflict_do_update(index_elements=_KEY, set_=sums)


async def _update_last_uses(connection: AsyncConnection, uses: Sequence[SecretUse]) -> None:
    await connection.execute(
        _set_last_use(connection.dialect.name),
        [{"digest": digest, "key_id": key_id, "last_used_at": at} for digest, key_id, at in sorted(uses)],
    )


@cache
def _set_last_use(dialect: str) -> Executable:
    statement = dialect_insert(dialect, SECRET_USES)
    latest = {"last_used_at": statement.excluded.last_used_at}
    is_later = statement.excluded.last_used_at > SECRET_USES.c.last_used_at
    return statement.on_conflict_do_update(index_elements=["digest"], set_=latest, where=is_later)


def _row(row: Sequence[Any]) -> UsageRow:
    width = len(_KEY)
    return UsageRow(UsageKey(*row[:width]), row[width], tuple(row[width + 1 :]))
