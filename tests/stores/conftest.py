"""Every store, and a database server for what only that one has."""

from tests.postgres.fixtures import empty_postgres_url, postgres_server, postgres_url
from tests.stores_under_test import unopened_store

__all__ = ["empty_postgres_url", "postgres_server", "postgres_url", "unopened_store"]
