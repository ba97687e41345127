"""The schema revision of a database, and whether this version of the program can use it."""

from sqlalchemy import Connection, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.stores.schema import HEAD, METADATA, PREVIOUS, REVISIONS, SCHEMA_VERSION

_VERSION_TABLE = "alembic_version"


async def database_revision(connection: AsyncConnection) -> str | None:
    """Return the revision of the database, None when it is empty; newer than HEAD if this version can use its schema.

    Raises ConfigurationError for another program's database, or a newer version's that this one cannot use.
    """
    tables = await connection.run_sync(_table_names)
    if _VERSION_TABLE not in tables:
        if foreign := sorted(tables & METADATA.tables.keys()):
            raise ConfigurationError(
                f"The database has a table {foreign[0]!r} that is not ours: give MachPay Gateway a database of its own"
            )
        return None
    revision = oldest = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
    if SCHEMA_VERSION.name in tables:
        row = (await connection.execute(select(SCHEMA_VERSION.c.revision, SCHEMA_VERSION.c.oldest))).one_or_none()
        if row is not None and revision in row:  # else a program that does not know the table has moved the revision
            revision, oldest = row
    if oldest is not None and oldest not in REVISIONS:
        raise ConfigurationError(
            f"The database's schema is at revision {revision!r} and this version knows up to {HEAD!r}: "
            "upgrade machpay-gateway, or restore the backup made before the database was upgraded"
        )
    return revision


def is_usable(revision: str | None) -> bool:
    """Return whether this version can use the schema of *revision*, which `database_revision` has returned."""
    return revision is not None and revision >= PREVIOUS


def migration_command(revision: str | None) -> str:
    """Return how to bring a database of another *revision* to this version's."""
    return "run `machpay-gateway init`" if revision is None else "run `machpay-gateway migrate`"


async def lock_schema(connection: AsyncConnection) -> None:
    """Lock the schema against other processes until the transaction ends. On SQLite, BEGIN IMMEDIATE has done so."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT pg_advisory_xact_lock(7813294456)"))


def _table_names(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())
