"""INSERT with ON CONFLICT, which SQLAlchemy has once for each of SQLite and PostgreSQL."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Table, bindparam, func, select
from sqlalchemy.dialects import sqlite

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql


def dialect_insert(dialect: str, table: Table) -> "sqlite.Insert | postgresql.Insert":
    """Return an INSERT into *table* for the *dialect* of that name, without its ON CONFLICT clause."""
    if dialect != "postgresql":
        return sqlite.insert(table)
    # PostgreSQL's dialects take 0.15 s to import, and are loaded already when one of them is used.
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415

    return postgresql.insert(table)


def insert_many(dialect: str, table: Table, columns: Sequence[str]) -> "sqlite.Insert | postgresql.Insert":
    """Return an INSERT of any number of rows, as `many_values` has them, without its ON CONFLICT clause.

    On PostgreSQL it is one statement with an array for each column. On SQLite, which is in this process, it is one
    execution for each row: it takes at most 32,766 values in a statement, and no arrays.
    """
    statement = dialect_insert(dialect, table)
    if dialect != "postgresql":
        return statement
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415

    arrays = [bindparam(name, type_=postgresql.ARRAY(table.c[name].type)) for name in columns]
    rows = func.unnest(*arrays).table_valued(*columns, name="rows").render_derived()
    return statement.from_select(columns, select(*(rows.c[name] for name in columns)))


def many_values(
    dialect: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> Mapping[str, Any] | list[dict[str, Any]]:
    """Return the parameters of an `insert_many` of *rows*, of which there is at least one."""
    if dialect == "postgresql":
        return dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))
    return [dict(zip(columns, row, strict=True)) for row in rows]
