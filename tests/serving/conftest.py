"""The servers that tests share."""

from collections.abc import Iterator

import pytest

from tests.postgres.fixtures import postgres_server, postgres_url
from tests.redises.servers import running_server
from tests.serving.processes import Served, served

__all__ = ["postgres_server", "postgres_url", "several"]


@pytest.fixture(scope="session")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two workers, which count together; their tests are of the group "replacing"."""
    with running_server() as redis:
        settings = f'redis = "{redis.url}"\n[server]\nworkers = 2'
        with served(tmp_path_factory.mktemp("several"), settings=settings) as gateway:
            yield gateway
