"""Statements on the units of quotas."""

from collections.abc import Sequence
from functools import cache

from sqlalchemy import BigInteger, Executable, delete, func, select
from typing_extensions import override

from machpay_gateway.core.limits.calendar import DAY_SECONDS
from machpay_gateway.core.limits.ports import QuotaStore
from machpay_gateway.stores.schema import QUOTA_UNITS
from machpay_gateway.stores.sql.engine import Statements
from machpay_gateway.stores.sql.upsert import dialect_insert

_RETENTION_DAYS = 62  # two months: the present one, and the one before for people who ask


class SqlQuotas(Statements, QuotaStore):
    """The units of quotas in a database."""

    @override
    async def add_quota_units(self, units: Sequence[tuple[str, int, int]]) -> None:
        async with self._database.write_transaction("quota units") as connection:
            # In one order, so that workers cannot deadlock.
            rows = [{"subject": subject, "day": day, "units": count} for subject, day, count in sorted(units)]
            await connection.execute(_add(connection.dialect.name), rows)

    @override
    async def quota_units(self, subject: str, since: int) -> int:
        # PostgreSQL's sum of integers is a numeric.
        statement = select(func.coalesce(func.sum(QUOTA_UNITS.c.units), 0).cast(BigInteger)).where(
            QUOTA_UNITS.c.subject == subject, QUOTA_UNITS.c.day >= since
        )
        async with self._database.read_connection("quota units") as connection:
            return int((await connection.execute(statement)).scalar_one())

    @override
    async def drop_quota_units(self, now: float) -> None:
        async with self._database.write_transaction("old quota units") as connection:
            oldest = int(now // DAY_SECONDS) - _RETENTION_DAYS
            await connection.execute(delete(QUOTA_UNITS).where(QUOTA_UNITS.c.day < oldest))


@cache
def _add(dialect: str) -> Executable:
    statement = dialect_insert(dialect, QUOTA_UNITS)
    total = {"units": QUOTA_UNITS.c.units + statement.excluded.units}
    return statement.on_conflict_do_update(index_elements=["subject", "day"], set_=total)
