"""Shards of a Cluster fail one by one: each takes its own subjects with it, and no others."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count, islice

import pytest
from redis.crc import key_slot

from machpay_gateway.core.limits.admission import STALE, Admitted, LimiterUnavailable
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.limiters.redis import RedisLimiter
from machpay_gateway.limiters.redis.cluster import tag_of
from machpay_gateway.limiters.redis.limiter import FailureMode
from tests.clocks import FixedClock
from tests.limiters.harness import START, Harness
from tests.redises.cluster import Cluster, running_cluster, running_joined, running_replica
from tests.redises.ports import HOST
from tests.redises.servers import Server
from tests.redises.waiting import wait_until

TEN = Tier("10/minute", 10)
PATIENCE_SECONDS = 20.0


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A cluster that goes on without one of its nodes."""
    with running_cluster("--cluster-require-full-coverage", "no") as cluster:
        yield cluster


def test_each_slot_has_a_tag_without_a_search() -> None:
    tags = [tag_of(number) for number in range(16384)]
    assert [key_slot(b"machpay:{%b}12" % tag) for tag in tags] == list(range(16384))


@asynccontextmanager
async def limiter_on(cluster: Cluster, on_failure: FailureMode = "local") -> AsyncIterator[Harness]:
    limiter = RedisLimiter(cluster.url, on_failure=on_failure, clock=FixedClock(START))
    await limiter.open()
    try:
        yield Harness(limiter, FixedClock(START))
    finally:
        await limiter.close()


def subjects_of(harness: Harness, server: Server, number: int = 20) -> Sequence[str]:
    """Return *number* subjects that *server* owns."""
    limiter = harness.limiter
    assert isinstance(limiter, RedisLimiter)

    def is_owned(name: str) -> bool:
        slot = limiter._topology.slot_of(limiter._key(name, ""))  # noqa: SLF001 - as the limiter finds it
        return slot.shard.address is not None and slot.shard.address[1] == server.port

    return list(islice((name for name in (f"key_{it}" for it in count()) if is_owned(name)), number))


def node_id_of(server: Server, other: Server) -> str:
    """Return the id that *server* knows *other* by."""
    nodes: Mapping[str, Mapping[str, str]] = server.command("CLUSTER NODES")
    return next(node["node_id"] for address, node in nodes.items() if address.endswith(f":{other.port}"))


def owner_port(server: Server, slot: int) -> int:
    """Return the port of the owner of *slot* as *server* sees it."""
    ranges = server.command("CLUSTER", "SLOTS")
    return int(next(owner[1] for first, last, owner, *_ in ranges if int(first) <= slot <= int(last)))


def wait_until_agreed(servers: Sequence[Server], slot: int, owner: Server) -> None:
    wait_until(
        lambda: all(owner_port(server, slot) == owner.port for server in servers),
        seconds=PATIENCE_SECONDS,
        claim="all nodes agree on the owner",
    )


async def until(harness: Harness, *, degraded: bool) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while harness.limiter.is_degraded is not degraded:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)


def counts(harness: Harness) -> int:
    """Return how often it decided without a server."""
    return sum(harness.limiter.counts.values())


@pytest.mark.parametrize("fault", ["killed", "frozen"])
@pytest.mark.parametrize("mode", ["local", "allow", "deny"])
async def test_a_dead_shard_takes_only_its_own_subjects_with_it(
    cluster: Cluster, mode: FailureMode, fault: str
) -> None:
    async with limiter_on(cluster, mode) as harness:
        dead, *others = cluster.servers
        of_dead = subjects_of(harness, dead)
        of_others = [name for server in others for name in subjects_of(harness, server)]
        for name in [*of_dead, *of_others]:
            assert (await harness.take(TEN, subject=name)).left == 9
        dead.kill() if fault == "killed" else dead.freeze()
        await asyncio.gather(*(harness.admit(TEN, subject=name) for name in of_dead))
        await until(harness, degraded=True)
        for round_ in range(8):
            for name in of_others:
                answer = await harness.take(TEN, subject=name)
                assert (answer.left, answer.plan) == (8 - round_, tier_plan(TEN))
            await asyncio.sleep(0.3)  # longer than it takes the others to notice, and this one to connect again
        assert counts(harness) == len(of_dead)
        lost = [await harness.admit(TEN, subject=name) for name in of_dead]
        assert {type(answer) for answer in lost} == {LimiterUnavailable if mode == "deny" else Admitted}
        outage = harness.limiter.outage
        assert outage is not None
        assert outage.part == f"1 of 3 shards (127.0.0.1:{dead.port})"
        dead.thaw() if fault == "frozen" else dead.start()
        await until(harness, degraded=False)
        left = (await harness.take(TEN, subject=of_dead[0])).left
        # A frozen server executes what it was sent, too: rather twice than never.
        assert left == {"killed": 9, "frozen": 7}[fault] - (0 if mode == "deny" else 2)


