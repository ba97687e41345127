"""Statements on usage counters. Every worker writes rows in the same order, so that they cannot deadlock.

A batch is added to minutes. The hours and days of a row are the sums of its minutes and hours, made once they are over
by whichever worker comes first. Readers of an hour that is not summed up yet add up its minutes.

How far the sums reach is stored in the tables themselves, as the start of a row of `_SUMMED`: the rows of a table that
start before it are complete, and what is counted for them later is added to them, too. Releases before this one add
each batch to all three tables: a sum of minutes includes theirs, and they can use the database at the same time.
"""

from collections.abc import Mapping, Sequence
from functools import cache, reduce
from operator import add
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    Select,
    Subquery,
    Table,
    and_,
    delete,
    desc,
    func,
    insert,
    select,
    text,
    union_all,
    update,
)
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
from machpay_gateway.stores.sql.upsert import dialect_insert, insert_many, many_values

_TABLES: Mapping[Bucket, Table] = {MINUTE: USAGE_MINUTES, HOUR: USAGE_HOURS, DAY: USAGE_DAYS}
_SUMMED_FROM: Mapping[Bucket, Bucket] = {HOUR: MINUTE, DAY: HOUR}
_SUMMED = ":summed"  # no subject, so no reader sees its rows
_EVER = 2**53  # after every start
# How long after its end an hour is summed up. What arrives later is added to the sum, so this only saves work.
_SUM_DELAY_SECONDS = 300
_KEY = UsageKey._fields
_LATENCIES = tuple(f"latency_{number:02}" for number in range(LATENCIES))
_SUMS = ("seconds", *_LATENCIES)
_COLUMNS = (*_KEY, *_SUMS)
_USE_COLUMNS = ("digest", "key_id", "last_used_at")


class _SummedUntil(NamedTuple):
    """The starts before which hours and days are complete; None in a database without sums of minutes."""

    hour: int | None
    day: int | None

    def of(self, bucket: Bucket) -> int:
        """Return the start before which what is counted is added to the table of *bucket* itself."""
        until = {MINUTE: _EVER, HOUR: self.hour, DAY: self.day}[bucket]
        return _EVER if until is None else until


def _sum_of_requests() -> ColumnElement[Any]:
    return func.sum(reduce(add, (USAGE_MINUTES.c[name] for name in _LATENCIES)))


class SqlUsage(Statements, UsageStore):
    """The usage counters of a database."""

    _has_sums = False  # by now, as far as this process knows

    @override
    async def add_usage(self, batch: UsageBatch) -> None:
        if batch.rows and not self._has_sums:
            await self._begin_sums(max(row.key.start for row in batch.rows))
        async with self._database.write_transaction("usage") as connection:
            if batch.rows:
                await _lock_sums(connection, "ROW EXCLUSIVE")
                await _add_rows(connection, batch.all_rows, await _summed_until(connection))
            if batch.uses:
                await _update_last_uses(connection, batch.uses)

    @override
    async def drop_usage(self, now: float) -> None:
        await self._sum_up(HOUR, HOUR.start_of(now - _SUM_DELAY_SECONDS))
        await self._sum_up(DAY, DAY.start_of(now - _SUM_DELAY_SECONDS))
        async with self._database.write_transaction("old usage") as connection:
            summed_until = await _summed_until(connection)
            for bucket, next_bucket in ((MINUTE, HOUR), (HOUR, DAY), (DAY, None)):
                table = _TABLES[bucket]
                oldest = bucket.start_of(now - bucket.retention_seconds)
                if next_bucket is not None:
                    oldest = min(oldest, summed_until.of(next_bucket))
                await connection.execute(delete(table).where(table.c.start < oldest, table.c.subject != _SUMMED))

    async def _begin_sums(self, now: int) -> None:
        """Let hours and days be sums from *now* on; those that have rows already were counted by an older release."""
        async with self._database.write_transaction("usage") as connection:
            await _lock_sums(connection, "EXCLUSIVE")
            if (await _summed_until(connection)).hour is None:
                for bucket in _SUMMED_FROM:
                    table = _TABLES[bucket]
                    last = (await connection.execute(select(func.max(table.c.start)))).scalar()
                    until = max(bucket.start_of(now), 0 if last is None else last + bucket.seconds)
                    blank = dict.fromkeys(_COLUMNS, 0) | {"subject": _SUMMED, "route": "", "outcome": ""}
                    await connection.execute(insert(table).values(blank | {"start": until}))
        self._has_sums = True

    async def _sum_up(self, bucket: Bucket, end: int) -> None:
        """Sum up the rows of *bucket* that start before *end*, one start at a time so that others wait for seconds."""
        while True:
            async with self._database.read_connection("usage") as connection:
                until = (await _summed_until(connection)).of(bucket)
            if until >= end:
                return
            # Sums of an hour of many keys may take longer than a statement of a request may.
            async with self._database.upgrade_transaction("sums of usage") as connection:
                await _lock_sums(connection, "EXCLUSIVE")
                await _sum_next(connection, bucket, end)

    @override
    async def usage(
        self, subject: str, bucket: Bucket, start: int, end: int, *, over: Dimension | None = None
    ) -> Sequence[UsageRow]:
        rows = _rows_by(bucket, subject, start, end)
        dimensions = [rows.c[name] for name in _KEY if name != over]
        sums = (func.sum(rows.c[name]).cast(rows.c[name].type) for name in _SUMS)  # PostgreSQL's sum is a numeric
        statement = select(*dimensions, *sums).group_by(*dimensions).order_by(*dimensions)
        async with self._database.read_connection("usage") as connection:
            result = (await connection.execute(statement)).all()
        if over is None:
            return [_row(row) for row in result]
        position, blank = _KEY.index(over), {"route": "", "start": start}[over]
        return [_row((*row[:position], blank, *row[position:])) for row in result]

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


