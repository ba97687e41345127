"""Keyset pagination, newest first: by the time of creation, then by id."""

from typing import Any

from sqlalchemy import ColumnElement, FromClause, ScalarSelect, or_

from machpay_gateway.stores.sql.collation import bytewise


def newest_first(table: FromClause) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Return the columns that rows of *table* are ordered by."""
    return table.c.created_at.desc(), bytewise(table.c.id).desc()


def coming_after(table: FromClause, created_at: ScalarSelect[Any], cursor_id: str) -> ColumnElement[bool]:
    """Return the condition that a row of *table* comes after the row *cursor_id*, which was created at *created_at*."""
    # The first comparison is the one that an index can start from; the second excludes the rows of the cursor's own
    # moment that came before it.
    is_later = or_(table.c.created_at < created_at, bytewise(table.c.id) < cursor_id)
    return (table.c.created_at <= created_at) & is_later
