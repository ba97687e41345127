"""The server that tests share, and databases on it; a conftest that imports a fixture has it.

There is one server a process, so also one for each worker of pytest-xdist. Who crashes or stops one starts a server of
their own: `with running_server() as server`. It takes half a second.
"""

import asyncio
from collections.abc import Iterator
from itertools import count

import pytest

from machpay_gateway.stores.sql import SqlStore
from tests.postgres.servers import Server, running_server

MIGRATED = "migrated"  # the name of a database with the schema of today and no rows
_numbers = count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    with running_server() as server:
        asyncio.run(migrate(server.make_database(MIGRATED)))
        yield server


@pytest.fixture
def empty_postgres_url(postgres_server: Server) -> Iterator[str]:
    """A database on the shared server with nothing in it."""
    yield from _database(postgres_server, "template1")


@pytest.fixture
def postgres_url(postgres_server: Server) -> Iterator[str]:
    """A database on the shared server with the schema of today and no rows."""
    yield from _database(postgres_server, MIGRATED)


def _database(server: Server, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    yield server.make_database(name, template=template)
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def migrate(url: str) -> None:
    """Give the database at *url* the schema of today."""
    store = SqlStore(url)
    await store.open(upgrade=True)
    await store.close()
