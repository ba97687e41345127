"""INSERT with ON CONFLICT, which SQLAlchemy has once for each of SQLite and PostgreSQL."""

from typing import TYPE_CHECKING

from sqlalchemy import Table
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
