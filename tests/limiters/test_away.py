"""While Redis is away: what is answered instead, how soon, and what becomes of it when Redis is back.

The limiter's clock is ours and stands still unless it is moved; the server's is its own.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from secrets import token_hex

import pytest

from machpay_gateway.core.limits.admission import (
    CONCURRENCY,
    STALE,
    AdmissionRequest,
    Admitted,
    Exceeded,
    LimiterUnavailable,
    Remaining,
)
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.limiters.redis import RedisLimiter
from machpay_gateway.limiters.redis.limiter import FailureMode
from tests.clocks import FixedClock
from tests.limiters.harness import START, Rig
from tests.redises.faults import FaultProxy
from tests.redises.ports import HOST, free_port
from tests.redises.servers import Server, running_server

TEN = Tier("10/minute", 4)
HALF = Tier("5/minute", 2)
MODES: tuple[FailureMode, ...] = ("local", "deny", "allow")
PATIENCE_SECONDS = 5.0
WAIT_SECONDS = 0.4  # 0.2 are given to a reply; the rest is for a busy machine
AT_ONCE_SECONDS = 0.05


@pytest.fixture
def prefix() -> str:
    return f"test{token_hex(4)}"


@pytest.fixture
def proxy(server_url: str) -> Iterator[FaultProxy]:
    with FaultProxy(int(server_url.rpartition(":")[2].partition("/")[0])) as proxy:
        yield proxy


@asynccontextmanager
async def opened(url: str, prefix: str = "machpay", on_failure: FailureMode = "local") -> AsyncIterator[Rig]:
    clock = FixedClock(START)
    limiter = RedisLimiter(url, prefix=prefix, on_failure=on_failure, clock=clock)
    await limiter.open()
    try:
        yield Rig(limiter, clock)
    finally:
        await limiter.close()


def counts(rig: Rig) -> dict[str, int]:
    assert isinstance(rig.limiter, RedisLimiter)
    return dict(rig.limiter.counts)


def cut(proxy: FaultProxy) -> None:
    """Part the clients from their server, in a way that they notice."""
    proxy.refuse()
    proxy.reset_all()


async def back(rig: Rig, tier: Tier = TEN) -> Admitted:
    """Ask, for nothing, until Redis answers, and return its answer."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            answer = await rig.ask(tier, cost=0)
            if isinstance(answer, Admitted):
                answer.lease.release()
                if answer.tier is tier:
                    await asyncio.sleep(0.05)  # a release is told a moment later
                    return answer
            await asyncio.sleep(0.01)


async def until_stale(rig: Rig) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await rig.ask(TEN, cost=0) is not STALE:  # noqa: ASYNC110 - nothing of ours says when it is known
            await asyncio.sleep(0.01)


async def seconds_of(rig: Rig, requests: int = 1) -> float:
    """Return how long *requests* take, whatever the answers."""
    began = time.monotonic()
    for _ in range(requests):
        answer = await rig.ask(TEN, cost=0)
        if isinstance(answer, Admitted):
            answer.lease.release()
    return time.monotonic() - began


