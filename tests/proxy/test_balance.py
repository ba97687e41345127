"""Which server of an upstream gets a request: by load, in turn or by what requests have in common, and by weight."""

import os
from collections import Counter
from collections.abc import Sequence

import pytest

from machpay_gateway.core.decision.principal import ANONYMOUS, Principal
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.core.network.upstream_options import Balance, UpstreamOptions
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.proxy.affinity import affinity_of
from machpay_gateway.proxy.heads import RequestHead
from machpay_gateway.proxy.pool import ServerPool
from machpay_gateway.proxy.upstream import UpstreamConnection
from machpay_gateway.proxy.upstream_server import LOST, UpstreamServer
from machpay_gateway.settings import load_settings
from tests.clocks import FixedClock
from tests.proxy.harness import Upstream, proxied, request

TOLERANCE = 0.02  # of the requests: 5 standard deviations of 10,000


async def _never() -> tuple[object, UpstreamConnection]:
    raise AssertionError("these tests do not connect")


def _pool(
    balance: Balance, *weights: int, clock: FixedClock | None = None, slow_start_seconds: float = 0.0
) -> ServerPool:
    clock = clock or FixedClock(0.0)
    options = UpstreamOptions(balance=balance, slow_start_seconds=slow_start_seconds)
    servers = [
        UpstreamServer(f"http://10.0.0.{number}:80", _never, options=options, weight=weight, clock=clock)
        for number, weight in enumerate(weights)
    ]
    return ServerPool(servers, options=options, clock=clock)


def _picked(pool: ServerPool, affinity: bytes = b"", tried: Sequence[UpstreamServer] = ()) -> int:
    server = pool.pick(tried, affinity)
    assert server is not None
    return pool.servers.index(server)


@pytest.mark.parametrize("balance", ["least", "round_robin"])
@pytest.mark.parametrize("weights", [(1, 1), (1, 1, 1), (3, 1), (5, 2, 1)])
def test_without_load_each_server_gets_its_share_in_turn(balance: Balance, weights: Sequence[int]) -> None:
    pool = _pool(balance, *weights)
    for _ in range(3):
        assert Counter(_picked(pool) for _ in range(sum(weights))) == dict(enumerate(weights))


def test_heavy_servers_are_not_chosen_in_bursts() -> None:
    pool = _pool("round_robin", 5, 1, 1)
    assert [_picked(pool) for _ in range(7)] == [0, 0, 1, 0, 2, 0, 0]


@pytest.mark.parametrize("weights", [(1, 1), (4, 1), (1, 2, 3)])
def test_least_counts_requests_in_flight_by_weight(weights: Sequence[int]) -> None:
    pool = _pool("least", *weights)
    for _ in range(10 * sum(weights)):
        pool.servers[_picked(pool)].in_flight += 1
    assert [server.in_flight for server in pool.servers] == [10 * weight for weight in weights]


def test_round_robin_does_not_count_requests_in_flight() -> None:
    pool = _pool("round_robin", 1, 1)
    pool.servers[0].in_flight = 100
    assert [_picked(pool) for _ in range(4)] == [0, 1, 0, 1]


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (3, 1), (1, 2, 5)])
def test_hash_gives_each_server_its_share_by_weight(weights: Sequence[int]) -> None:
    pool = _pool("hash", *weights)
    counts = Counter(_picked(pool, b"%d" % number) for number in range(10_000))
    for number, weight in enumerate(weights):
        assert abs(counts[number] / 10_000 - weight / sum(weights)) < TOLERANCE


def test_hash_moves_only_the_requests_of_a_server_that_is_gone() -> None:
    clock = FixedClock(0.0)
    pool = _pool("hash", 1, 2, 1, clock=clock)
    before = [_picked(pool, b"%d" % number) for number in range(1000)]
    assert [_picked(pool, b"%d" % number) for number in range(1000)] == before
    for _ in range(5):
        pool.servers[1].record_failure(LOST, "a test")
    after = [_picked(pool, b"%d" % number) for number in range(1000)]
    assert {new for old, new in zip(before, after, strict=True) if old == 1} == {0, 2}
    assert all(new == old for old, new in zip(before, after, strict=True) if old != 1)
    clock.advance(6.0)
    assert [_picked(pool, b"%d" % number) for number in range(1000)] == before


