"""The servers that limiters are tried on: one of each for all the tests of a process, keys apart by their prefix."""

from collections.abc import Iterator

import pytest

from tests.limiters.rigs import fake_server
from tests.redises.cluster import running_cluster
from tests.redises.servers import running_server


@pytest.fixture(scope="session")
def fakeredis_url() -> Iterator[str]:
    with fake_server() as url:
        yield url


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    with running_server() as server:
        yield server.url


@pytest.fixture(scope="session")
def cluster_url() -> Iterator[str]:
    with running_cluster() as cluster:
        yield cluster.url
