"""The shared server, for its own tests."""

from tests.postgres.fixtures import empty_postgres_url, postgres_server, postgres_url

__all__ = ["empty_postgres_url", "postgres_server", "postgres_url"]
