"""What holds over all workers of one server: each `RedisLimiter` here is one, with a connection and a name of its own.

They and the server use one fixed clock. Heartbeats are either off or so quick that a test may wait for them.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from machpay_gateway.core.limits.admission import STALE, Admitted, Exceeded, Lease
from machpay_gateway.core.limits.counters import Counters
from machpay_gateway.core.limits.rate import CONCURRENCY, Tier
from machpay_gateway.limiters.redis import RedisLimiter
from machpay_gateway.limiters.redis.share_registry import ShareRegistry
from tests.clocks import FixedClock
from tests.limiters.harness import START, Harness, ScriptsAt, only_shard
from tests.limiters.state import State, read_state
from tests.redises.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_deadlines")
FIVE_SLOTS = Tier("1000/minute", 5)
TIERS = (Tier("9/minute", 4), Tier("5/minute", 2), Tier("7/hour", 4), Tier("12/30 seconds", 9))
LEASE_SECONDS = 10
HEARTBEAT = "machpay_gateway.limiters.redis.limiter.HEARTBEAT_SECONDS"
Counted = tuple[int, int]  # the slots that the server counts for a worker, and when its lease expires


@dataclass(frozen=True)
class Worker(Harness):
    """A limiter, and the tasks that keep it alive."""

    tasks: frozenset[asyncio.Task[object]] = frozenset()

    async def die(self) -> None:
        """End as by SIGKILL: the connection closes without a goodbye."""
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)


@dataclass(frozen=True)
class Workers:
    """Workers of one server that share the keys of *prefix*, and the server's state of the only subject."""

    url: str
    redis: Redis
    clock: FixedClock
    prefix: str
    stack: AsyncExitStack

    async def join(self, registry: ShareRegistry | None = None) -> Worker:
        others = asyncio.all_tasks()
        limiter = RedisLimiter(
            self.url, prefix=self.prefix, clock=self.clock, scripts=ScriptsAt(self.clock), registry=registry
        )
        await limiter.open()
        self.stack.push_async_callback(limiter.close)
        return Worker(limiter, self.clock, tasks=frozenset(asyncio.all_tasks() - others))

    def names(self) -> set[bytes]:
        return set(self._run("ZRANGE", f"{self.prefix}:workers", 0, -1))

    def slots(self) -> Mapping[bytes, Counted]:
        return {name: (slots, ends) for name, slots, ends in self._state().workers}

    def version(self) -> int:
        return self._state().version

    async def until_held(self, slots: int) -> None:
        await until(lambda: sum(held for held, _ in self.slots().values()) == slots, f"{slots} slots are held")

    def _state(self) -> State:
        (key,) = [key for key in self._run("KEYS", f"{self.prefix}:*") if not key.endswith(b":workers")] or [b"none"]
        packed = self._run("GET", key)
        return State() if packed is None else read_state(packed)

    def _run(self, *command: str | bytes | int) -> Any:  # noqa: ANN401 - every command has a reply of its own
        return self.redis.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py's own


async def until(condition: Callable[[], bool], claim: str) -> None:
    await asyncio.to_thread(wait_until, condition, seconds=5.0, claim=claim)


@asynccontextmanager
async def workers_on(url: str) -> AsyncIterator[Workers]:
    with Redis.from_url(url) as redis:
        async with AsyncExitStack() as stack:
            yield Workers(url, redis, FixedClock(START), f"test{token_hex(4)}", stack)


@pytest.fixture(autouse=True)
def no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HEARTBEAT, 3600.0)


@pytest.fixture
async def workers(server_url: str) -> AsyncIterator[Workers]:
    async with workers_on(server_url) as workers:
        yield workers


async def take(worker: Worker, slots: int, tier: Tier = FIVE_SLOTS) -> list[Lease]:
    return [(await worker.take(tier)).lease for _ in range(slots)]