async def test_a_replica_that_takes_over_counts_on_and_the_other_shards_never_notice(cluster: Cluster) -> None:
    dead, *others = cluster.servers
    with running_replica(cluster, dead) as replica:
        async with limiter_on(cluster) as harness:
            (lost, *_), (kept, *_) = subjects_of(harness, dead), subjects_of(harness, others[0])
            await harness.take(TEN, subject=lost)
            assert dead.command("WAIT", 1, 5000) == 1
            dead.kill()
            await harness.admit(TEN, subject=lost)
            await until(harness, degraded=True)
            before = counts(harness)
            for left in range(9, 2, -1):
                assert (await harness.take(TEN, subject=kept)).left == left
            assert counts(harness) == before
            await until(harness, degraded=False)
            assert (await harness.take(TEN, subject=lost)).left == 10 - 1 - 1 - 1
            assert replica.command("ROLE")[0] == "master"


async def test_a_planned_failover_is_followed_without_a_decision_that_the_server_does_not_make(
    cluster: Cluster,
) -> None:
    source = cluster.servers[0]
    with running_replica(cluster, source) as replica:
        async with limiter_on(cluster) as harness:
            names = subjects_of(harness, source)
            replica.command("CLUSTER", "FAILOVER")
            await asyncio.to_thread(
                wait_until, lambda: replica.command("ROLE")[0] == "master", seconds=5, claim="it has taken over"
            )
            for left in (9, 8, 7):
                answers = await asyncio.gather(*(harness.take(TEN, subject=name) for name in names))
                assert {answer.left for answer in answers} == {left}
            assert not counts(harness)


async def test_slots_that_move_away_from_a_dead_server_are_reported_to_the_one_that_takes_them(
    cluster: Cluster,
) -> None:
    dead, other, third = cluster.servers
    async with limiter_on(cluster) as harness:
        (name, *_) = subjects_of(harness, dead, 1)
        dead.kill()
        for _ in range(3):
            await harness.admit(TEN, subject=name)
        await until(harness, degraded=True)
        slots = range(16384 // 3)
        for server in (other, third):
            server.command("CLUSTER", "FORGET", node_id_of(server, dead))
        other.command("CLUSTER", "ADDSLOTS", *slots)
        await until(harness, degraded=False)
        assert (await harness.take(TEN, subject=name)).left == 10 - 3 - 1


async def test_all_shards_are_away_when_the_cluster_refuses_to_go_on_without_one() -> None:
    with running_cluster("--cluster-require-full-coverage", "yes") as cluster:
        async with limiter_on(cluster) as harness:
            dead, *others = cluster.servers
            names = [name for server in others for name in subjects_of(harness, server, 1)]
            dead.kill()
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (outage := harness.limiter.outage) is None or not outage.part.startswith("3 of 3 shards"):
                    for name in names:
                        await harness.admit(Tier("100000/minute", 100_000), subject=name)
                    await asyncio.sleep(0.01)
            dead.start()
            await until(harness, degraded=False)


async def test_a_start_while_a_shard_is_dead_serves_the_others(cluster: Cluster) -> None:
    dead, *others = cluster.servers
    dead.kill()
    async with limiter_on(cluster) as harness:
        assert harness.limiter.is_degraded
        for server in others:
            (name,) = subjects_of(harness, server, 1)
            assert (await harness.take(TEN, subject=name)).left == 9
        assert not counts(harness)


async def test_a_change_of_a_record_of_a_living_shard_is_written_at_once(cluster: Cluster) -> None:
    dead, other, _ = cluster.servers
    async with limiter_on(cluster) as harness, limiter_on(cluster) as second:
        (lost, *_), (kept, *_) = subjects_of(harness, dead), subjects_of(harness, other)
        dead.kill()
        await harness.admit(TEN, subject=lost)
        await until(harness, degraded=True)
        await harness.invalidate(2, subject=lost)
        await harness.invalidate(2, subject=kept)
        assert await second.admit(TEN, subject=kept) is STALE
        assert await harness.admit(TEN, subject=lost) is STALE


async def test_a_server_that_joins_gets_a_shard_and_one_that_has_no_slots_loses_it(cluster: Cluster) -> None:
    async with limiter_on(cluster) as harness:
        source, target, _ = cluster.servers
        (name,) = subjects_of(harness, source, 1)
        assert (await harness.take(TEN, subject=name)).left == 9
        # Otherwise it becomes a replica when it has no slot left.
        with running_joined(cluster, "--cluster-allow-replica-migration", "no") as joined:
            limiter = harness.limiter
            assert isinstance(limiter, RedisLimiter)
            slot = limiter._topology.slot_of(limiter._key(name, ""))  # noqa: SLF001 - as the limiter finds it
            number = cluster.slot_of(limiter._key(name, "").decode())  # noqa: SLF001 - as above
            for owner, receiver, left in ((source, joined, 8), (joined, target, 7)):
                cluster.move_slot(number, owner, receiver)
                # The nodes may still tell each other of the move before, and one of them win the slot back.
                await asyncio.to_thread(wait_until_agreed, (*cluster.servers, joined), number, receiver)
                assert (await harness.take(TEN, subject=name)).left == left
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while slot.shard.address != (HOST, receiver.port):  # noqa: ASYNC110 - no event
                        await asyncio.sleep(0.01)
            assert len(limiter._topology.shards) == 3  # noqa: SLF001 - what the joined one had is gone
            assert (await harness.take(TEN, subject=name)).left == 6
            assert not counts(harness)
