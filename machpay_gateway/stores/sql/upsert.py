"""INSERT with ON CONFLICT, which SQLite and PostgreSQL spell alike and SQLAlchemy has once for each."""

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection


def insert_or(connection: AsyncConnection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT into *table* for *connection*, to be told what a conflict means."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