@pytest.mark.parametrize("cause", ["health check", "ejection"])
@pytest.mark.parametrize("balance", ["least", "round_robin", "hash"])
def test_a_server_that_is_back_starts_slowly(balance: Balance, cause: str) -> None:
    clock = FixedClock(0.0)
    pool = _pool(balance, 1, 1, clock=clock, slow_start_seconds=30.0)

    def share() -> float:
        return sum(_picked(pool, b"%d" % number) == 0 for number in range(2000)) / 2000

    assert abs(share() - 0.5) < 0.05  # at the start, all are there
    if cause == "ejection":
        for _ in range(5):
            pool.servers[0].record_failure(LOST, "a test")
        assert share() == 0
        clock.advance(5.0)
    else:
        pool.servers[0].set_health(is_healthy=False, problem="a test")
        assert share() == 0
        pool.servers[0].set_health(is_healthy=True, problem="")
    for seconds, weight in ((0.0, 0.1), (15.0, 0.5), (15.0, 1.0), (100.0, 1.0)):
        clock.advance(seconds)
        assert abs(share() - weight / (1 + weight)) < 0.05


def _head(*lines: bytes) -> RequestHead:
    head = RequestHead(b"GET", minor=True)
    head.start = b"\r\n".join((b"GET / HTTP/1.1", *lines)) + b"\r\n"
    return head


def _caller(owner: str | None, account: str | None) -> Principal:
    return Principal("api_key", "key_1", "n", account, "s", "live", "t", Tier("1/minute", 1), Scopes(), owner=owner)


@pytest.mark.parametrize(
    "by, principal, lines, expected",
    [
        ("address", _caller("o", "a"), (), b"42"),
        ("key", _caller("o", "a"), (), b"key_1"),
        ("key", ANONYMOUS, (), b"42"),
        ("owner", _caller("o", "a"), (), b"o"),
        ("owner", _caller(None, "a"), (), b"a"),
        ("owner", _caller(None, None), (), b"42"),
        ("owner", ANONYMOUS, (), b"42"),
        ("sid", ANONYMOUS, (b"Cookie: sid=one",), b"one"),
        ("sid", ANONYMOUS, (b"cookie:a=b;  sid=o=e ; c=d",), b"o=e"),
        ("sid", ANONYMOUS, (b"Cookie: a=b", b"COOKIE: sid=two"), b"two"),
        ("sid", ANONYMOUS, (b"Cookie: xsid=one; SID=two", b"X-Cookie: sid=three"), b"42"),
        ("sid", ANONYMOUS, (b"Cookie: sid=; sid",), b"42"),
        ("sid", ANONYMOUS, (), b"42"),
    ],
)
def test_what_requests_have_in_common(by: str, principal: Principal, lines: Sequence[bytes], expected: bytes) -> None:
    assert affinity_of(by, principal, 42, _head(*lines)) == expected


async def test_requests_with_the_same_cookie_go_to_the_same_server() -> None:
    async with Upstream() as one, Upstream() as two:
        servers = [{"url": f"http://127.0.0.1:{one.port}", "weight": 2}, f"http://127.0.0.1:{two.port}"]
        upstreams = {"live": servers, "balance": "hash", "hash_by": "sid"}
        async with proxied(upstreams=upstreams) as rig, rig.client() as client:
            for number in range(12):
                before = (len(one.heads), len(two.heads))
                for _ in range(3):
                    await client.send(request("GET", "/public/x", f"Cookie: sid={number}"))
                    assert (await client.answer())[0] == 200
                assert {len(one.heads) - before[0], len(two.heads) - before[1]} == {0, 3}
            assert one.heads
            assert two.heads


def test_settings_from_the_environment() -> None:
    environ = {
        "MACHPAY_UPSTREAMS__LIVE": "http://a:1,http://b:2",
        "MACHPAY_UPSTREAMS__BALANCE": "hash",
        "MACHPAY_UPSTREAMS__RESOLVE_SECONDS": "7",
    }
    upstream = load_settings({"config": os.devnull}, environ).upstreams["live"]
    assert (upstream.options.balance, upstream.options.resolve_seconds) == ("hash", 7)
    assert [origin.weight for origin in upstream.origins] == [1, 1]
