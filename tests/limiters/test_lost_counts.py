"""What the counts of quotas are after a server lost them: each unit once, whoever admitted, stored or reported it."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from random import Random
from secrets import token_hex
from typing import Any

import pytest
from redis import Redis
from typing_extensions import override

from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.limits.admission import AdmissionRequest, Admitted
from machpay_gateway.core.limits.calendar import DAY_SECONDS
from machpay_gateway.core.limits.plan import Part, plan_of
from machpay_gateway.core.limits.ports import StoredUnits
from machpay_gateway.core.limits.rate import Limits
from machpay_gateway.limiters.quota_ledger import QuotaBatch, QuotaLedger
from machpay_gateway.limiters.redis import RedisLimiter
from machpay_gateway.limiters.redis.backlog import Backlog, joined
from machpay_gateway.limiters.redis.local_share import LocalShare
from tests.clocks import FixedClock
from tests.limiters.harness import START, Harness, ScriptsAt, StoredQuotas, only_shard, redis_at
from tests.redises.servers import Server, running_server

pytestmark = pytest.mark.usefixtures("no_deadlines")
ASKED = AdmissionRequest("key_1", 1, plan_of((Part("key", Limits.parse("990/minute", 90, "200/day")),)), 1)
BY_MONTH = AdmissionRequest("key_1", 2, plan_of((Part("key", Limits.parse("990/minute", 90, "500/month")),)), 1)
QUOTA_AT = 2  # of their levels
PERSISTENT = ["--appendonly", "yes", "--appendfsync", "always"]


class HeldReads(StoredQuotas):
    """What another *store* has. What was read arrives once it is told to."""

    def __init__(self, store: StoredQuotas) -> None:
        super().__init__()
        self._store = store
        self.reads = 0
        self.arrives = asyncio.Event()
        self.arrives.set()

    @override
    async def add_quota_units(self, units: Sequence[tuple[str, int, int]], now: float) -> int:
        return await self._store.add_quota_units(units, now)

    @override
    async def quota_units(self, subject: str, since: int) -> StoredUnits:
        stored = await self._store.quota_units(subject, since)
        self.reads += 1
        await self.arrives.wait()
        return stored


class Workers:
    """Two workers that share a server and stored quotas."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.stored = StoredQuotas()
        self.stores = [HeldReads(self.stored) for _ in range(2)]
        self.clock = FixedClock(START)
        self.ledgers = [QuotaLedger(store, clock=self.clock) for store in self.stores]
        prefix = f"test{token_hex(4)}"
        self.limiters = [
            RedisLimiter(
                server.url,
                prefix=prefix,
                clock=self.clock,
                wall_clock=self.clock,
                scripts=ScriptsAt(self.clock),
                ledger=ledger,
            )
            for ledger in self.ledgers
        ]
        self.harnesses = [Harness(limiter, self.clock, self.stored) for limiter in self.limiters]

    async def take(self, worker: int, units: int = 1) -> int:
        """Admit *units* requests, and return what is left of the quota."""
        left = 0
        for _ in range(units):
            answer = await self.harnesses[worker].answer(ASKED)
            assert isinstance(answer, Admitted), answer
            answer.lease.release()
            left = int(answer.levels[QUOTA_AT])
        return left

    async def store(self) -> None:
        for ledger in self.ledgers:
            await ledger.taken("key_2", ())

    async def until(self, *, degraded: bool) -> None:
        while any(limiter.is_degraded is not degraded for limiter in self.limiters):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)

    async def until_reported(self, *workers: int) -> None:
        for worker in workers or range(2):
            limiter = self.limiters[worker]
            subject = limiter._subjects["key_1"]  # noqa: SLF001 - nobody else knows what is on its way
            while subject.backlog is not None or subject.steps_in_flight or limiter._seeding:  # noqa: ASYNC110, SLF001 - no event
                await asyncio.sleep(0.001)

    async def until_read(self, worker: int, reads: int) -> None:
        while self.stores[worker].reads < reads:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.001)

    async def until_stored(self, units: int) -> None:
        while self.stored.units.total() < units:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.001)


@pytest.fixture
async def own_server() -> AsyncIterator[tuple[Server, Harness]]:
    with running_server() as server:
        async with redis_at(server.url) as harness:
            yield server, harness


