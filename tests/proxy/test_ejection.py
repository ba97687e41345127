"""When a server is ejected: never more of them than half, and by the status of responses only if that is set."""

import pytest

from machpay_gateway.core.network.upstream_options import UpstreamOptions
from machpay_gateway.proxy.pool import ServerPool
from machpay_gateway.proxy.upstream import UpstreamConnection
from machpay_gateway.proxy.upstream_server import LOST, UpstreamServer
from tests.clocks import FixedClock
from tests.proxy.harness import Upstream, proxied, request


async def _never() -> tuple[object, UpstreamConnection]:
    raise AssertionError("these tests do not connect")


def _pool(clock: FixedClock, count: int, *, eject_5xx_rate: float = 0.0) -> ServerPool:
    options = UpstreamOptions(eject_5xx_rate=eject_5xx_rate)
    servers = [UpstreamServer(f"http://10.0.0.{n}:80", _never, options=options, clock=clock) for n in range(count)]
    return ServerPool(servers, options=options, clock=clock)


def _ejected(pool: ServerPool) -> int:
    return sum(server.ejected_until > 0 for server in pool.servers)


@pytest.mark.parametrize("count, ejected", [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (8, 4)])
def test_never_more_than_half_of_the_servers_are_ejected(count: int, ejected: int) -> None:
    pool = _pool(FixedClock(0.0), count)
    for server in pool.servers:
        for _ in range(20):
            server.record_failure(LOST, "a test")
    assert _ejected(pool) == ejected
    assert pool.pick() is not None
    assert len(pool.problems()) == ejected


def test_servers_that_fail_health_checks_count_as_ejected() -> None:
    pool = _pool(FixedClock(0.0), 4)
    for server in pool.servers[:2]:
        server.set_health(is_healthy=False, problem="a test")
    for _ in range(5):
        pool.servers[2].record_failure(LOST, "a test")
    assert _ejected(pool) == 0
    assert {pool.pick() for _ in range(8)} == set(pool.servers[2:])


def test_unhealthy_servers_are_used_if_no_other_is_left() -> None:
    pool = _pool(FixedClock(0.0), 2)
    for server in pool.servers:
        server.set_health(is_healthy=False, problem="a test")
    assert {pool.pick() for _ in range(4)} == set(pool.servers)
    pool.servers[1].set_health(is_healthy=True, problem="")
    assert {pool.pick() for _ in range(4)} == {pool.servers[1]}
    assert pool.pick(pool.servers[1:]) is pool.servers[0]  # a retry


@pytest.mark.parametrize(
    "rate, statuses, is_ejected",
    [
        (0.5, [503] * 10, True),
        (0.5, [503] * 9, False),  # too few to tell
        (0.5, [200, 500] * 5, True),
        (0.5, [200, 200, 500] * 10, False),
        (0.1, [200] * 9 + [500], True),
        (1.0, [500] * 9 + [200] + [500] * 9, False),
        (0.5, [404] * 20, False),
        (0.0, [503] * 100, False),
    ],
)
def test_a_server_is_ejected_by_its_share_of_5xx_if_that_is_set(
    rate: float, statuses: list[int], *, is_ejected: bool
) -> None:
    pool = _pool(FixedClock(1.0), 2, eject_5xx_rate=rate)
    for status in statuses:
        pool.servers[0].record_response(status)
    assert (_ejected(pool) == 1) is is_ejected


def test_the_share_of_5xx_is_that_of_the_last_seconds() -> None:
    clock = FixedClock(1.0)
    pool = _pool(clock, 2, eject_5xx_rate=0.5)
    bad, good = pool.servers
    for _ in range(1000):
        bad.record_response(200)
    clock.advance(10.0)
    for _ in range(10):
        bad.record_response(503)
    assert (pool.pick(), pool.problems()) == (
        good,
        {"http://10.0.0.0:80": "100% of its responses have a status of 5xx"},
    )
    bad.record_response(503)  # of a request that was in flight
    assert bad.ejected_until == clock() + 5.0
    clock.advance(5.0)
    for _ in range(10):
        bad.record_response(503)
    assert bad.ejected_until == clock() + 10.0


async def test_a_server_that_answers_503_to_all_gets_few_requests() -> None:
    answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    async with Upstream() as good, Upstream(answer=answer) as bad:
        servers = [f"http://127.0.0.1:{upstream.port}" for upstream in (bad, good)]
        async with (
            proxied(upstreams={"live": servers, "eject_5xx_rate": 0.5}) as rig,
            rig.client() as client,
        ):
            statuses = []
            for _ in range(100):
                await client.send(request())
                statuses.append((await client.answer())[0])
            assert statuses.count(503) == 10
            assert list(rig.proxy.router.pools["live"].problems()) == servers[:1]
