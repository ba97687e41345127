"""The limiters under test, and their servers: one of each for all tests of a process, with keys apart by prefix."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.limiters.harness import Harness, OpenLimiter, fake_server, memory, redis_at
from tests.redises.cluster import Cluster
from tests.redises.fixtures import redis_cluster, redis_server
from tests.redises.servers import Server

PATIENCE_SECONDS = 10.0
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


@pytest.fixture
def no_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let replies take as long as a busy machine needs, where a test is not about late ones."""
    for module in ("batcher", "connection_supervisor", "scripts", "version_markers"):
        monkeypatch.setattr(f"machpay_gateway.limiters.redis.{module}.REPLY_TIMEOUT_SECONDS", PATIENCE_SECONDS)
    for module in ("connection_supervisor", "servers"):
        monkeypatch.setattr(f"machpay_gateway.limiters.redis.{module}.CONNECT_SECONDS", PATIENCE_SECONDS)


@pytest.fixture(params=["memory", "fakeredis", "server", "cluster"])
def open_limiter(request: pytest.FixtureRequest) -> OpenLimiter:
    """Return the function that opens a limiter; a new limiter adds its own here."""
    if request.param == "memory":
        return memory
    url = request.getfixturevalue(f"{request.param}_url")
    return lambda: redis_at(url)


@pytest.fixture
async def harness(open_limiter: OpenLimiter) -> AsyncIterator[Harness]:
    async with open_limiter() as harness:
        yield harness