async def test_together_they_admit_no_more_than_the_limit_and_hold_no_more_than_the_slots(workers: Workers) -> None:
    tier = Tier("20/minute", 7)
    several = [await workers.join() for _ in range(3)]
    admitted = []
    for _ in range(4):
        answers = await asyncio.gather(*(worker.admit(tier) for _ in range(15) for worker in several))
        leases = [answer.lease for answer in answers if isinstance(answer, Admitted)]
        admitted.append(len(leases))
        for lease in leases:
            lease.release()
        await workers.until_held(0)
    assert admitted == [7, 7, 6, 0]


async def test_a_process_that_only_reads_what_is_left_is_no_worker(workers: Workers, tmp_path: Path) -> None:
    worker = await workers.join()
    await take(worker, 2)
    names = workers.names()
    reader = await workers.join(ShareRegistry(tmp_path, workers=0))
    assert await reader.left(FIVE_SLOTS) == (998, 3)
    assert workers.names() == names
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - nor has it a part of the local share


async def test_an_invalidation_by_one_worker_holds_in_the_others(workers: Workers) -> None:
    several = [await workers.join() for _ in range(3)]
    for worker in several:
        await worker.take(FIVE_SLOTS, version=1)
    await several[0].limiter.invalidate([("key_1", 2, "")])
    await until(lambda: workers.version() == 2, "the server holds version 2")
    assert [await worker.admit(FIVE_SLOTS, version=1) for worker in several] == [STALE] * 3


async def test_a_dead_workers_slots_are_free_once_its_lease_has_expired_and_not_before(workers: Workers) -> None:
    first, second = await workers.join(), await workers.join()
    await take(first, 5)
    await first.die()
    workers.clock.advance(LEASE_SECONDS - 0.1)
    assert (await second.refusal(FIVE_SLOTS)).policies == (CONCURRENCY,)
    workers.clock.advance(0.1)
    assert (await second.take(FIVE_SLOTS)).left == 1000 - 6  # the dead worker's units stay taken
    await take(second, 4)


async def test_a_dead_workers_slots_are_freed_on_time_however_busy_another_worker_is(workers: Workers) -> None:
    first, second = await workers.join(), await workers.join()
    await take(first, 4)
    await first.die()
    held = await second.take(FIVE_SLOTS)
    for _ in range(LEASE_SECONDS - 1):
        workers.clock.advance(1)
        assert (await second.refusal(FIVE_SLOTS)).policies == (CONCURRENCY,)
        held.lease.release()
        await workers.until_held(4)
        held = await second.take(FIVE_SLOTS)
    workers.clock.advance(1)
    await take(second, 4)
    assert (await second.refusal(FIVE_SLOTS)).policies == (CONCURRENCY,)


async def test_a_living_workers_slots_are_renewed_for_as_long_as_it_holds_them(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HEARTBEAT, 0.01)
    first, second = await workers.join(), await workers.join()
    await take(first, 5)
    (name,) = workers.slots()
    for _ in range(8):
        workers.clock.advance(3)
        await until(lambda: workers.slots()[name] == (5, int(workers.clock.now) + LEASE_SECONDS), "it is renewed")
        assert (await second.refusal(FIVE_SLOTS)).policies == (CONCURRENCY,)
    await first.die()
    workers.clock.advance(LEASE_SECONDS)
    await take(second, 5)


async def test_a_worker_whose_lease_expired_reports_its_slots_again_and_releases_no_others(
    workers: Workers,
) -> None:
    frozen, second = await workers.join(), await workers.join()
    late, *_held = await take(frozen, 4)
    workers.clock.advance(30)
    theirs = await take(second, 5)
    late.release()
    assert (await frozen.refusal(FIVE_SLOTS)).policies == (CONCURRENCY,)
    await workers.until_held(3 + 5)
    for lease in theirs:
        lease.release()
    await workers.until_held(3)
    await take(second, 2)
    assert (await second.refusal(FIVE_SLOTS)).policies == (CONCURRENCY,)


