"""Upgrades older databases to `schema`, with Alembic, which runs within the program and without an alembic.ini.

Alembic has its state in module globals: one process must not upgrade two databases at the same time.
"""

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def migration_config() -> Config:
    """Return Alembic's configuration: the location of the scripts, in a source tree or an installed wheel."""
    config = Config()
    config.set_main_option("script_location", "machpay_gateway.stores:migrations")
    return config


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Upgrade the database to *revision*, the newest by default, in the transaction of *connection*."""
    config = migration_config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
