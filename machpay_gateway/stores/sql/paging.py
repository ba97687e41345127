"""Pages of what is listed newest first: by the moment it was made, and by its id where moments are equal."""

from typing import Any

from sqlalchemy import ColumnElement, FromClause, ScalarSelect, or_

from machpay_gateway.stores.sql.collation import bytewise


def newest_first(table: FromClause) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Return what rows of *table* are ordered by."""
    return table.c.created_at.desc(), bytewise(table.c.id).desc()


def coming_after(table: FromClause, moment: ScalarSelect[Any], mark_id: str) -> ColumnElement[bool]:
    """Return the condition that a row of *table* comes after the one of *mark_id*, which was made at *moment*."""
    # The first part is where the index begins; what it lets in of the mark's own moment, the second sorts out.
    later = or_(table.c.created_at < moment, bytewise(table.c.id) < mark_id)
    return (table.c.created_at <= moment) & later
