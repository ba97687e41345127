"""Servers that can be reached and refuse: the start says why. Those that cannot be reached: it starts degraded."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.limiters.redis import RedisLimiter
from machpay_gateway.limiters.redis.health_checks import check_redis
from tests.redises.cluster import Cluster
from tests.redises.fixtures import redis_sentinels
from tests.redises.ports import HOST, free_port
from tests.redises.sentinel import Sentinels, running_sentinels
from tests.redises.servers import Server, running_server
from tests.redises.tls import tls_server

__all__ = ["redis_sentinels"]

ALL = ("+@all", "~machpay:*")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@asynccontextmanager
async def replying(reply: bytes) -> AsyncIterator[str]:
    """Listen, send *reply* to whoever connects, and yield the URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(reply)
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(answer, HOST, 0)
    async with listening:
        yield f"redis://{HOST}:{listening.sockets[0].getsockname()[1]}/0"


async def assert_refused(url: str, reason: str, way_out: str) -> None:
    """Check that neither a start nor `doctor` takes *url*, and that both say the same."""
    limiter = RedisLimiter(url)
    with pytest.raises(ConfigurationError) as refused:
        await limiter.open()
    text = str(refused.value)
    assert re.search(reason, text), text
    assert way_out in text
    results = await check_redis(url, prefix="machpay", on_failure="local")
    assert any(re.search(reason, it.message) and way_out in (it.way_out or "") for it in results), results


async def assert_degraded(url: str) -> None:
    """Check that a limiter of *url* starts and decides by itself."""
    limiter = RedisLimiter(url)
    await limiter.open()
    assert limiter.is_degraded
    await limiter.close()


async def test_a_database_that_the_server_does_not_have(server: Server) -> None:
    url = server.url.replace("/0", "/99")
    await assert_refused(
        url, r"does not have the URL's database \(DB index is out of range\)", "end `redis` in /NUMBER"
    )


@pytest.mark.parametrize(
    "rule, named",
    [
        ("-evalsha", "run EVALSHA"),
        ("-eval", "run EVAL"),
        ("-select", "run SELECT"),
        ("-client", "run CLIENT SETNAME"),
        ("-zadd", "run ZADD"),
        ("-setrange", "run SETRANGE"),  # which is first called when a record has changed
        ("-mget", "run MGET"),
        ("resetkeys", "use keys machpay:*"),
    ],
)
async def test_a_right_that_the_user_does_not_have(server: Server, rule: str, named: str) -> None:
    url = server.add_user("lacking", *ALL, rule).replace("/0", "/1")
    await assert_refused(url, re.escape(f"the user may not {named}"), "`ACL SETUSER USER ~machpay:* +client|setname")


async def test_keys_of_which_the_user_may_use_only_some(server: Server) -> None:
    url = server.add_user("narrow", "+@all", "~machpay:workers")
    await assert_refused(url, r"the user may not use keys machpay:\*", "`ACL SETUSER USER ~machpay:* ")


async def test_a_refused_start_leaves_nothing_behind(server: Server) -> None:
    server.flush()
    with pytest.raises(ConfigurationError):
        await RedisLimiter(server.add_user("lacking", *ALL, "-setrange")).open()
    assert server.command("KEYS", "*") == []


async def test_a_wrong_password_and_a_missing_one(server: Server) -> None:
    wrong = server.add_user("member", *ALL).replace("member:", "member:x")
    await assert_refused(wrong, r"does not let us in \(invalid username", "see the user and the password in `redis`")
    with running_server("--requirepass", "word") as guarded:
        await assert_refused(guarded.url, r"does not let us in \(Auth", "see the user and the password in `redis`")
    given = server.url.replace("//", "//:word@")
    await assert_refused(given, r"does not let us in \(AUTH <password> called without", "see the user and the password")


async def test_a_cluster_url_of_a_single_server_and_the_reverse(server: Server, redis_cluster: Cluster) -> None:
    as_cluster = f"redis+cluster://{HOST}:{server.port}"
    await assert_refused(as_cluster, "it is not a node of a Cluster", "redis://HOST:PORT/0")
    for node in redis_cluster.servers:  # the one that owns the key of the workers, too
        await assert_refused(node.url, "it is one node of a Cluster", "redis+cluster://HOST:PORT")


