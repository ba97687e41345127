"""How servers are reached, which rights a user needs there, and what is stored."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from secrets import token_hex

import pytest
from redis import Redis

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.limits.admission import STALE, Admitted
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.limits.rate import TIERS, Tier
from machpay_gateway.limiters.redis import RedisLimiter
from machpay_gateway.limiters.redis.connection import REPLY_TIMEOUT_SECONDS
from machpay_gateway.limiters.redis.scripts import Scripts, run_script
from machpay_gateway.limiters.redis.servers import CONNECT_SECONDS, servers_for
from tests.clocks import FixedClock
from tests.limiters.harness import Harness, ScriptsAt
from tests.limiters.state import read_state
from tests.redises.cluster import Cluster, running_cluster
from tests.redises.faults import FaultProxy
from tests.redises.ports import HOST
from tests.redises.sentinel import running_sentinels
from tests.redises.servers import Server, running_server
from tests.redises.tls import tls_server
from tests.redises.waiting import wait_until

TEN = Tier("10/minute", 4)
patient = pytest.mark.usefixtures("no_deadlines")
# The rights of a user, besides the keys that begin with the prefix: the scripts and the commands that they call.
COMMANDS = (
    *("+client|setname", "+eval", "+evalsha", "+time", "+expire", "+ttl"),
    *("+mget", "+set", "+setrange"),
    *("+zadd", "+zrem", "+zremrangebyscore", "+zcard"),
)


@pytest.fixture
def prefix() -> str:
    return f"test{token_hex(4)}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@asynccontextmanager
async def limiter_on(url: str, prefix: str = "machpay", clock: FixedClock | None = None) -> AsyncIterator[Harness]:
    """Open a limiter; with a *clock*, the server uses that too."""
    if clock is None:
        limiter = RedisLimiter(url, prefix=prefix)
    else:
        limiter = RedisLimiter(url, prefix=prefix, clock=clock, scripts=ScriptsAt(clock))
    await limiter.open()
    try:
        yield Harness(limiter, clock or FixedClock())
    finally:
        await limiter.close()
        assert not limiter.counts, "the limiter decided without its server"


@patient
@pytest.mark.parametrize("scheme", ["redis", "unix", "rediss"])
async def test_every_scheme_reaches_the_same_counters(scheme: str) -> None:
    with tls_server() as tls:
        urls = {"redis": tls.server.url, "unix": tls.server.unix_url, "rediss": tls.url}
        async with limiter_on(tls.server.url) as other, limiter_on(urls[scheme]) as harness:
            assert (await other.take(TEN)).left == 9
            answer = await harness.take(TEN)
            assert (answer.left, answer.slots_left) == (8, 2)


async def use_every_command(url: str, prefix: str) -> None:
    """Run every command that the limiter ever runs."""
    clock, tier = FixedClock(), Tier("3/minute", 2)
    async with limiter_on(url, prefix, clock) as harness, limiter_on(url, prefix, clock) as other:
        await harness.take(tier)
        await other.take(tier)
        await harness.refusal(tier)
        clock.advance(30)  # both count as dead
        (await harness.take(tier)).lease.release()
        assert (await other.refusal(tier, cost=3)).policies == ("minute", "concurrency")
        clock.advance(61)
        await other.take(tier)
        await harness.refusal(Tier("1/hour", 2))
        await harness.invalidate(2)
        async with asyncio.timeout(5):
            while await other.admit(tier) is not STALE:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)


@patient
async def test_a_user_needs_only_the_prefix_and_these_commands(
    server: Server, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.command("SCRIPT", "FLUSH")
    await use_every_command(server.add_user("gateway", f"~{prefix}:*", *COMMANDS), prefix)
    assert not caplog.messages


async def test_a_user_without_the_prefix_fails_at_the_start(server: Server, prefix: str) -> None:
    limiter = RedisLimiter(server.add_user("stranger", "~others:*", *COMMANDS), prefix=prefix)
    with pytest.raises(ConfigurationError, match=rf"the user may not use keys {prefix}:\*: `ACL SETUSER USER"):
        await limiter.open()


@pytest.mark.parametrize("user", ["", ":wrong-one@", "nobody:wrong-one@"])
async def test_a_start_with_a_wrong_password_fails_and_does_not_disclose_it(user: str) -> None:
    with running_server("--requirepass", "right-one") as server:
        limiter = RedisLimiter(f"redis://{user}{HOST}:{server.port}/0")
        with pytest.raises(ConfigurationError, match="the server does not let us in") as refused:
            await limiter.open()
        assert "wrong-one" not in str(refused.value)
        assert "right-one" not in str(refused.value)


async def test_requests_not_sent_on_a_lost_connection_wait_for_the_next_one(server: Server, prefix: str) -> None:
    with FaultProxy(server.port) as proxy:
        proxy.delay_seconds = 0.004  # long enough for requests without a connection
        limiter = RedisLimiter(proxy.url, prefix=prefix)
        await limiter.open()
        harness, many = Harness(limiter, FixedClock()), Tier("100/minute", 90)
        sent = [asyncio.create_task(harness.admit(many, subject=f"key_{number}")) for number in range(20)]
        await asyncio.sleep(0.001)
        proxy.reset_all()
        assert all(isinstance(answer, Admitted) for answer in await asyncio.gather(*sent))
        assert limiter.counts == {"local": 20}
        later = await asyncio.gather(*(harness.take(TEN, cost=2, subject="key_99") for _ in range(4)))
        assert [answer.left for answer in later] == [8, 6, 4, 2]
        assert limiter.counts == {"local": 20}
        await limiter.close()


async def test_a_reply_that_a_blocked_event_loop_has_not_read_yet_is_in_time(server: Server, prefix: str) -> None:
    link = await servers_for(server.url).connect()
    running = asyncio.create_task(run_script(link, Scripts().heartbeat, [f"{prefix}:workers".encode()], ["worker", 1]))
    for _ in range(5):
        await asyncio.sleep(0)  # it is in flight
    time.sleep(2 * REPLY_TIMEOUT_SECONDS)  # noqa: ASYNC251 - this blocks the event loop
    assert await running == 1
    await link.close()


@patient
async def test_the_server_counts_all_slots_of_many_busy_subjects(server: Server, prefix: str) -> None:
    with FaultProxy(server.port) as proxy:
        async with limiter_on(proxy.url, prefix) as harness:
            proxy.delay_seconds = 0.005

            async def take(subject: str, after: float) -> None:
                await asyncio.sleep(after)
                for _ in range(6):
                    await harness.take(Tier("1000/minute", 500), subject=subject)

            waits = (0.0, 0.0, 0.003, 0.003)  # some while others wait, and two at once: that makes two steps
            await asyncio.gather(*(take(f"key_{number}", wait) for number in range(40) for wait in waits))
            values = [parts[0] for key, parts in stored(server, prefix).items() if not key.endswith(b":workers")]
            assert [slots for value in values for _, slots, _ in read_state(value).workers] == [24] * 40


@patient
@pytest.mark.parametrize("forget", [("SCRIPT", "FLUSH"), ("FLUSHALL",)])
async def test_no_request_fails_when_the_server_loses_keys_or_scripts(
    forget: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    many = Tier("10000/minute", 50)
    with running_server() as server:
        async with limiter_on(server.url) as harness:
            held = [await harness.take(many, subject="held") for _ in range(3)]
            requests = [asyncio.create_task(harness.admit(many, subject=f"key_{n % 9}")) for n in range(200)]
            await asyncio.sleep(0)
            server.command(*forget)
            assert all(isinstance(answer, Admitted) for answer in await asyncio.gather(*requests))
            for _ in range(3):
                server.command(*forget)
                held.append(await harness.take(many, subject="held"))
            assert held[-1].slots_left == 50 - len(held)
    assert not [record for record in caplog.records if record.name.startswith("machpay_gateway")]


async def test_a_sentinels_new_primary_is_found_without_a_restart() -> None:
    with running_sentinels() as sentinels:
        async with AsyncExitStack() as stack:
            limiter = RedisLimiter(sentinels.url)
            await limiter.open()
            stack.push_async_callback(limiter.close)
            harness = Harness(limiter, FixedClock())
            await harness.take(TEN)
            assert sentinels.primary.command("WAIT", 1, 5000) == 1
            await asyncio.to_thread(sentinels.failover)
            async with asyncio.timeout(5):
                while (await harness.take(TEN, cost=0, subject=token_hex(4))).plan is not tier_plan(TEN):  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0.02)
            assert (await harness.take(TEN)).slots_left == 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


def slot_of_subject(cluster: Cluster, prefix: str) -> tuple[int, Server, Server]:
    """Return the slot of the only subject with *prefix*, its owner, and another node."""
    (key,) = (key for node in cluster.servers for key in node.command("KEYS", f"{prefix}:?????????*") if key)
    slot = cluster.slot_of(key)
    source = cluster.owner_of(slot)
    return slot, source, next(node for node in cluster.servers if node is not source)


@patient
async def test_a_moved_slot_is_followed(cluster: Cluster, prefix: str) -> None:
    async with limiter_on(cluster.url, prefix) as harness:
        await harness.take(TEN)
        slot, source, target = slot_of_subject(cluster, prefix)
        target.command("SCRIPT", "FLUSH")
        cluster.move_slot(slot, source, target)
        answer = await harness.take(TEN)
        assert (answer.left, answer.slots_left) == (8, 2)
        cluster.move_slot(slot, target, source)
        assert (await harness.take(TEN)).left == 7


async def take_through_a_migration(cluster: Cluster, prefix: str, *, knows_scripts: bool) -> None:
    async with limiter_on(cluster.url, prefix) as harness:
        (await harness.take(TEN)).lease.release()
        slot, source, target = slot_of_subject(cluster, prefix)
        for number in range(50 if knows_scripts else 0):
            await harness.take(TEN, subject=f"key_{number}_of_any_node")
    if not knows_scripts:
        target.command("SCRIPT", "FLUSH")
    move = cluster.slot_move(slot, source, target)
    try:
        async with limiter_on(cluster.url, prefix) as harness:
            assert (await harness.take(TEN)).left == 8
            move.begin()
            assert (await harness.take(TEN)).left == 7
            move.move_keys()
            assert (await harness.take(TEN)).left == 6
            move.finish()
            assert (await harness.take(TEN)).left == 5
    finally:
        move.move_keys()
        move.finish()


@patient
async def test_a_migrating_slot_is_followed(cluster: Cluster, prefix: str) -> None:
    await take_through_a_migration(cluster, prefix, knows_scripts=True)


@patient
async def test_a_slot_that_migrates_to_a_server_without_scripts_is_followed(cluster: Cluster, prefix: str) -> None:
    await take_through_a_migration(cluster, prefix, knows_scripts=False)


async def test_a_hanging_host_leaves_time_to_read_the_slot_map_from_the_next(cluster: Cluster) -> None:
    with FaultProxy(cluster.servers[0].port) as proxy:
        proxy.blackhole = True
        url = cluster.url.replace("//", f"//{HOST}:{proxy.port},")
        limiter = RedisLimiter(url)
        async with asyncio.timeout(2 * CONNECT_SECONDS):  # the other nodes are connected to after that
            await limiter.open()
        assert not limiter.is_degraded
        await limiter.close()


async def test_while_one_node_hangs_no_connection_to_the_others_stays_open(cluster: Cluster) -> None:
    *others, last = cluster.servers
    with last.frozen():
        limiter = RedisLimiter(cluster.url)
        await limiter.open()
        assert limiter.is_degraded
        assert all(map(is_used, others))
        await limiter.close()
        await asyncio.to_thread(wait_until, lambda: not any(map(is_used, others)), seconds=2, claim="all are closed")
    cluster.wait_until_ok()


def is_used(server: Server) -> bool:
    return "name=machpay-gateway" in server.command("CLIENT", "LIST")


def stored(server: Server, prefix: str) -> dict[bytes, list[bytes]]:
    """Return what the server stores under *prefix*: the keys, and the parts of their values."""
    with Redis(unix_socket_path=str(server.socket_path)) as redis:
        return {
            key: redis.execute_command("ZRANGE", key, 0, -1)
            if key.endswith(b":workers")
            else [redis.execute_command("GET", key)]
            for key in redis.execute_command("KEYS", f"{prefix}:*")
        }


ODD = ["", "a", "user:with:colons", "名前", "a\0b\r\n", "{tag}", "x" * 1_000_000]


@patient
async def test_keys_have_one_size_and_disclose_no_name(server: Server, prefix: str) -> None:
    subjects = ["alice@example.com", *ODD]
    async with limiter_on(server.url, prefix) as harness:
        for number, subject in enumerate(subjects):
            tier = TEN if number % 2 else Tier("10/day", 4)
            assert (await harness.take(tier, subject=subject)).left == 9
        await harness.limiter.invalidate([("changed@example.com", 2, "")])
        await asyncio.to_thread(
            wait_until, lambda: len(stored(server, prefix)) == len(subjects) + 2, seconds=5, claim="all is stored"
        )
        values = stored(server, prefix)
    assert {len(key) for key in values if not key.endswith(b":workers")} == {len(prefix) + 1 + 13 + 22}
    everything = b" ".join(part for key, parts in values.items() for part in [key, *parts])
    assert not any(name in everything for name in (b"alice", b"changed", b"colons", "名".encode(), b"tag", b"xxxx"))


@patient
async def test_a_subject_that_is_not_valid_unicode_is_counted_like_any_other(server: Server, prefix: str) -> None:
    async with limiter_on(server.url, prefix) as harness:
        assert (await harness.take(TEN, subject="half of a surrogate pair: \ud800")).left == 9
        assert (await harness.take(TEN, subject="half of a surrogate pair: \ud801")).left == 9
        assert (await harness.take(TEN, subject="half of a surrogate pair: \ud800")).left == 8


@patient
async def test_a_subject_with_all_cells_in_use_takes_at_most_a_kilobyte(server: Server, prefix: str) -> None:
    clock, tier = FixedClock(), TIERS["enterprise"]
    async with AsyncExitStack() as stack:
        rigs = [await stack.enter_async_context(limiter_on(server.url, prefix, clock)) for _ in range(4)]
        for second in range(61):
            await rigs[second % 4].take(tier, cost=tier.limits.rates[0].limit // 61)
            clock.advance(1)
            for harness in rigs:
                await harness.take(tier, cost=0)
        (key,) = (key.decode() for key in stored(server, prefix) if not key.endswith(b":workers"))
        state = read_state(server.command("GET", key).encode(errors="surrogateescape"))
        assert (len(state.workers), state.cells) == (4, 61)
        assert server.command("MEMORY", "USAGE", key, "SAMPLES", 0) <= 1024
