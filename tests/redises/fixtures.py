"""Shared servers, started by the first test that needs them; a conftest imports the fixtures it uses.

There is one of each per process, so one for each worker of pytest-xdist. A test that kills, freezes or reconfigures
a server starts its own: `with running_server() as server` takes 50 milliseconds.
"""

from collections.abc import Iterator

import pytest

from tests.redises.cluster import Cluster, running_cluster
from tests.redises.sentinel import Sentinels, running_sentinels
from tests.redises.servers import Server, running_server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redis_sentinels() -> Iterator[Sentinels]:
    with running_sentinels() as sentinels:
        yield sentinels


@pytest.fixture
def empty_redis(redis_server: Server) -> Server:
    """The shared server, without keys and scripts."""
    redis_server.flush()
    return redis_server


@pytest.fixture
def empty_redis_cluster(redis_cluster: Cluster) -> Cluster:
    """The shared cluster, without keys and scripts."""
    redis_cluster.flush()
    return redis_cluster


@pytest.fixture
def empty_redis_sentinels(redis_sentinels: Sentinels) -> Sentinels:
    """The shared pair and its sentinels, healed if a test has made a failover, without keys and scripts."""
    redis_sentinels.heal()
    redis_sentinels.flush()
    return redis_sentinels
