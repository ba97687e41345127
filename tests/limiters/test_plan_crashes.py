"""Plans over several workers that die, on a server that forgets: what is admitted, by the reference counters.

What each promise becomes then: a dead worker's slots are free once their lease has expired, and not before. After
FLUSHALL, windows start anew; slots count again once their workers have stated them, as each heartbeat does; a quota
goes on from what is stored, so it has lost the last second at most.
"""

import asyncio
import itertools
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from secrets import token_hex

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from redis import Redis

from machpay_gateway.core.limits.admission import AdmissionRequest, Admitted, Exceeded, Lease
from machpay_gateway.core.limits.calendar import DAY_SECONDS, period_at
from machpay_gateway.core.limits.counters import Counters
from machpay_gateway.core.limits.plan import Part, Plan, plan_of
from machpay_gateway.core.limits.rate import Limits, Quota
from machpay_gateway.limiters.quota_ledger import QuotaLedger
from machpay_gateway.limiters.redis import RedisLimiter
from tests.clocks import FixedClock
from tests.limiters.harness import START, Harness, ScriptsAt, StoredQuotas, only_shard

LEASE_SECONDS = 10
WORKERS = 2
PLANS = (
    plan_of(
        (
            Part("key", Limits.parse(["6/minute", "4/second"], 3, "12/day")),
            Part("account", Limits.parse("8/minute", 4, "20/month")),
        )
    ),
    plan_of(
        (
            Part("key", Limits.parse("5/minute", 3)),
            Part("account", Limits.parse(quota="9/day")),
            Part("owner", Limits.parse("7/minute", 2)),
        )
    ),
    plan_of((Part("key", Limits.parse("6/minute", 3)),)),
)
Held = tuple[int, int]  # the slots that the server counts for a worker, and when its lease expires


@dataclass
class Worker:
    """A worker of the server, what it holds, and the units that it has not stored yet."""

    harness: Harness
    limiter: RedisLimiter
    ledger: QuotaLedger
    tasks: frozenset[asyncio.Task[object]]
    name: int
    connected: int  # in which second
    leases: list[tuple[Lease, Sequence[str]]] = field(default_factory=list)
    unstored: Counter[tuple[str, int]] = field(default_factory=Counter)

    async def die(self) -> None:
        """End as by SIGKILL: the connection closes without a goodbye."""
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)

    async def settle(self) -> None:
        """Wait until the server has all that this worker has to state, with the stored counts that it lacks."""
        await only_shard(self.limiter).batcher.drain()
        while self.limiter._seeding:  # noqa: SLF001 - no event
            await asyncio.sleep(0.001)
            await only_shard(self.limiter).batcher.drain()
        await self.harness.until_reported()

    def held(self, subject: str) -> int:
        return sum(subject in subjects for _, subjects in self.leases)


