"""Upgrades older databases to `schema`, with Alembic, which runs within the program and without an alembic.ini.

Alembic has its state in module globals: one process must not upgrade two databases at the same time.
"""

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, delete, insert, inspect, text

from machpay_gateway.stores.schema import PREVIOUS, SCHEMA_VERSION


def migration_config() -> Config:
    """Return Alembic's configuration: the location of the scripts, in a source tree or an installed wheel."""
    config = Config()
    config.set_main_option("script_location", "machpay_gateway.stores:migrations")
    return config


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Upgrade the database to *revision*, the newest by default, in the transaction of *connection*."""
    marked, reached = _revisions(connection)
    if reached is not None:
        _mark(connection, reached)
    config = migration_config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
    _, upgraded = _revisions(connection)
    if upgraded is not None:
        _record_oldest(connection, upgraded, marked)


def _revisions(connection: Connection) -> tuple[str | None, str | None]:
    """Return what alembic_version has, and the revision of the schema, which is the same unless programs need it."""
    tables = inspect(connection).get_table_names()
    if "alembic_version" not in tables:
        return None, None
    marked = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if "schema_version" in tables:
        row = connection.execute(SCHEMA_VERSION.select()).one_or_none()
        if row is not None and marked in row:
            return marked, row.revision
    return marked, marked


def _mark(connection: Connection, revision: str) -> None:
    connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


def _record_oldest(connection: Connection, revision: str, marked: str | None) -> None:
    """Record which programs can use the schema; *marked* is what alembic_version had before the upgrade."""
    if revision <= PREVIOUS:
        return
    oldest = PREVIOUS if marked is None else max(PREVIOUS, marked)
    SCHEMA_VERSION.create(connection, checkfirst=True)
    if connection.dialect.name == "postgresql":
        # Programs read it at their start, also those that were not granted anything since.
        connection.execute(text("GRANT SELECT ON schema_version TO PUBLIC"))
    connection.execute(delete(SCHEMA_VERSION))
    connection.execute(insert(SCHEMA_VERSION).values(revision=revision, oldest=oldest))
    if marked is not None:
        _mark(connection, oldest)
