"""Statements on the units of quotas."""

from collections.abc import Sequence
from functools import cache

from sqlalchemy import BigInteger, Executable, case, delete, func, literal, select
from typing_extensions import override

from machpay_gateway.core.limits.calendar import DAY_SECONDS
from machpay_gateway.core.limits.ports import QuotaStore, StoredUnits
from machpay_gateway.stores.schema import QUOTA_BATCHES, QUOTA_UNITS
from machpay_gateway.stores.sql.engine import Statements
from machpay_gateway.stores.sql.upsert import dialect_insert, insert_many, many_values

_COLUMNS = ("subject", "day", "units")
_RETENTION_DAYS = 62  # two months: the present one, and the one before for people who ask


class SqlQuotas(Statements, QuotaStore):
    """The units of quotas in a database."""

    # The schema of the release before has no numbers of batches. Without them, a count that starts from stored units
    # may have the batch that was stored at that moment twice or not at all.
    _numbers_batches = True

    @override
    async def add_quota_units(self, units: Sequence[tuple[str, int, int]], now: float) -> int:
        async with self._database.write_transaction("quota units") as connection:
            # In one order, so that workers cannot deadlock.
            rows = many_values(connection.dialect.name, _COLUMNS, sorted(units))
            await connection.execute(_add(connection.dialect.name), rows)
            if not self._numbers_batches:
                return 0
            # Last, since all workers wait for this row; until the commit, so that numbers are in the order of commits.
            number = {"id": 1, "number": int(now * 1000)}
            return int((await connection.execute(_next_batch(connection.dialect.name), number)).scalar_one())

    @override
    async def quota_units(self, subject: str, since: int) -> StoredUnits:
        # One statement, so that the units are those of the batches until that number, and of no later one. PostgreSQL's
        # sum of integers is a numeric.
        units = select(func.coalesce(func.sum(QUOTA_UNITS.c.units), 0).cast(BigInteger)).where(
            QUOTA_UNITS.c.subject == subject, QUOTA_UNITS.c.day >= since
        )
        newest = select(func.coalesce(func.max(QUOTA_BATCHES.c.number), 0)).scalar_subquery()
        statement = select(units.scalar_subquery(), newest if self._numbers_batches else literal(0))
        async with self._database.read_connection("quota units") as connection:
            return StoredUnits(*map(int, (await connection.execute(statement)).one()))

    @override
    async def drop_quota_units(self, now: float) -> None:
        async with self._database.write_transaction("old quota units") as connection:
            oldest = int(now // DAY_SECONDS) - _RETENTION_DAYS
            await connection.execute(delete(QUOTA_UNITS).where(QUOTA_UNITS.c.day < oldest))


@cache
def _add(dialect: str) -> Executable:
    statement = insert_many(dialect, QUOTA_UNITS, _COLUMNS)
    total = {"units": QUOTA_UNITS.c.units + statement.excluded.units}
    return statement.on_conflict_do_update(index_elements=["subject", "day"], set_=total)


@cache
def _next_batch(dialect: str) -> Executable:
    """Return what numbers a batch: by the time, so that a database that was restored gives no number again."""
    statement = dialect_insert(dialect, QUOTA_BATCHES)
    newest, now = QUOTA_BATCHES.c.number, statement.excluded.number
    following = {"number": case((now > newest, now), else_=newest + 1)}
    return statement.on_conflict_do_update(index_elements=["id"], set_=following).returning(newest)
