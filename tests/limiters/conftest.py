"""The servers that limiters are tried on: one of each for all the tests of a process, keys apart by their prefix."""

from collections.abc import Iterator

import pytest

from tests.limiters.harness import fake_server
from tests.redises.cluster import Cluster
from tests.redises.fixtures import redis_cluster, redis_server
from tests.redises.servers import Server

__all__ = ["redis_cluster", "redis_server"]


@pytest.fixture(scope="session")
def fakeredis_url() -> Iterator[str]:
    with fake_server() as url:
        yield url


@pytest.fixture(scope="session")
def server_url(redis_server: Server) -> str:
    return redis_server.url


@pytest.fixture(scope="session")
def cluster_url(redis_cluster: Cluster) -> str:
    return redis_cluster.url
