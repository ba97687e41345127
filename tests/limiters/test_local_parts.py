"""What processes of a host admit together while Redis is away. Each limiter here stands for a process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

import pytest

from machpay_gateway.assembly import ConfiguredGateway
from machpay_gateway.core.limits.admission import AdmissionRequest, Admitted, Exceeded, Remaining
from machpay_gateway.core.limits.plan import Part, plan_of, tier_plan
from machpay_gateway.core.limits.rate import Limits, Tier
from machpay_gateway.limiters.quota_ledger import QuotaLedger
from machpay_gateway.limiters.redis import RedisLimiter
from machpay_gateway.limiters.redis.share_registry import ShareRegistry
from tests.clocks import FixedClock
from tests.limiters.harness import START, StoredQuotas, only_shard
from tests.redises.faults import FaultProxy
from tests.redises.ports import HOST, free_port

pytestmark = pytest.mark.usefixtures("no_deadlines")
KEY = Part("key", Limits.parse("15/minute", 50))
ACCOUNT = Part("account", Limits.parse("20/minute"))
SOLD = Part("key", Limits.parse("1000/minute", 50, "20/day"))


def of_account(key: str) -> AdmissionRequest:
    """Return a request of *key*, which shares the limit of its account."""
    return AdmissionRequest(key, 1, plan_of((KEY, ACCOUNT)), 1, ("account:1",), "1")


def sold(key: str = "key_1") -> AdmissionRequest:
    """Return a request of *key*, which has a quota."""
    return AdmissionRequest(key, 1, plan_of((SOLD,)), 1)


@dataclass
class LimiterHost:
    """Starts limiters that share a folder, a clock and what is stored."""

    folder: Path
    url: str = field(default_factory=lambda: f"redis://{HOST}:{free_port()}/0")
    workers: int = 2
    prefix: str = field(default_factory=lambda: f"test{token_hex(4)}")
    clock: FixedClock = field(default_factory=lambda: FixedClock(START))
    stored: StoredQuotas = field(default_factory=StoredQuotas)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> RedisLimiter:
        limiter = RedisLimiter(
            self.url,
            prefix=self.prefix,
            clock=self.clock,
            wall_clock=self.clock,
            registry=ShareRegistry(self.folder / "workers", workers=self.workers, clock=self.clock),
            ledger=QuotaLedger(self.stored, clock=self.clock),
        )
        await limiter.open()
        self.stack.push_async_callback(limiter.close)
        return limiter


@asynccontextmanager
async def _open(folder: Path, **options: object) -> AsyncIterator[LimiterHost]:
    host = LimiterHost(folder, **options)  # type: ignore[arg-type]  # of the fields
    async with host.stack:
        yield host


async def ask(limiter: RedisLimiter, request: AdmissionRequest) -> bool:
    answer = limiter.admit(request)
    if asyncio.isfuture(answer):
        answer = await answer
    if isinstance(answer, Admitted):
        answer.lease.release()
        return True
    assert isinstance(answer, Exceeded), answer
    return False


async def use_up(limiter: RedisLimiter, *requests: AdmissionRequest) -> int:
    """Send *requests* by turns, and return how many were admitted."""
    return sum([await ask(limiter, requests[turn % len(requests)]) for turn in range(40)])


def settle(*limiters: RedisLimiter) -> None:
    """Let everybody look twice: to give up a part, and to take it."""
    for limiter in (*limiters, *limiters):
        limiter._refresh_share()  # noqa: SLF001 - as it does every half second


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - of another task, which sends no event
            await asyncio.sleep(0.01)


async def test_keys_of_an_account_have_its_limit_over_all_processes(tmp_path: Path) -> None:
    both = [of_account("key_1"), of_account("key_2")]
    async with _open(tmp_path) as host:
        first, second = await host.start(), await host.start()
        assert [await use_up(first, *both), await use_up(second, *both)] == [10, 10]
        await first.close()
        third = await host.start()
        assert await use_up(third, *both, of_account("key_3")) == 0
        host.clock.advance(61)
        assert [await use_up(third, *both), await use_up(second, *both)] == [10, 10]


async def test_who_follows_a_killed_process_waits_for_the_accounts_window_too(tmp_path: Path) -> None:
    async with _open(tmp_path) as host:
        first, second = await host.start(), await host.start()
        assert await use_up(second, of_account("key_2")) == 7  # its own limit is 15
        assert await ask(first, of_account("key_1"))
        first._registry._abandon()  # noqa: SLF001 - as the system does
        third = await host.start()
        assert await use_up(third, of_account("key_3")) == 0
        host.clock.advance(61)
        settle(second, third)
        assert await use_up(third, of_account("key_3")) == 7


async def test_processes_that_replace_each_other_admit_no_more_of_a_quota(tmp_path: Path) -> None:
    async with _open(tmp_path) as host:
        first, second = await host.start(), await host.start()
        assert await ask(second, sold())  # so it has its part
        assert await use_up(first, sold()) == 10
        for _ in range(3):
            await first.close()
            host.clock.advance(100)
            first = await host.start()
            assert await use_up(first, sold()) == 0
        assert await use_up(second, sold()) == 9


async def test_a_process_that_joins_gets_its_part_of_what_is_left_of_a_quota(tmp_path: Path) -> None:
    async with _open(tmp_path, workers=1) as host:
        first = await host.start()
        assert sum([await ask(first, sold()) for _ in range(12)]) == 12
        await first._ledger._flush(None)  # type: ignore[union-attr]  # noqa: SLF001 - as it does within a second
        second = await host.start()
        assert not await ask(second, sold())
        settle(first, second)
        assert [await use_up(first, sold()), await use_up(second, sold())] == [4, 4]


@pytest.mark.parametrize("knows", [True, False])
async def test_what_an_ended_process_admitted_is_reported_of_every_limit(
    tmp_path: Path, server_url: str, *, knows: bool
) -> None:
    with FaultProxy(int(server_url.rpartition(":")[2].partition("/")[0])) as proxy:
        async with _open(tmp_path, url=proxy.url) as host, _open(tmp_path / "apart", url=server_url) as another:
            another.prefix, another.workers = host.prefix, 1
            first, second = await host.start(), await host.start()
            assert await ask(first, sold())  # so the server has a count of the quota
            if knows:
                assert await ask(second, sold())
            proxy.refuse()
            proxy.reset_all()
            await until(lambda: first.is_degraded and second.is_degraded)
            assert sum([await ask(first, sold()) for _ in range(5)]) == 5
            await first.close()
            proxy.accept()
            await until(lambda: not second.is_degraded)
            (tmp_path / "apart").mkdir()
            other = await another.start()
            expected = [1000 - 6 - knows, 20 - 6 - knows]

            async def left() -> list[int]:
                remaining = await other.remaining(sold())
                assert isinstance(remaining, Remaining)
                return [int(remaining.levels[0]), int(remaining.levels[2])]

            async with asyncio.timeout(5):
                while await left() != expected:  # noqa: ASYNC110 - another process's report
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.2)
            assert await left() == expected


@pytest.mark.parametrize("knows", [True, False])
@pytest.mark.parametrize("is_seeded", [True, False])
async def test_what_an_ended_process_left_counts_once_whatever_the_count_started_from(
    tmp_path: Path, server_url: str, *, knows: bool, is_seeded: bool
) -> None:
    (tmp_path / "apart").mkdir()
    with FaultProxy(int(server_url.rpartition(":")[2].partition("/")[0])) as proxy:
        proxy.refuse()
        async with _open(tmp_path, url=proxy.url) as host, _open(tmp_path / "apart", url=server_url) as another:
            another.prefix, another.workers, another.stored = host.prefix, 1, host.stored
            first, second = await host.start(), await host.start()
            assert sum([await ask(first, sold()) for _ in range(5)]) == 5
            await first.close()  # which stores them
            settle(second)
            if knows:
                assert await ask(second, sold())
                assert second._ledger is not None  # noqa: SLF001 - as after a second
                await second._ledger.taken("key_1", ())  # noqa: SLF001
            other = await another.start()
            if is_seeded:
                assert await ask(other, sold())
            proxy.accept()
            await until(lambda: not second.is_degraded and only_shard(second).resync_timer is not None)
            await only_shard(second).batcher.drain()
            remaining = await other.remaining(sold())
            assert isinstance(remaining, Remaining)
            assert [int(level) for level in remaining.levels[:4:2]] == [
                1000 - 5 - knows - is_seeded,
                20 - 5 - knows - is_seeded,
            ]


async def test_stored_counts_of_a_quota_outlive_a_report_to_an_empty_server(tmp_path: Path, server_url: str) -> None:
    with FaultProxy(int(server_url.rpartition(":")[2].partition("/")[0])) as proxy:
        proxy.refuse()
        async with _open(tmp_path, url=proxy.url) as host:
            first, second = await host.start(), await host.start()
            assert sum([await ask(first, sold()) for _ in range(5)]) == 5
            await first.close()  # which stores them
            proxy.accept()
            await until(lambda: not second.is_degraded and only_shard(second).resync_timer is not None)
            await only_shard(second).batcher.drain()
            remaining = await second.remaining(sold())
            assert isinstance(remaining, Remaining)
            assert [int(remaining.levels[0]), int(remaining.levels[2])] == [995, 15]


async def test_processes_with_databases_in_memory_divide_the_limits_of_their_redis() -> None:
    url, plan = f"redis://{HOST}:{free_port()}/0", tier_plan(Tier("100/minute", 1000))
    async with AsyncExitStack() as stack:
        gateways = [ConfiguredGateway(database="memory://", redis=url) for _ in range(4)]
        for gateway in gateways:
            stack.push_async_callback(gateway.lifecycle.close)
            await gateway.lifecycle.serve()
        answers = [
            gateway.limiter.admit(AdmissionRequest("user_1", 1, plan, 1)) for _ in range(100) for gateway in gateways
        ]
        assert sum(isinstance(answer, Admitted) for answer in answers) == 100