async def test_a_sentinel_url_of_a_single_server_and_the_reverse(server: Server, redis_sentinels: Sentinels) -> None:
    as_sentinel = f"redis+sentinel://{HOST}:{server.port}/primary/0"
    await assert_refused(as_sentinel, "it is not a Sentinel", "redis://HOST:PORT/0")
    port = re.findall(r":(\d+)", redis_sentinels.url)[0]
    await assert_refused(f"redis://{HOST}:{port}/0", "does not know the command", "name no Sentinel")
    other = redis_sentinels.url.replace("/primary", "/other")
    await assert_refused(other, "know no primary by that name .*'other'", "`SENTINEL MASTERS`")


async def test_a_replica(server: Server) -> None:
    server.command("REPLICAOF", HOST, free_port())
    try:
        await assert_refused(server.url, "it is a replica and takes no writes", "name its primary")
        server.command("CONFIG", "SET", "replica-serve-stale-data", "no")
        await assert_refused(server.url, "it is a replica and takes no writes", "name its primary")
    finally:
        server.command("REPLICAOF", "NO", "ONE")
        server.command("CONFIG", "SET", "replica-serve-stale-data", "yes")


@pytest.mark.parametrize("command", ["EVALSHA", "ZADD", "CLIENT"])
async def test_a_command_that_the_server_does_not_know(command: str) -> None:
    with running_server(lines=[f'rename-command {command} ""']) as server:
        await assert_refused(server.url, f"does not know the command {command}", "run Redis 6.2 or later, or Valkey")


async def test_tls_to_a_plain_port_and_the_reverse(server: Server) -> None:
    await assert_refused(
        server.url.replace("redis:", "rediss:"), "its port does not speak TLS", "with redis:// in place"
    )
    with tls_server() as tls:
        await assert_refused(f"redis://{HOST}:{tls.port}/0", "its port speaks TLS", "with rediss:// in place")
        await assert_refused(tls.url_without_ca, "its certificate is not trusted", "?ssl_ca_certs=FILE")


@pytest.mark.parametrize(
    "reply, reason",
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there is no Redis server"),
        (b"-DENIED Redis is running in protected mode\r\n", "DENIED Redis is running in protected mode"),
        (b"-ERR something new\r\n", "something new"),
    ],
)
async def test_an_answer_that_no_limiter_can_use(reply: bytes, reason: str) -> None:
    async with replying(reply) as url:
        await assert_refused(url, reason, "")


@pytest.mark.parametrize(
    "reply",
    [
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n",
        b"-MISCONF Errors writing to the AOF file: No space left on device\r\n",
        b"-CLUSTERDOWN The cluster is down\r\n",
        b"-ERR Error running script (call to f_1): @user_script:6: @user_script: 6: -OOM command not allowed\r\n",
        b"-ERR max number of clients reached\r\n",
        b"",  # it hangs up
    ],
)
async def test_what_passes_by_itself_does_not_stop_the_start(reply: bytes) -> None:
    async with replying(reply) as url:
        await assert_degraded(url)


@pytest.mark.parametrize("setting, value, usual", [("maxmemory", "1", "0"), ("min-replicas-to-write", "1", "0")])
async def test_a_server_that_takes_no_writes_for_now_does_not_stop_the_start(
    server: Server, setting: str, value: str, usual: str
) -> None:
    server.command("CONFIG", "SET", setting, value)
    try:
        await assert_degraded(server.url)
    finally:
        server.command("CONFIG", "SET", setting, usual)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+cluster", "rediss+cluster"])
async def test_a_server_that_cannot_be_reached_does_not_stop_the_start(scheme: str) -> None:
    await assert_degraded(f"{scheme}://{HOST}:{free_port()}")


async def test_a_frozen_server_does_not_stop_the_start() -> None:
    with running_server() as server, server.frozen():
        for scheme in ("redis", "rediss"):
            await assert_degraded(server.url.replace("redis:", f"{scheme}:"))


async def test_sentinels_whose_primary_is_down_do_not_stop_the_start() -> None:
    with running_sentinels() as sentinels:
        sentinels.primary.kill()
        await assert_degraded(sentinels.url)