@pytest.fixture(params=["empty", "kept"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with running_server(*(PERSISTENT if request.param == "kept" else [])) as server:
        yield server


@pytest.fixture
async def workers(server: Server) -> AsyncIterator[Workers]:
    workers = Workers(server)
    async with AsyncExitStack() as stack:
        for limiter in workers.limiters:
            await limiter.open()
            stack.push_async_callback(limiter.close)
        yield workers


async def _go_away(workers: Workers) -> None:
    for worker in range(2):
        await workers.take(worker)
    await workers.store()
    await asyncio.to_thread(workers.server.kill)
    await workers.until(degraded=True)


async def _come_back(workers: Workers) -> None:
    await asyncio.to_thread(workers.server.start)
    await workers.until(degraded=False)
    await workers.until_reported()


async def test_what_workers_admitted_alone_counts_once(workers: Workers) -> None:
    await _go_away(workers)
    await workers.take(0, 11)
    await workers.take(1, 12)
    await workers.store()
    await _come_back(workers)
    assert await workers.take(0) == 200 - 2 - 23 - 1


async def test_what_is_charged_while_the_server_is_away_counts_once(workers: Workers) -> None:
    answer = await workers.harnesses[0].answer(ASKED)
    assert isinstance(answer, Admitted)
    await _go_away(workers)
    answer.charge(20)
    await workers.store()
    answer.charge(3)
    await _come_back(workers)
    assert await workers.take(1) == 200 - 3 - 23 - 1
    answer.lease.release()


async def test_what_could_not_be_stored_while_the_server_is_away_counts_once(workers: Workers) -> None:
    await _go_away(workers)
    await workers.take(0, 4)
    await workers.store()
    workers.stored.is_away = True
    await workers.take(1, 5)
    with pytest.raises(StoreUnavailable):
        await workers.store()
    await workers.take(1, 6)
    await asyncio.to_thread(workers.server.start)
    await workers.until(degraded=False)
    workers.stored.is_away = False
    await workers.store()
    await workers.until_reported()
    assert await workers.take(0) == 200 - 2 - 15 - 1


async def test_a_second_outage_reports_nothing_again(workers: Workers) -> None:
    await _go_away(workers)
    await workers.take(0, 7)
    await _come_back(workers)
    await _go_away(workers)
    await workers.take(1, 8)
    await _come_back(workers)
    assert await workers.take(0) == 200 - 2 - 7 - 2 - 8 - 1


@pytest.mark.parametrize("server", ["empty"], indirect=True)
@pytest.mark.parametrize("first", [0, 1])
async def test_what_is_stored_after_the_count_was_read_counts_once(workers: Workers, first: int) -> None:
    for store in workers.stores:
        store.arrives.clear()
    asked = asyncio.create_task(workers.take(0))
    await workers.until_read(0, 1)  # it has read nothing
    workers.limiters[1]._add_subject(ASKED).charge(3)  # noqa: SLF001 - as after an outage
    await workers.until_read(1, 1)  # it has read 3
    workers.stores[first].arrives.set()
    if first == 0:
        assert await asked == 200 - 1
    else:
        await workers.until_reported(1)
    workers.stores[1 - first].arrives.set()
    await asked
    await workers.until_reported()
    assert await workers.take(0) == 200 - 1 - 3 - 1


@pytest.mark.parametrize("server", ["empty"], indirect=True)
async def test_only_what_the_count_started_from_is_dropped(workers: Workers) -> None:
    workers.stores[0].arrives.clear()
    workers.stores[1].arrives.clear()
    subject = workers.limiters[1]._add_subject(ASKED)  # noqa: SLF001 - as after an outage
    subject.charge(3)
    await workers.until_read(1, 1)
    asked = asyncio.create_task(workers.take(0))
    await workers.until_read(0, 1)  # it has read 3
    subject.charge(4)
    await workers.until_stored(7)
    workers.stores[0].arrives.set()
    assert await asked == 200 - 3 - 1
    workers.stores[1].arrives.set()
    await workers.until_reported()
    assert await workers.take(0) == 200 - 7 - 1 - 1


async def test_a_server_that_was_restored_from_a_snapshot_goes_on_from_what_is_stored(workers: Workers) -> None:
    await workers.take(0, 10)
    with Redis.from_url(workers.server.url) as redis:
        snapshot: dict[bytes, Any] = {key: redis.dump(key) for key in redis.keys("*:{*")}
        assert len(snapshot) == 1
        await workers.take(0, 40)
        await workers.take(1, 20)
        await workers.store()
        workers.clock.advance(5)
        redis.client_kill_filter(_type="normal")
        for key, state in snapshot.items():
            redis.restore(key, 600_000, state, replace=True)
    while any(only_shard(it).batcher.connected != int(workers.clock()) for it in workers.limiters):  # noqa: ASYNC110 - no event
        await asyncio.sleep(0.01)
    assert await workers.take(1) == 200 - 70 - 1
    assert await workers.take(0) == 200 - 70 - 2
    reads = [store.reads for store in workers.stores]
    assert await workers.take(0, 10) == 200 - 70 - 12
    assert [store.reads for store in workers.stores] == reads, "a count is compared once for each connection"


async def test_what_was_admitted_without_redis_in_the_meantime_counts(own_server: tuple[Server, Harness]) -> None:
    _, harness = own_server
    answer = await harness.answer(ASKED)
    assert isinstance(answer, Admitted)
    await harness.limiter.close()
    harness.stored.units["key_1", 0] += 50  # by the embedded limiter
    harness.clock.advance(5)
    answer = await harness.answer(ASKED)
    assert isinstance(answer, Admitted)
    assert answer.levels[QUOTA_AT] == 200 - 51 - 1


async def test_a_charge_that_was_not_reported_yet_counts_once(own_server: tuple[Server, Harness]) -> None:
    server, harness = own_server
    answer = await harness.answer(ASKED)
    assert isinstance(answer, Admitted)
    answer.charge(7)
    server.command("FLUSHALL")  # in the same turn of the loop: the charge waits to be reported
    answer = await harness.answer(ASKED)
    assert isinstance(answer, Admitted)
    assert answer.levels[QUOTA_AT] == 200 - 1 - 7 - 1


async def test_another_quota_starts_from_its_own_stored_count(own_server: tuple[Server, Harness]) -> None:
    _, harness = own_server
    harness.stored.units["key_1", 0] = 15
    answer = await harness.answer(ASKED)
    assert isinstance(answer, Admitted)
    assert answer.levels[QUOTA_AT] == 200 - 15 - 1
    harness.stored.units["key_1", 1] = 100
    answer = await harness.answer(BY_MONTH)
    assert isinstance(answer, Admitted)
    assert answer.levels[QUOTA_AT] == 500 - 15 - 100 - 1 - 1


def test_a_new_day_alone_is_reported_in_full() -> None:
    limits = ASKED.plan.parts[0].limits
    evening, morning = DAY_SECONDS - 10.0, DAY_SECONDS + 10.0
    share = LocalShare(limits, 1, [990, 90], updated_at=evening, now=evening, today=evening)
    batch = QuotaBatch()
    share.take(evening, evening, 5)
    share.store_with(batch, 5, evening)
    assert share.take_backlog(evening, evening).units["day"] == 5
    share.take(morning, morning, 6)
    share.store_with(batch, 6, morning)
    backlog = share.take_backlog(morning, morning)
    assert (backlog.units["day"], backlog.batches["day"]) == (6, {batch: 6})


def test_of_many_batches_no_unit_counts_as_stored_before_it_was() -> None:
    random, backlog, stored_with = Random(5), Backlog({}, {}), dict[int, int]()  # noqa: S311 - no secret
    numbers = random.sample(range(1000), 200)
    for number in numbers:
        batch, units = QuotaBatch(), random.randrange(1, 9)
        batch.number, stored_with[number] = number, units
        backlog = backlog.plus(Backlog({"day": units}, {"day": {batch: units}}))
    assert backlog.units["day"] == sum(stored_with.values()) == sum(backlog.batches["day"].values())
    assert len(backlog.batches["day"]) <= 32
    for until in range(1000):
        dropped = sum(units for batch, units in backlog.batches["day"].items() if (batch.number or 0) <= until)
        assert dropped <= sum(units for number, units in stored_with.items() if number <= until)
    unstored = {QuotaBatch(): 1 for _ in range(100)}
    assert joined({}, unstored) == unstored


def numbers_of(*batches: QuotaBatch) -> list[int | None]:
    return [batch.number for batch in batches]


async def test_units_have_the_number_of_the_batch_that_stored_them_at_last() -> None:
    stored, clock = StoredQuotas(), FixedClock(START)
    ledger = QuotaLedger(stored, clock=clock)
    first = ledger.count("key_1", 1)
    assert ledger.count("key_1", 1) is first
    stored.is_away = True
    with pytest.raises(StoreUnavailable):
        await ledger.taken("key_1", ())
    second = ledger.count("key_1", 1)
    assert numbers_of(first, second) == [None, None]
    stored.is_away = False
    await ledger.taken("key_1", ())
    earlier = stored.batch
    third = ledger.count("key_1", 1)
    assert numbers_of(first, second, third) == [earlier, earlier, None]
    await ledger.close()
    assert numbers_of(first, second, third) == [earlier, earlier, stored.batch]
    assert stored.batch > earlier