class History:
    """What happens to the subjects of one account, and the result by the reference counters."""

    def __init__(self, url: str, redis: Redis, plan: Plan, stack: AsyncExitStack) -> None:
        self.url, self.redis, self.plan, self.stack = url, redis, plan, stack
        self.prefix, self.clock, self.stored = f"test{token_hex(4)}", FixedClock(START), StoredQuotas()
        self.names = itertools.count()
        self.workers: list[Worker] = []
        self.counters: dict[str, Counters] = {}
        self.compared: dict[str, int] = {}  # in which second the worker connected that read what is stored of it last
        self.counted: defaultdict[str, dict[int, Held]] = defaultdict(dict)  # slots, by subject and worker
        self.expected_stored: Counter[tuple[str, int]] = Counter()
        self.admitted: Counter[tuple[str, str, int]] = Counter()  # units, by subject, quota and period
        self.last_seconds: Counter[str] = Counter()  # units that were not stored when something crashed

    async def join(self) -> Worker:
        others, ledger = asyncio.all_tasks(), QuotaLedger(self.stored, clock=self.clock)
        limiter = RedisLimiter(
            self.url,
            prefix=self.prefix,
            clock=self.clock,
            wall_clock=self.clock,
            scripts=ScriptsAt(self.clock),
            ledger=ledger,
        )
        await limiter.open()
        self.stack.push_async_callback(limiter.close)
        tasks = frozenset(asyncio.all_tasks() - others)
        harness = Harness(limiter, self.clock, self.stored)
        return Worker(harness, limiter, ledger, tasks, next(self.names), int(self.clock.now))

    async def ask(self, number: int, key: int, units: int, _: float) -> None:
        worker, now = self.workers[number], self.clock.now
        own, *others = subjects = [f"{part.kind}_{key if part.kind == 'key' else 0}" for part in self.plan.parts]
        for subject in subjects:
            self.prepare(worker, subject)
        pairs = [(self.counters[subject], subject) for subject in subjects]
        is_admitted = all(counters.has_room(now, units) for counters, _ in pairs)
        violated = self.plan.violated(self.levels(pairs), units)
        if is_admitted:
            for counters, subject in pairs:
                counters.take(now, now, units)
                counters.in_flight += counters.limits.concurrency is not None
                self.count_quotas(worker, subject, counters, units)
        answer = await worker.harness.answer(AdmissionRequest(own, 1, self.plan, units, tuple(others), "acct"))
        assert isinstance(answer, Admitted | Exceeded), answer
        assert (answer.policies if isinstance(answer, Exceeded) else ()) == violated
        assert answer.levels == pytest.approx(self.levels(pairs), abs=2e-3)
        if isinstance(answer, Admitted):
            holding = [subject for counters, subject in pairs if counters.limits.concurrency is not None]
            worker.leases.append((answer.lease, holding))
        await self.stated(worker, subjects)

    def prepare(self, worker: Worker, subject: str) -> None:
        """Let the counters of *subject* be what the server has when *worker* asks."""
        now = self.clock.now
        counters = self.counters_for(worker, subject)
        counters.advance(now, now)
        alive = {name: held for name, held in self.counted[subject].items() if held[1] > int(now)}
        self.counted[subject] = alive
        counters.in_flight = sum(slots for name, (slots, _) in alive.items() if name != worker.name)
        counters.in_flight += worker.held(subject)

    def counters_for(self, worker: Worker, subject: str) -> Counters:
        """Return the counters of *subject*: where the server has none, *worker* lets it count from what is stored.

        A worker with a new connection also corrects a count that is less than what is stored by now.
        """
        counters = self.counters.get(subject)
        if counters is None:
            (limits,) = (part.limits for part in self.plan.parts if subject.startswith(part.kind))
            counters = self.counters[subject] = Counters(limits, self.clock.now, self.clock.now)
        if counters.quotas and self.compared.get(subject, -1) < worker.connected:
            self.compared[subject] = worker.connected
            self.store(worker)  # before it reads what is stored
            for count in counters.quotas:
                if count.is_seeded:
                    count.taken = max(count.taken, self.stored_units(subject, count.quota))
        counters.seed([self.stored_units(subject, count.quota) for count in counters.quotas])
        return counters

    def levels(self, pairs: Sequence[tuple[Counters, str]]) -> tuple[float, ...]:
        return tuple(level for counters, _ in pairs for level in counters.levels(self.clock.now, self.clock.now))

    def count_quotas(self, worker: Worker, subject: str, counters: Counters, units: int) -> None:
        """Count *units* that are admitted, which stay within each quota but for what crashes have lost."""
        if counters.quotas:
            worker.unstored[subject, int(self.clock.now // DAY_SECONDS)] += units
        for count in counters.quotas:
            period = subject, count.quota.name, count.period.number
            self.admitted[period] += units
            assert self.admitted[period] <= count.quota.limit + self.last_seconds[subject]

    def stored_units(self, subject: str, quota: Quota) -> int:
        since = period_at(quota.name, self.clock.now).begins // DAY_SECONDS
        return sum(units for (name, day), units in self.expected_stored.items() if name == subject and day >= since)

    def store(self, worker: Worker) -> None:
        self.expected_stored.update(worker.unstored)
        worker.unstored.clear()

    async def release(self, number: int, *_: float) -> None:
        worker = self.workers[number]
        if worker.leases:
            lease, subjects = worker.leases.pop(0)
            lease.release()
            await self.stated(worker, subjects)

    async def stated(self, worker: Worker, subjects: Iterable[str]) -> None:
        """Wait until the server counts what *worker* holds of *subjects*."""
        await worker.settle()
        for subject in subjects:
            self.counters_for(worker, subject)
            self.counted[subject].pop(worker.name, None)
            if slots := worker.held(subject):
                self.counted[subject][worker.name] = slots, int(self.clock.now) + LEASE_SECONDS

    async def wait(self, _number: int, _key: int, _units: int, seconds: float) -> None:
        """Let time pass, in which living workers store and state what they have."""
        self.clock.advance(seconds)
        for worker in self.workers:
            await worker.ledger._flush(None)  # noqa: SLF001 - as it does each second
            self.store(worker)
        for worker in self.workers:
            worker.limiter._report_subjects(worker.limiter._subjects.values())  # noqa: SLF001 - as each heartbeat does
            await self.stated(worker, [subject for _, subjects in worker.leases for subject in subjects])
        assert self.stored.units == self.expected_stored

    async def die(self, number: int, *_: float) -> None:
        worker = self.workers[number]
        await worker.die()
        self.lose(worker)
        self.workers[number] = await self.join()

    async def flush(self, *_: float) -> None:
        """Let the server forget all subjects, of this history alone: other tests share the server."""
        for key in self.redis.keys(f"{self.prefix}:{{*"):
            self.redis.delete(key)
        self.counters.clear()
        self.compared.clear()
        self.counted.clear()
        for worker in self.workers:
            self.lose(worker)

    def lose(self, worker: Worker) -> None:
        """Note what *worker* has not stored: who counts by what is stored does not know of it."""
        for (subject, _), units in worker.unstored.items():
            self.last_seconds[subject] += units


@asynccontextmanager
async def history_on(url: str, plan: Plan) -> AsyncIterator[History]:
    with Redis.from_url(url) as redis:
        async with AsyncExitStack() as stack:
            history = History(url, redis, plan, stack)
            history.workers += [await history.join() for _ in range(WORKERS)]
            yield history


@pytest.fixture
def nothing_by_itself(monkeypatch: pytest.MonkeyPatch, no_deadlines: None) -> None:  # noqa: ARG001 - a fixture
    """Let no worker store, state or refuse anything by a clock of its own."""
    monkeypatch.setattr("machpay_gateway.limiters.redis.subject._RECHECK_SECONDS", -1.0)
    monkeypatch.setattr("machpay_gateway.limiters.redis.limiter.HEARTBEAT_SECONDS", 3600.0)
    monkeypatch.setattr("machpay_gateway.limiters.quota_ledger._FLUSH_SECONDS", 3600.0)


ACTIONS = ["ask"] * 10 + ["wait"] * 4 + ["die", "flush"] * 2 + ["release"]
MOVES = st.tuples(
    st.sampled_from(ACTIONS),
    st.integers(0, WORKERS - 1),
    st.integers(0, 1),
    st.sampled_from([0, 0, 1, 1, 2]),
    st.sampled_from([1, 9, 9, 10, 61, 86_400]),
)


@pytest.mark.usefixtures("nothing_by_itself")
@given(plan=st.sampled_from(PLANS), moves=st.lists(MOVES, min_size=20, max_size=40))
@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_history_of_crashes_keeps_quotas_and_slots(
    server_url: str, plan: Plan, moves: list[tuple[str, int, int, int, float]]
) -> None:
    async def live() -> None:
        async with history_on(server_url, plan) as history:
            for action, *details in moves:
                await getattr(history, action)(*details)

    asyncio.run(live())
