"""Health checks of real servers, in every state that a test can bring them into."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest
from redis import Redis

from machpay_gateway.core.check_result import CheckResult, CheckStatus, worst
from machpay_gateway.limiters.redis.health_checks import check_password_encoding, check_redis
from machpay_gateway.limiters.redis.refusals import LimiterUse
from machpay_gateway.limiters.redis.scripts import Scripts
from tests.redises.cluster import running_cluster
from tests.redises.faults import FaultProxy
from tests.redises.fixtures import redis_sentinels
from tests.redises.ports import HOST, free_port
from tests.redises.sentinel import Sentinels
from tests.redises.servers import Server, running_server

__all__ = ["redis_sentinels"]

OK, WARNING, WRONG = CheckStatus
ALONE = LimiterUse("machpay", "local")
IN_CLUSTER = LimiterUse("machpay", "local", "cluster")
SUBJECTS = [
    "redis",
    "redis access",
    "redis version",
    "redis memory",
    "redis persistence",
    "redis latency",
    "redis clock",
]
_names = count()


def rules_of(use: LimiterUse) -> list[str]:
    return use.acl_command.strip("`").split()[3:]


async def checked(url: str) -> dict[str, CheckResult]:
    return {result.subject: result for result in await check_redis(url, prefix="machpay", on_failure="local")}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@contextmanager
def configured(server: Server, **values: str) -> Iterator[None]:
    """Set *values* of the server within the block."""
    names = {name: name.replace("_", "-") for name in values}
    previous = {name: server.command("CONFIG GET", names[name])[names[name]] for name in values}
    for name, value in values.items():
        server.command("CONFIG", "SET", names[name], value)
    try:
        yield
    finally:
        for name, value in previous.items():
            server.command("CONFIG", "SET", names[name], value)


async def test_a_fresh_server_is_ok_and_nothing_stays_in_it(server: Server) -> None:
    results = await checked(server.url)

    assert list(results) == SUBJECTS
    assert worst(results.values()) is OK
    assert results["redis"].message.endswith("answers; no workers connected")
    assert server.command("KEYS", "*") == []


async def test_connected_workers_are_counted(server: Server) -> None:
    server.command("ZADD", "machpay:workers", time.time() + 60, "a", time.time() + 60, "b")
    try:
        assert (await checked(server.url))["redis"].message.endswith("; 2 workers connected")
        assert server.command("ZCARD", "machpay:workers") == 2
    finally:
        server.command("DEL", "machpay:workers")


async def test_the_documented_rights_are_sufficient(server: Server) -> None:
    results = await checked(server.add_user("enough", "-@all", *rules_of(ALONE)))

    assert results["redis access"].status is OK
    assert results["redis version"].status is WARNING, "it may not run INFO"
    assert (
        results["redis version"].way_out
        == "`ACL SETUSER USER +info` lets them be checked; the limiter does not need it"
    )
    assert "redis memory" not in results
    assert "redis latency" in results


@pytest.mark.parametrize("right", rules_of(ALONE))
async def test_each_documented_right_is_needed_and_named_when_missing(server: Server, right: str) -> None:
    name = f"lacking{next(_names)}"
    url = server.add_user(name, "-@all", *(rule for rule in rules_of(ALONE) if rule != right))

    results = await checked(url.replace("/0", "/1"))  # selecting the second database needs a right

    subject = "redis" if right in {"+client|setname", "+select"} else "redis access"
    result = results[subject]
    missed = "keys machpay:*" if right.startswith("~") else right.removeprefix("+").replace("|", " ")
    assert result.status is WRONG
    assert missed in result.message.replace("|", " ").lower()
    assert result.way_out == ALONE.acl_command
    assert server.command("KEYS", "*") == [], "what cannot be removed is not created"


def test_the_documented_rights_are_those_of_the_scripts() -> None:
    scripts = Scripts()
    source = scripts.admit.source + scripts.invalidate.source + scripts.heartbeat.source
    called = {name.lower() for name in re.findall(r"redis\.p?call\('(\w+)'", source)}

    connecting = {"client|setname", "select", "eval", "evalsha"}
    assert {rule[1:] for rule in rules_of(ALONE) if rule[0] == "+"} == called | connecting


async def test_a_failed_login_is_reported(server: Server) -> None:
    url = server.add_user("member", "-@all", *rules_of(ALONE)).replace("member:", "member:x")

    (result,) = (await checked(url)).values()

    assert (result.subject, result.status) == ("redis", WRONG)
    assert "does not let us in (invalid username-password pair" in result.message
    assert result.way_out == "see the user and the password in `redis`"


async def test_a_replica_takes_no_writes(server: Server) -> None:
    server.command("REPLICAOF", HOST, free_port())
    try:
        result = (await checked(server.url))["redis access"]
    finally:
        server.command("REPLICAOF", "NO", "ONE")

    assert (result.status, result.message) == (WRONG, "it is a replica and takes no writes")


@pytest.mark.parametrize(
    "maxmemory, policy, status, message",
    [
        ("0", "allkeys-lru", OK, "no maxmemory is set"),  # never full
        ("1gb", "noeviction", OK, "noeviction, 0% of maxmemory used"),
        ("1gb", "allkeys-lru", WARNING, "their windows start over"),
        ("1gb", "volatile-ttl", WARNING, "their windows start over"),  # each of our keys has a TTL
    ],
)
async def test_what_happens_to_counters_when_memory_is_full_is_reported(
    server: Server, maxmemory: str, policy: str, status: CheckStatus, message: str
) -> None:
    with configured(server, maxmemory=maxmemory, maxmemory_policy=policy):
        results = await checked(server.url)

    assert results["redis access"].status is OK
    assert results["redis memory"].status is status
    assert message in results["redis memory"].message


async def test_full_memory_is_wrong_since_writes_are_refused(server: Server) -> None:
    with configured(server, maxmemory="1"):
        results = await checked(server.url)

    assert results["redis access"].status is WRONG
    assert results["redis access"].message == (
        'its memory is full, so it refuses writes: on_limiter_failure = "local" decides'
    )
    assert results["redis memory"].status is WARNING


async def test_refused_writes_are_reported_with_their_reason(server: Server) -> None:
    with configured(server, min_replicas_to_write="1"):
        result = (await checked(server.url))["redis access"]

    assert result.status is WRONG
    assert "NOREPLICAS" in result.message


async def test_snapshots_are_reported(server: Server) -> None:
    with configured(server, save="3600 1"):
        assert (await checked(server.url))["redis persistence"].message.startswith("snapshots, no replicas")
    assert (await checked(server.url))["redis persistence"].message.startswith("nothing is written to disk")


async def test_a_slow_network_is_a_warning(server: Server) -> None:
    with FaultProxy(server.port) as proxy:
        proxy.delay_seconds = 0.005  # each way
        result = (await checked(proxy.url))["redis latency"]

    assert result.status is WARNING
    assert result.message.endswith("of 20 round trips: requests wait for it")


async def test_an_unreachable_server_is_reported_with_the_failure_mode() -> None:
    (result,) = (await checked(f"redis://{HOST}:{free_port()}/0")).values()

    assert result.status is WRONG
    assert "does not answer (Error 111" in result.message.replace("Error 61", "Error 111")
    assert result.message.endswith('on_limiter_failure = "local" decides')


async def test_a_frozen_server_is_given_up() -> None:
    with running_server() as server, server.frozen():
        (result,) = (await checked(server.url)).values()

    assert "does not answer (no reply in time)" in result.message


@pytest.mark.parametrize("ahead, status, message", [(-90, WARNING, "90.0 s ahead of"), (0.2, OK, "within 1 s")])
async def test_a_skewed_clock_is_a_warning(server: Server, ahead: float, status: CheckStatus, message: str) -> None:
    results = await check_redis(server.url, prefix="machpay", on_failure="local", clock=lambda: time.time() + ahead)

    assert results[-1].status is status
    assert message in results[-1].message


async def test_every_primary_of_a_cluster_is_checked(cluster_url: str) -> None:
    ports = [int(port) for port in re.findall(r":(\d+)", cluster_url)]
    for port in ports:
        with Redis(HOST, port) as node:
            node.execute_command(
                "ACL", "SETUSER", "app", "reset", "on", ">word", "-@all", *rules_of(IN_CLUSTER), "+@dangerous"
            )
    with Redis(HOST, ports[1]) as node:
        node.execute_command("ACL", "SETUSER", "app", "-setrange")

    results = await check_redis(cluster_url, prefix="machpay", on_failure="local")
    assert worst(results) is OK
    assert CheckResult("redis cluster", OK, "state ok, 3 primaries") in results
    as_app = await check_redis(cluster_url.replace("//", "//app:word@"), prefix="machpay", on_failure="local")
    access = {result.message: result.status for result in as_app if result.subject == "redis access"}
    others = ", ".join(sorted(f"{HOST}:{port}" for port in ports if port != ports[1]))
    assert access == {
        f"{HOST}:{ports[1]}: the user may not run SETRANGE": WRONG,
        f"{others}: all needed commands are allowed on keys machpay:*": OK,
    }


async def test_a_url_of_one_cluster_node_is_wrong(cluster_url: str) -> None:
    port = re.findall(r":(\d+)", cluster_url)[0]

    result = (await checked(f"redis://{HOST}:{port}/0"))["redis access"]

    assert (result.status, result.way_out) == (WRONG, "write `redis` as redis+cluster://HOST:PORT")


async def test_the_primary_named_by_the_sentinels_is_reported(redis_sentinels: Sentinels) -> None:
    results = await checked(redis_sentinels.url)

    assert worst(results.values()) is OK
    assert f"and the sentinels name {HOST}:{redis_sentinels.primary.port} as the primary" in results["redis"].message
    assert "1 replica:" in results["redis persistence"].message
    nobody = await checked(redis_sentinels.url.replace("/primary", "/other"))
    assert "No master found for 'other'" in nobody["redis"].message


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:s3cret@{where}/0",
        "redis://:s3cret@{where}/0",
        "redis://{where}/0?password=s3cret&username=user",
        "redis://user:an@s3cret@{where}/0",  # the last @ counts
        "redis+cluster://user:s3cret@{where}",
        "redis+sentinel://user:s3cret@{where}/primary/0?sentinel_password=s3cret",
        "unix://user:s3cret@/nowhere/{where}?db=0",
    ],
)
async def test_no_part_of_a_password_is_displayed(server: Server, url: str) -> None:
    for port in (server.port, free_port()):
        results = await check_redis(url.format(where=f"{HOST}:{port}"), prefix="machpay", on_failure="local")

        assert results[0].status is WRONG
        assert "s3cret" not in repr(results)


@pytest.mark.parametrize("sign", "/?#")
def test_a_password_that_ends_too_soon_is_reported_before_it_is_displayed(sign: str) -> None:
    assert check_password_encoding(f"redis://user:s3{sign}cret@{HOST}/0") == check_password_encoding(
        "redis://:12/x@host"
    )
    assert check_password_encoding(f"redis://user:s3%2Fcret@{HOST}/0?db=1") is None
    assert check_password_encoding("redis://[") is None, "an unreadable URL is a configuration error"


async def test_a_dead_shard_of_a_cluster_is_wrong_and_the_others_are_checked() -> None:
    with running_cluster("--cluster-require-full-coverage", "no") as cluster:
        dead = cluster.servers[1]
        dead.kill()
        results = await check_redis(cluster.url, prefix="machpay", on_failure="local")
    (wrong,) = [it for it in results if it.subject == "redis" and it.status is WRONG]
    assert wrong.message.startswith(f"1 of 3 shards does not answer: 127.0.0.1:{dead.port} (Error 111 ")
    assert wrong.message.endswith('for their subjects, on_limiter_failure = "local" decides')
    assert any(it.subject == "redis access" and it.status is OK for it in results)