async def test_a_release_is_reported_at_once_where_another_worker_may_wait_for_the_slot(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machpay_gateway.limiters.redis.batcher._LINGER_SECONDS", 3600.0)
    first, second = await workers.join(), await workers.join()
    lease, *_held = await take(first, 5)
    assert (await second.refusal(FIVE_SLOTS)).policies == (CONCURRENCY,)
    lease.release()
    await workers.until_held(4)
    await second.take(FIVE_SLOTS)


async def test_a_release_rides_with_the_next_step_while_slots_are_free(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machpay_gateway.limiters.redis.batcher._LINGER_SECONDS", 3600.0)
    worker = await workers.join()
    lease, _held = await take(worker, 2)
    batches = sum(worker.limiter.batches.values())
    lease.release()
    await worker.take(FIVE_SLOTS)
    await workers.until_held(2)
    assert sum(worker.limiter.batches.values()) == batches + 1


async def test_idle_subjects_are_dropped_and_those_with_slots_are_not(workers: Workers) -> None:
    worker = await workers.join()
    limiter = worker.limiter
    assert isinstance(limiter, RedisLimiter)
    limiter._sweep_at = 8  # noqa: SLF001 - as with a thousand subjects
    held = await worker.take(FIVE_SLOTS, subject="streaming")
    for number in range(10):
        workers.clock.advance(61)
        (await worker.take(FIVE_SLOTS, subject=f"passing_{number}")).lease.release()
        await only_shard(limiter).batcher.drain()  # reports the release, which lingers otherwise
    assert len(limiter._subjects) <= 5  # noqa: SLF001 - the sweep's result shows nowhere else
    assert await worker.left(FIVE_SLOTS, subject="streaming") == (1000, 4)
    held.lease.release()
    assert await worker.left(FIVE_SLOTS, subject="streaming") == (1000, 5)


async def test_a_worker_whose_heartbeat_expired_counts_in_no_local_share(workers: Workers) -> None:
    now = time.time()  # heartbeats go by the server's clock
    workers.redis.zadd(f"{workers.prefix}:workers", {"dead": now - 1, "alive": now + 60})
    await workers.join()
    assert len(workers.names()) == 2
    assert b"dead" not in workers.names()


async def test_a_workers_name_is_never_reused(workers: Workers) -> None:
    first, _second = await workers.join(), await workers.join()
    before = workers.names()
    await first.limiter.close()
    left = workers.names()
    await first.limiter.open()
    assert (len(before), len(left), len(workers.names())) == (2, 1, 2)
    assert workers.names() & before == left


async def test_closing_releases_all_slots_also_those_admitted_in_the_meantime(workers: Workers) -> None:
    worker, tier = await workers.join(), Tier("1000/minute", 50)
    await take(worker, 3, tier)
    request = asyncio.create_task(worker.take(tier))
    for _ in range(2):
        await asyncio.sleep(0)  # it is sent, and the next turn is the first that can bring a reply
    await worker.limiter.close()
    await request
    assert not workers.slots()


class History:
    """What three workers do to one subject, and the result by the reference window and a plain count."""

    def __init__(self, workers: Workers, several: list[Worker]) -> None:
        self.workers, self.several, self.clock = workers, several, workers.clock
        self.leases: list[list[Lease]] = [[] for _ in several]
        self.tier, self.version, self.stored_version = TIERS[0], 1, 0
        self.counters = Counters(self.tier.limits, self.clock.now, 0.0)
        self.counted: dict[int, Counted] = {}
        self.dead = itertools.count(len(several))  # the names of the dead

    async def request(self, number: int, cost: int, _: float) -> None:
        tier, now = self.tier, self.clock.now
        if self.counters.limits is not tier.limits:
            self.counters.change(tier.limits, now, 0.0)
        (window,), (rate,) = self.counters.windows, tier.limits.rates
        others = sum(slots for whose, (slots, _) in self.counted.items() if whose != number)
        slots_left = tier.concurrency - others - len(self.leases[number])
        window.advance(now)
        has_units = window.taken + cost <= rate.limit
        admitted = slots_left > 0 and window.try_take(now, cost, rate.limit)
        batches = self.several[number].limiter.batches
        sent = sum(batches.values())
        answer = await self.several[number].admit(tier, cost=cost, version=self.version)
        assert isinstance(answer, Admitted | Exceeded)
        assert isinstance(answer, Admitted) is admitted
        self.stored_version = self.version
        if isinstance(answer, Admitted):
            self.leases[number].append(answer.lease)
            assert (answer.levels[0], answer.levels[-1]) == (rate.limit - window.taken, slots_left - 1)
            return await self.expect_report(number)
        full = ((rate.name, not has_units), (CONCURRENCY, slots_left <= 0))
        if sum(batches.values()) == sent:  # it refuses by itself for the window, and knows of slots by its last reply
            assert (answer.policies[0], has_units) == (rate.name, False)
        else:
            assert answer.policies == tuple(name for name, is_full in full if is_full)
        return await self.perhaps_expect_report(number)

    async def request_of_an_older_version(self, number: int, cost: int, _: float) -> None:
        if self.stored_version == self.version:
            answer = await self.several[number].admit(self.tier, cost=cost, version=self.version - 1)
            assert not isinstance(answer, Admitted)
            await self.perhaps_expect_report(number)

    async def release(self, number: int, *_: float) -> None:
        if self.leases[number]:
            self.leases[number].pop().release()
            await self.expect_report(number)

    async def wait(self, _number: int, _cost: int, seconds: float) -> None:
        self.clock.advance(seconds)
        self.counted = {whose: counted for whose, counted in self.counted.items() if counted[1] > int(self.clock.now)}

    async def crash(self, number: int, *_: float) -> None:
        await self.several[number].die()
        self.several[number], self.leases[number] = await self.workers.join(), []
        if counted := self.counted.pop(number, None):
            self.counted[next(self.dead)] = counted

    async def change_tier(self, _number: int, which: int, _: float) -> None:
        self.version, self.tier = self.version + 1, TIERS[which]

    async def invalidate(self, number: int, *_: float) -> None:
        self.version = self.stored_version = self.version + 1
        await self.several[number].limiter.invalidate([("key_1", self.version, "")])
        await until(lambda: self.workers.version() == self.version, "the server holds the marker")

    async def forget_scripts(self, *_: float) -> None:
        self.workers.redis.script_flush()

    async def expect_report(self, number: int) -> None:
        """Wait until the server counts what this worker holds."""
        report = {number: (len(self.leases[number]), int(self.clock.now) + LEASE_SECONDS)}
        self.counted = {whose: counted for whose, counted in (self.counted | report).items() if counted[0]}
        await until(self.is_counted, f"the server counts {self.counted}")

    async def perhaps_expect_report(self, number: int) -> None:
        """As `expect_report`, if the server was asked: a worker may know by itself that a window is exhausted."""
        if not self.is_counted():
            await self.expect_report(number)

    def is_counted(self) -> bool:
        counted = sorted(slots for slots in self.workers.slots().values() if slots[1] > int(self.clock.now))
        return counted == sorted(self.counted.values())


ACTIONS = (
    ["request"] * 8
    + ["release", "wait"] * 3
    + ["crash", "change_tier", "invalidate", "request_of_an_older_version", "forget_scripts"]
)
MOVES = st.tuples(
    st.sampled_from(ACTIONS), st.integers(0, 2), st.integers(0, 3), st.sampled_from([0.5, 1, 5, 10, 30, 60])
)


@given(moves=st.lists(MOVES, max_size=40))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_history_of_three_workers_is_one_window_and_one_count_of_slots(
    server_url: str, moves: list[tuple[str, int, int, float]]
) -> None:
    async def live() -> None:
        async with workers_on(server_url) as workers:
            history = History(workers, [await workers.join() for _ in range(3)])
            for action, *details in moves:
                await getattr(history, action)(*details)

    asyncio.run(live())
