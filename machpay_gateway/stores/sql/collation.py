"""A bytewise collation of text, on every database.

SQLite and Python compare text by its bytes. PostgreSQL uses its database's locale, in which `key_a` may come before
`key_B`. The collation is in the statement, so that older databases need no new indexes: those on (created_at, id) still
give the order by created_at, and only equal times remain to be sorted.
"""

from typing import Any

from sqlalchemy import ColumnElement, Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class bytewise(FunctionElement[str]):  # noqa: N801 - it reads as a function of SQL
    """A column of text, compared and sorted by its bytes."""

    inherit_cache: bool | None = True

    def __init__(self, column: ColumnElement[str]) -> None:
        super().__init__(column)
        self.type = Text()


@compiles(bytewise)
def _as_it_is(element: bytewise, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - SQLAlchemy's own
    return str(compiler.process(element.clauses, **options))


@compiles(bytewise, "postgresql")
def _collated(element: bytewise, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - as above
    return f'{compiler.process(element.clauses, **options)} COLLATE "C"'
