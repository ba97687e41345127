"""How an older database becomes one that `schema` describes: Alembic, run by the program and without an alembic.ini.

Alembic keeps what it works on in module globals: one process must not upgrade two databases at the same time.
"""

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def migration_config() -> Config:
    """Return Alembic's configuration: where the scripts are, in a tree as in an installed wheel."""
    config = Config()
    config.set_main_option("script_location", "machpay_gateway.stores:migrations")
    return config


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the database to *revision*, else the newest, in the transaction that *connection* is in."""
    config = migration_config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
