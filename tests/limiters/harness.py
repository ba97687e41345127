"""The limiters that the contract holds for, each opened with a fixed clock, and what each must show afterwards.

A server's clock is set by writing it into the script: the one line that reads the time is replaced.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from secrets import token_hex
from threading import Thread

from fakeredis import TcpFakeServer
from fakeredis._clients._tcp_server import TCPFakeRequestHandler
from redis import Redis
from redis.exceptions import ResponseError

from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.limits.admission import (
    AdmissionRequest,
    Admitted,
    Answer,
    Exceeded,
    Lease,
    LimiterUnavailable,
    Remaining,
    Stale,
)
from machpay_gateway.core.limits.plan import Plan, tier_plan
from machpay_gateway.core.limits.ports import Limiter, StoredUnits
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.limiters.memory import MemoryLimiter
from machpay_gateway.limiters.quota_ledger import QuotaLedger
from machpay_gateway.limiters.redis import RedisLimiter
from machpay_gateway.limiters.redis.scripts import Script, Scripts
from machpay_gateway.limiters.redis.shards import Shard
from tests.clocks import FixedClock

START = 6000.0
_TIME = "redis.call('TIME')"


class StoredQuotas:
    """The stored units of quotas, in a dict. While it *is_away*, it raises."""

    def __init__(self) -> None:
        self.batch = 0
        self.units: Counter[tuple[str, int]] = Counter()
        self.is_away = False

    async def add_quota_units(self, units: Sequence[tuple[str, int, int]], now: float) -> int:
        self._check()
        for subject, day, count in units:
            self.units[subject, day] += count
        self.batch = max(self.batch + 1, int(now * 1000))
        return self.batch

    async def quota_units(self, subject: str, since: int) -> StoredUnits:
        self._check()
        units = sum(count for (name, day), count in self.units.items() if name == subject and day >= since)
        return StoredUnits(units, self.batch)

    async def drop_quota_units(self, now: float) -> None:
        raise NotImplementedError

    def _check(self) -> None:
        if self.is_away:
            raise StoreUnavailable("quota units")


@dataclass(frozen=True)
class Left:
    """What an answer says is left of a tier with one window, and its parts."""

    answer: Admitted | Exceeded | Remaining

    @property
    def left(self) -> int:
        return max(0, int(self.answer.levels[0]))

    @property
    def resets_in(self) -> float:
        return self.answer.levels[1]

    @property
    def slots_left(self) -> int:
        return max(0, int(self.answer.levels[-1]))

    @property
    def lease(self) -> Lease:
        assert isinstance(self.answer, Admitted)
        return self.answer.lease

    @property
    def plan(self) -> Plan:
        return self.answer.plan

    @property
    def policies(self) -> tuple[str, ...]:
        assert isinstance(self.answer, Exceeded)
        return self.answer.policies

    @property
    def wait_seconds(self) -> float:
        assert isinstance(self.answer, Exceeded)
        return self.answer.wait_seconds


@dataclass(frozen=True)
class Harness:
    """An open limiter, its clock, and the subjects that it was called for."""

    limiter: Limiter
    clock: FixedClock
    stored: StoredQuotas = field(default_factory=StoredQuotas)
    subjects: set[str] = field(default_factory=set)

    async def answer(self, request: AdmissionRequest) -> Answer:
        """Return the answer to any request."""
        self.subjects.update((request.subject, *request.others))
        answer = self.limiter.admit(request)
        return await answer if isinstance(answer, Awaitable) else answer

    async def until_reported(self) -> None:
        """Wait until the server, if there is one, counts every slot that was released."""
        if isinstance(self.limiter, RedisLimiter):
            subjects = self.limiter._subjects  # noqa: SLF001 - nobody else knows what is on its way
            while any(one.steps_in_flight or one.reported != one.held for one in subjects.values()):  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.001)

    async def admit(self, tier: Tier, *, cost: int = 1, version: int = 1, subject: str = "key_1") -> Answer:
        self.subjects.add(subject)
        answer = self.limiter.admit(AdmissionRequest(subject, version, tier_plan(tier), cost))
        return await answer if isinstance(answer, Awaitable) else answer

    async def take(self, tier: Tier, *, cost: int = 1, version: int = 1, subject: str = "key_1") -> Left:
        answer = await self.admit(tier, cost=cost, version=version, subject=subject)
        assert isinstance(answer, Admitted), answer
        return Left(answer)

    async def refusal(self, tier: Tier, *, cost: int = 1, version: int = 1, subject: str = "key_1") -> Left:
        answer = await self.admit(tier, cost=cost, version=version, subject=subject)
        assert isinstance(answer, Exceeded), answer
        return Left(answer)

    async def remaining(
        self, tier: Tier, *, version: int = 1, subject: str = "key_1"
    ) -> Remaining | Stale | LimiterUnavailable:
        self.subjects.add(subject)
        return await self.limiter.remaining(AdmissionRequest(subject, version, tier_plan(tier), 1))

    async def left(self, tier: Tier, *, version: int = 1, subject: str = "key_1") -> tuple[int, int]:
        """Return the units and the slots that the subject has left."""
        remaining = await self.remaining(tier, version=version, subject=subject)
        assert isinstance(remaining, Remaining), remaining
        assert remaining.plan is tier_plan(tier)
        return Left(remaining).left, Left(remaining).slots_left

    async def invalidate(self, version: int, *, subject: str = "key_1") -> None:
        self.subjects.add(subject)
        await self.limiter.invalidate([(subject, version, "")])

    async def use_up(self, tier: Tier, units: int) -> None:
        """Take *units*, one at a time, and give each slot back."""
        for _ in range(units):
            (await self.take(tier)).lease.release()


def only_shard(limiter: Limiter) -> Shard:
    """Return the shard of a *limiter* on one server: nobody else knows what is on its way."""
    assert isinstance(limiter, RedisLimiter)
    (shard,) = limiter._topology.shards  # noqa: SLF001 - as above
    return shard


OpenLimiter = Callable[[], AbstractAsyncContextManager[Harness]]


class ScriptsAt(Scripts):
    """The scripts on a server whose clock is *clock*."""

    def __init__(self, clock: FixedClock) -> None:
        super().__init__()
        self._clock = clock

    @property
    def admit(self) -> Script:
        return _admit_at(self._clock.now)


@cache
def _admit_at(now: float) -> Script:
    source = Scripts().admit.source
    assert source.count(_TIME) == 1
    return Script(source.replace(_TIME, f"{{ '{int(now)}', '{round(now % 1 * 1e6)}' }}"))


@asynccontextmanager
async def memory() -> AsyncIterator[Harness]:
    """Open a limiter in this process; it must hold every subject that it was called for."""
    clock = FixedClock(START)
    store = StoredQuotas()
    limiter = MemoryLimiter(clock, wall_clock=clock, ledger=QuotaLedger(store, clock=clock))
    harness = Harness(limiter, clock, store)
    yield harness
    assert not limiter.is_degraded
    assert len(limiter) == len(harness.subjects)


@asynccontextmanager
async def redis_at(url: str) -> AsyncIterator[Harness]:
    """Open a limiter on the servers of *url*, with keys of its own; they alone must have answered, and hold its keys.

    Without this check a limiter that never reaches its server passes the contract by its local share.
    """
    clock, prefix = FixedClock(START), f"test{token_hex(4)}"
    store = StoredQuotas()
    limiter = RedisLimiter(
        url,
        prefix=prefix,
        clock=clock,
        wall_clock=clock,
        scripts=ScriptsAt(clock),
        ledger=QuotaLedger(store, clock=clock),
    )
    await limiter.open()
    try:
        harness = Harness(limiter, clock, store)
        yield harness
        assert not limiter.is_degraded, limiter.outage
        assert not limiter.counts, "the limiter decided without its server"
    finally:
        await limiter.close()
    assert len(subject_keys(url, prefix)) == len(harness.subjects)


def subject_keys(url: str, prefix: str) -> set[bytes]:
    """Return the keys of subjects that the servers of *url* hold under *prefix*."""
    keys: set[bytes] = set()
    for host, port in re.findall(r"([\d.]+):(\d+)", url):
        with Redis(host, int(port)) as server:
            keys.update(server.keys(f"{prefix}:*"))
    return keys - {f"{prefix}:workers".encode()}


class _KeepsConnection(TCPFakeRequestHandler):
    """Sends an error as a reply and keeps the connection, as Redis does. fakeredis closes it: NOSCRIPT is an outage."""

    def setup(self) -> None:
        super().setup()
        read_response = self.current_client.read_response

        def reply_or_error() -> object:
            try:
                return read_response()
            except ResponseError as exc:
                return exc

        vars(self.current_client)["read_response"] = reply_or_error


@contextmanager
def fake_server() -> Iterator[str]:
    """Serve fakeredis on a port until the block ends, and yield its URL."""
    server = TcpFakeServer(("127.0.0.1", 0))
    server.RequestHandlerClass = _KeepsConnection
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
