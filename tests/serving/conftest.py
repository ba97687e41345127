"""The database server that tests share."""

from tests.postgres.fixtures import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]
