"""INSERT with ON CONFLICT, which SQLite and PostgreSQL spell alike and SQLAlchemy has once for each."""

from typing import TYPE_CHECKING

from sqlalchemy import Table
from sqlalchemy.dialects import sqlite

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql


def insert_or(dialect: str, table: Table) -> "sqlite.Insert | postgresql.Insert":
    """Return an INSERT into *table* for the *dialect* of that name, to be told what a conflict means."""
    if dialect != "postgresql":
        return sqlite.insert(table)
    # Its dialects take 0.15 s to import, and are loaded by now where one of them is used.
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415

    return postgresql.insert(table)