async def _lock_sums(connection: AsyncConnection, mode: str) -> None:
    """Lock the tables of sums until the transaction ends: EXCLUSIVE to sum up, ROW EXCLUSIVE to add to them.

    On SQLite, BEGIN IMMEDIATE has locked everything.
    """
    if connection.dialect.name == "postgresql":
        await connection.execute(text(f"LOCK TABLE usage_hours, usage_days IN {mode} MODE"))


async def _summed_until(connection: AsyncConnection) -> _SummedUntil:
    row = (await connection.execute(select(_until(HOUR), _until(DAY)))).one()
    return _SummedUntil(*row)


def _until(bucket: Bucket) -> ColumnElement[Any]:
    """Return the query of the start before which the rows of *bucket* are complete."""
    table = _TABLES[bucket].alias()
    return select(table.c.start).where(table.c.subject == _SUMMED).scalar_subquery()


def _rows_by(bucket: Bucket, subject: str, start: int, end: int) -> Subquery:
    """Return the rows of *subject* by *bucket*: those of its table, and those of shorter ones that are not summed up.

    Several may have the same key.
    """
    first, last = -bucket.start_of(-start), -bucket.start_of(-end)
    parts: list[Select[Any]] = []
    summed_until: list[ColumnElement[Any]] = []
    shorter: Bucket | None = bucket
    while shorter is not None:
        table = _TABLES[shorter]
        conditions = [table.c.subject == subject, table.c.start >= first, table.c.start < last]
        conditions += [table.c.start >= until for until in summed_until]
        if shorter in _SUMMED_FROM:
            summed_until.append(func.coalesce(_until(shorter), _EVER))
            conditions.append(table.c.start < summed_until[-1])
        parts.append(_in_bucket(table, bucket).where(*conditions))
        shorter = _SUMMED_FROM.get(shorter)
    return union_all(*parts).subquery()


def _in_bucket(table: Table, bucket: Bucket) -> Select[Any]:
    """Return the query of the rows of *table* with the starts of the longer *bucket* that they are in."""
    start = (table.c.start - table.c.start % bucket.seconds).label("start")
    return select(*(start if name == "start" else table.c[name] for name in _COLUMNS))


async def _sum_next(connection: AsyncConnection, bucket: Bucket, end: int) -> None:
    """Sum up the next rows of *bucket*, if there are any that start before *end*."""
    until = (await _summed_until(connection)).of(bucket)
    if until >= end:
        return  # another worker was faster
    table, source = _TABLES[bucket], _TABLES[_SUMMED_FROM[bucket]]
    is_next = and_(source.c.subject != _SUMMED, source.c.start >= until, source.c.start < end)
    first = (await connection.execute(select(func.min(source.c.start)).where(is_next))).scalar()
    if first is not None:
        start = bucket.start_of(first)
        end = start + bucket.seconds
        await connection.execute(_set_sums(connection.dialect.name, bucket, start, end))
    is_mark = table.c.subject == _SUMMED
    await connection.execute(update(table).where(is_mark).values(start=end))


def _set_sums(dialect: str, bucket: Bucket, start: int, end: int) -> Executable:
    table, source = _TABLES[bucket], _TABLES[_SUMMED_FROM[bucket]]
    rows = (
        _in_bucket(source, bucket)
        .where(source.c.subject != _SUMMED, source.c.start >= start, source.c.start < end)
        .subquery()
    )
    keys = [rows.c[name] for name in _KEY]
    sums = (func.sum(rows.c[name]).cast(rows.c[name].type) for name in _SUMS)
    statement = dialect_insert(dialect, table).from_select(_COLUMNS, select(*keys, *sums).group_by(*keys))
    return statement.on_conflict_do_update(index_elements=_KEY, set_={name: statement.excluded[name] for name in _SUMS})


async def _add_rows(connection: AsyncConnection, rows: Sequence[UsageRow], summed_until: _SummedUntil) -> None:
    for bucket in _TABLES:
        late = [row for row in rows if row.key.start < summed_until.of(bucket)]
        if late:
            values = [(*row.key, row.seconds, *row.histogram) for row in merge_rows(late, bucket)]
            dialect = connection.dialect.name
            await connection.execute(_add(dialect, bucket), many_values(dialect, _COLUMNS, values))


@cache  # building it takes 1 ms
def _add(dialect: str, bucket: Bucket) -> Executable:
    table = _TABLES[bucket]
    statement = insert_many(dialect, table, _COLUMNS)
    sums = {name: table.c[name] + statement.excluded[name] for name in _SUMS}
    return statement.on_conflict_do_update(index_elements=_KEY, set_=sums)


async def _update_last_uses(connection: AsyncConnection, uses: Sequence[SecretUse]) -> None:
    dialect = connection.dialect.name
    await connection.execute(_set_last_use(dialect), many_values(dialect, _USE_COLUMNS, sorted(uses)))


@cache
def _set_last_use(dialect: str) -> Executable:
    statement = insert_many(dialect, SECRET_USES, _USE_COLUMNS)
    latest = {"last_used_at": statement.excluded.last_used_at}
    is_later = statement.excluded.last_used_at > SECRET_USES.c.last_used_at
    return statement.on_conflict_do_update(index_elements=["digest"], set_=latest, where=is_later)


def _row(row: Sequence[Any]) -> UsageRow:
    width = len(_KEY)
    return UsageRow(UsageKey(*row[:width]), row[width], tuple(row[width + 1 :]))