FAULTS: dict[str, Callable[[Server, FaultProxy], None]] = {
    "killed": lambda server, _: server.kill(),
    "frozen": lambda server, _: server.freeze(),
    "swallowed": lambda _, proxy: setattr(proxy, "blackhole", True),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("mode", MODES)
async def test_one_request_waits_a_moment_and_none_does_after_it(fault: str, mode: FailureMode) -> None:
    with running_server() as server, FaultProxy(server.port) as proxy:
        async with opened(proxy.url, on_failure=mode) as rig:
            await rig.take(TEN)
            FAULTS[fault](server, proxy)
            began = time.monotonic()
            await asyncio.gather(*(seconds_of(rig) for _ in range(20)))
            assert time.monotonic() - began < WAIT_SECONDS
            await asyncio.sleep(WAIT_SECONDS - (time.monotonic() - began))  # whatever patience there was is over
            assert await seconds_of(rig, 50) < AT_ONCE_SECONDS
            assert counts(rig)[mode] >= 50


async def test_local_each_worker_admits_its_part_of_what_was_left(
    proxy: FaultProxy, server_url: str, prefix: str
) -> None:
    async with opened(server_url, prefix) as other, opened(proxy.url, prefix) as rig:
        (await rig.take(TEN, cost=3)).lease.release()
        cut(proxy)
        answers = [await rig.take(TEN) for _ in range(2)]
        assert [(answer.left, answer.slots_left) for answer in answers] == [(2, 1), (1, 0)]  # 2 of the 3 are ours
        assert {answer.tier for answer in answers} == {HALF}
        assert (await rig.refused(TEN)).policy == CONCURRENCY
        answers[0].lease.release()
        (await rig.take(TEN)).lease.release()
        refusal = await rig.refused(TEN)
        assert (refusal.policy, refusal.left, refusal.slots_left, refusal.tier) == ("minute", 0, 1, HALF)
        assert refusal.wait_seconds == pytest.approx(61)
        assert counts(rig) == {"local": 5}
        rig.clock.advance(61)
        assert (await rig.take(TEN)).left == 4
        proxy.accept()
        await back(rig)
        assert (await other.take(TEN)).left == 10 - 3 - 1 - 1  # of what was admitted meanwhile, what still counts


@pytest.mark.parametrize("mode", MODES)
async def test_nobody_is_told_what_is_left_until_the_server_is_back(
    mode: FailureMode, proxy: FaultProxy, prefix: str
) -> None:
    demand = AdmissionRequest("key_1", 1, TEN, 1)
    async with opened(proxy.url, prefix, on_failure=mode) as rig:
        (await rig.take(TEN)).lease.release()
        proxy.blackhole = True
        shown = await asyncio.gather(*(rig.limiter.remaining(demand) for _ in range(3)))  # asked, and never answered
        assert {type(each) for each in shown} == {LimiterUnavailable}
        assert isinstance(await rig.limiter.remaining(demand), LimiterUnavailable)
        proxy.blackhole = False
        cut(proxy)
        proxy.accept()
        await back(rig)
        assert isinstance(await rig.limiter.remaining(demand), Remaining)


async def test_deny_nothing_is_admitted_and_the_reason_is_told(proxy: FaultProxy, prefix: str) -> None:
    async with opened(proxy.url, prefix, "deny") as rig:
        await rig.take(TEN)
        cut(proxy)
        for _ in range(3):
            answer = await rig.ask(TEN)
            assert isinstance(answer, LimiterUnavailable)
            assert answer.detail.startswith("Redis does not answer: ")
        assert counts(rig) == {"deny": 3}
        proxy.accept()
        assert (await back(rig)).left == 9


async def test_allow_all_is_admitted_and_counted_once_redis_is_back(
    proxy: FaultProxy, server_url: str, prefix: str
) -> None:
    async with opened(server_url, prefix) as other, opened(proxy.url, prefix, "allow") as rig:
        cut(proxy)
        answers = [await rig.take(TEN) for _ in range(12)]
        assert (answers[-1].left, answers[-1].slots_left, answers[-1].tier) == (0, 0, HALF)
        assert counts(rig) == {"allow": 12}
        for answer in answers:
            answer.lease.release()
        proxy.accept()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while isinstance(told := await other.ask(TEN, cost=0), Admitted):
                told.lease.release()
                await asyncio.sleep(0.01)
        assert isinstance(told, Exceeded)
        assert (told.policy, told.left) == ("minute", 0)


async def test_slots_that_were_released_meanwhile_are_free_afterwards(
    proxy: FaultProxy, server_url: str, prefix: str
) -> None:
    async with opened(server_url, prefix) as other, opened(proxy.url, prefix) as rig:
        leases = [(await rig.take(TEN)).lease for _ in range(4)]
        cut(proxy)
        for lease in leases[:3]:
            lease.release()
        await rig.take(TEN)
        proxy.accept()
        await back(rig)
        assert (await other.take(TEN)).slots_left == 1


async def test_a_change_made_here_meanwhile_holds_at_once_and_elsewhere_afterwards(
    proxy: FaultProxy, server_url: str, prefix: str
) -> None:
    async with opened(server_url, prefix) as other, opened(proxy.url, prefix) as rig:
        await rig.take(TEN)
        cut(proxy)
        await rig.take(TEN)
        await rig.limiter.invalidate("key_1", 2)
        assert await rig.ask(TEN) is STALE
        proxy.accept()
        await until_stale(other)


async def test_a_tier_lowered_meanwhile_is_a_lower_part(proxy: FaultProxy, prefix: str) -> None:
    high, low = Tier("100/minute", 50), Tier("5/minute", 50)
    async with opened(proxy.url, prefix) as rig:
        await rig.take(high)
        cut(proxy)
        answers = [await rig.ask(low, version=2) for _ in range(20)]
        assert sum(isinstance(answer, Admitted) for answer in answers) == 4


async def test_units_admitted_meanwhile_count_also_when_the_record_has_changed_since(
    proxy: FaultProxy, server_url: str, prefix: str
) -> None:
    async with opened(server_url, prefix) as other, opened(proxy.url, prefix) as rig:
        (await rig.take(TEN)).lease.release()
        cut(proxy)
        (await rig.take(TEN)).lease.release()
        assert (await other.take(TEN, version=2)).left == 8
        proxy.accept()
        await until_stale(rig)
        assert (await rig.take(TEN, version=2)).left == 10 - 4


@pytest.mark.parametrize("mode", MODES)
async def test_an_outage_is_logged_when_it_begins_and_when_it_ends(
    proxy: FaultProxy, prefix: str, mode: FailureMode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "machpay_gateway")
    async with opened(proxy.url, prefix, mode) as rig:
        for _ in range(2):
            caplog.clear()
            cut(proxy)
            await seconds_of(rig, 20)
            proxy.accept()
            await back(rig)
            assert [said[:19] for said in caplog.messages] == ["Redis does not answ", "Redis answers again"]


@pytest.mark.parametrize("mode", MODES)
async def test_a_start_without_redis_is_a_start(mode: FailureMode) -> None:
    with running_server() as server:
        server.kill()
        began = time.monotonic()
        async with opened(server.url, on_failure=mode) as rig:
            assert time.monotonic() - began < WAIT_SECONDS
            assert await seconds_of(rig, 3) < AT_ONCE_SECONDS
            assert counts(rig) == {mode: 3}
            server.restart()
            await back(rig, Tier("10/minute", 40))


WAYS_TO_TAKE_NO_WRITES = [
    (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
    (("REPLICAOF", HOST, str(free_port())), ("REPLICAOF", "NO", "ONE")),
]


@pytest.mark.parametrize("spoil, mend", WAYS_TO_TAKE_NO_WRITES, ids=["full", "replica"])
@pytest.mark.parametrize("is_later", [False, True])
@pytest.mark.parametrize("mode", MODES)
async def test_a_server_that_takes_no_writes_is_away(
    mode: FailureMode, *, is_later: bool, spoil: tuple[str, ...], mend: tuple[str, ...]
) -> None:
    with running_server() as server:
        if not is_later:
            server.command(*spoil)
        async with opened(server.url, on_failure=mode) as rig:
            if is_later:
                await rig.take(TEN)
                server.command(*spoil)
            for _ in range(3):
                if mode == "deny":
                    assert isinstance(await rig.ask(TEN), LimiterUnavailable)
                else:
                    assert (await rig.take(TEN)).tier is not TEN
            assert counts(rig) == {mode: 3}
            server.command(*mend)
            await back(rig, Tier("100/minute", 50))


@pytest.mark.parametrize("mode", ["local", "allow"])
async def test_whatever_happens_nobody_is_told_of_an_error(proxy: FaultProxy, prefix: str, mode: FailureMode) -> None:
    many = Tier("100000/minute", 500)

    async def ask_on(until: float) -> None:
        while time.monotonic() < until:
            answer = await rig.take(many, subject=f"key_{time.monotonic() // 0.01}")
            await asyncio.sleep(0.002)
            answer.lease.release()

    async with opened(proxy.url, prefix, mode) as rig:
        asking = [asyncio.create_task(ask_on(time.monotonic() + 1.2)) for _ in range(10)]
        for deed in (proxy.reset_all, proxy.refuse, proxy.reset_all, proxy.accept, proxy.reset_all) * 2:
            await asyncio.sleep(0.08)
            await asyncio.to_thread(deed)
        proxy.blackhole = True
        await asyncio.gather(*asking)
        proxy.blackhole = False
        assert (await back(rig, many)).slots_left == 499
