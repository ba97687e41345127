"""Text in the order of its bytes, on every database.

SQLite and Python compare so; PostgreSQL as its database's language does, in which `key_a` comes before `key_B`, unless
told otherwise. It is told in the statement, so that databases made by an older version need not be rebuilt: their
indexes on (created_at, id) still give the order by created_at, and what remains to be sorted are equal moments.
"""

from typing import Any

from sqlalchemy import ColumnElement, Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class bytewise(FunctionElement[str]):  # noqa: N801 - written as a function of SQL
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
