"""Outages of Redis: what is answered without it, how soon, and what is reported when Redis is back.

The limiter's clock is fixed unless a test moves it; the server's is its own.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from secrets import token_hex

import pytest

from machpay_gateway.core.limits.admission import (
    STALE,
    AdmissionRequest,
    Admitted,
    Exceeded,
    LimiterUnavailable,
    Remaining,
)
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.limits.rate import CONCURRENCY, Tier
from machpay_gateway.limiters.redis import RedisLimiter
from machpay_gateway.limiters.redis.limiter import FailureMode
from tests.clocks import FixedClock
from tests.limiters.harness import START, Harness, Left, only_shard
from tests.redises.faults import FaultProxy
from tests.redises.ports import HOST, free_port
from tests.redises.servers import Server, running_server
from tests.redises.waiting import wait_until

TEN = Tier("10/minute", 4)
HALF = tier_plan(TEN).local_share(2)
MODES: tuple[FailureMode, ...] = ("local", "deny", "allow")
LIMITER = "machpay_gateway.limiters.redis.limiter"
PATIENCE_SECONDS = 5.0
WAIT_SECONDS = 0.4  # a reply may take 0.2; the rest is for a busy machine
AT_ONCE_SECONDS = 0.05
patient = pytest.mark.usefixtures("no_deadlines")


@pytest.fixture
def prefix() -> str:
    return f"test{token_hex(4)}"


@pytest.fixture
def proxy(server_url: str) -> Iterator[FaultProxy]:
    with FaultProxy(int(server_url.rpartition(":")[2].partition("/")[0])) as proxy:
        yield proxy


@asynccontextmanager
async def limiter_on(url: str, prefix: str = "machpay", on_failure: FailureMode = "local") -> AsyncIterator[Harness]:
    clock = FixedClock(START)
    limiter = RedisLimiter(url, prefix=prefix, on_failure=on_failure, clock=clock)
    await limiter.open()
    try:
        yield Harness(limiter, clock)
    finally:
        await limiter.close()


def counts(harness: Harness) -> dict[str, int]:
    assert isinstance(harness.limiter, RedisLimiter)
    return dict(harness.limiter.counts)


def cut(proxy: FaultProxy) -> None:
    """Cut the clients off from their server, with a reset of their connections."""
    proxy.refuse()
    proxy.reset_all()


async def back(harness: Harness, tier: Tier = TEN) -> Left:
    """Send requests of cost 0 until Redis answers, and return its answer."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            answer = await harness.admit(tier, cost=0)
            if isinstance(answer, Admitted):
                answer.lease.release()
                if answer.plan is tier_plan(tier):
                    await asyncio.sleep(0.05)  # a release is reported a moment later
                    return Left(answer)
            await asyncio.sleep(0.01)


async def until_stale(harness: Harness, version: int = 1) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (answer := await harness.admit(TEN, cost=0, version=version)) is not STALE:
            if isinstance(answer, Admitted):
                answer.lease.release()
            await asyncio.sleep(0.01)


async def seconds_of(harness: Harness, requests: int = 1) -> float:
    """Return how long *requests* take, whatever the answers."""
    began = time.monotonic()
    for _ in range(requests):
        answer = await harness.admit(TEN, cost=0)
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
async def test_requests_wait_for_one_deadline_and_none_waits_after_it(fault: str, mode: FailureMode) -> None:
    with running_server() as server, FaultProxy(server.port) as proxy:
        async with limiter_on(proxy.url, on_failure=mode) as harness:
            await harness.take(TEN)
            FAULTS[fault](server, proxy)
            began = time.monotonic()
            await asyncio.gather(*(seconds_of(harness) for _ in range(20)))
            assert time.monotonic() - began < WAIT_SECONDS
            await asyncio.sleep(WAIT_SECONDS - (time.monotonic() - began))  # past every deadline
            assert await seconds_of(harness, 50) < AT_ONCE_SECONDS
            assert counts(harness)[mode] >= 50


async def test_local_each_worker_admits_its_share_of_what_was_left(
    proxy: FaultProxy, server_url: str, prefix: str
) -> None:
    async with limiter_on(server_url, prefix) as other, limiter_on(proxy.url, prefix) as harness:
        (await harness.take(TEN, cost=3)).lease.release()
        cut(proxy)
        answers = [await harness.take(TEN) for _ in range(2)]
        assert [(answer.left, answer.slots_left) for answer in answers] == [(2, 1), (1, 0)]  # 2 of the 3 count here
        assert {answer.plan for answer in answers} == {HALF}
        assert (await harness.refusal(TEN)).policies == (CONCURRENCY,)
        answers[0].lease.release()
        (await harness.take(TEN)).lease.release()
        refusal = await harness.refusal(TEN)
        assert (refusal.policies, refusal.left, refusal.slots_left, refusal.plan) == (("minute",), 0, 1, HALF)
        assert refusal.wait_seconds == pytest.approx(61)
        assert counts(harness) == {"local": 5}
        harness.clock.advance(61)
        assert (await harness.take(TEN)).left == 4
        proxy.accept()
        await back(harness)
        assert (await other.take(TEN)).left == 10 - 3 - 1 - 1  # of the units of the outage, those that still count


@pytest.mark.parametrize("mode", MODES)
async def test_the_remaining_quota_is_unavailable_until_the_server_is_back(
    mode: FailureMode, proxy: FaultProxy, prefix: str
) -> None:
    request = AdmissionRequest("key_1", 1, tier_plan(TEN), 1)
    async with limiter_on(proxy.url, prefix, on_failure=mode) as harness:
        (await harness.take(TEN)).lease.release()
        proxy.blackhole = True
        answers = await asyncio.gather(
            *(harness.limiter.remaining(request) for _ in range(3))
        )  # asked, and never answered
        assert {type(answer) for answer in answers} == {LimiterUnavailable}
        assert isinstance(await harness.limiter.remaining(request), LimiterUnavailable)
        proxy.blackhole = False
        cut(proxy)
        proxy.accept()
        await back(harness)
        assert isinstance(await harness.limiter.remaining(request), Remaining)


@patient
async def test_units_from_before_an_outage_expire_on_time_in_the_local_share(proxy: FaultProxy, prefix: str) -> None:
    async with limiter_on(proxy.url, prefix) as harness:
        (await harness.take(TEN, cost=6)).lease.release()
        harness.clock.advance(30)
        cut(proxy)
        answer = await harness.take(TEN)
        assert (answer.left, answer.resets_in) == (10 - 6 - 1, 31)
        harness.clock.advance(30)
        assert (await harness.take(TEN)).left == 10 - 6 - 2
        harness.clock.advance(1)
        assert (await harness.take(TEN)).left == 10 - 3


@patient
async def test_a_server_that_begins_to_refuse_is_an_outage_with_its_reason_logged_once(
    prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "machpay_gateway")
    with running_server() as server:
        url = server.add_user("gateway", "+@all", f"~{prefix}:*")
        async with limiter_on(url, prefix) as harness:
            assert (await harness.take(TEN)).plan is tier_plan(TEN)
            # Heartbeats are answered, so that only requests would show the refusal.
            server.command("ACL", "SETUSER", "gateway", "-mget")
            for _ in range(20):  # a second: longer than it takes to connect again
                await seconds_of(harness)
                await asyncio.sleep(0.05)
            assert counts(harness) == {"local": 20}
            (message,) = caplog.messages
            assert message.startswith("Redis does not serve the limits: the user may not")
            assert "`ACL SETUSER USER " in message
            server.command("ACL", "SETUSER", "gateway", "+mget")
            await back(harness)
            assert [message[:12] for message in caplog.messages] == ["Redis does n", "Redis answer"]


@patient
async def test_a_sweep_of_idle_subjects_keeps_the_local_shares(proxy: FaultProxy, prefix: str) -> None:
    async with limiter_on(proxy.url, prefix) as harness:
        limiter = harness.limiter
        assert isinstance(limiter, RedisLimiter)
        limiter._sweep_at = 4  # noqa: SLF001 - as with a thousand subjects
        cut(proxy)
        await harness.take(TEN, subject="key_0")  # the connection is known to be lost
        await harness.use_up(TEN, 10)
        only_shard(limiter).batcher.fail_queued()  # as every failed attempt to connect does
        for number in range(20):
            await harness.take(TEN, subject=f"another_{number}")
        assert (await harness.refusal(TEN)).policies == ("minute",)


async def test_deny_admits_nothing_and_reports_the_reason(proxy: FaultProxy, prefix: str) -> None:
    async with limiter_on(proxy.url, prefix, "deny") as harness:
        await harness.take(TEN)
        cut(proxy)
        for _ in range(3):
            answer = await harness.admit(TEN)
            assert isinstance(answer, LimiterUnavailable)
            assert answer.detail.startswith("Redis does not answer: ")
        assert counts(harness) == {"deny": 3}
        proxy.accept()
        assert (await back(harness)).left == 9


async def test_allow_admits_everything_and_counts_it_once_redis_is_back(
    proxy: FaultProxy, server_url: str, prefix: str
) -> None:
    async with limiter_on(server_url, prefix) as other, limiter_on(proxy.url, prefix, "allow") as harness:
        cut(proxy)
        answers = [await harness.take(TEN) for _ in range(12)]
        assert (answers[-1].left, answers[-1].slots_left, answers[-1].plan) == (0, 0, HALF)
        assert counts(harness) == {"allow": 12}
        for answer in answers:
            answer.lease.release()
        proxy.accept()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while isinstance(last := await other.admit(TEN, cost=0), Admitted):
                last.lease.release()
                await asyncio.sleep(0.01)
        assert isinstance(last, Exceeded)
        assert (last.policies, Left(last).left) == (("minute",), 0)


async def test_slots_released_during_an_outage_are_free_afterwards(
    proxy: FaultProxy, server_url: str, prefix: str
) -> None:
    async with limiter_on(server_url, prefix) as other, limiter_on(proxy.url, prefix) as harness:
        leases = [(await harness.take(TEN)).lease for _ in range(4)]
        cut(proxy)
        for lease in leases[:3]:
            lease.release()
        await harness.take(TEN)
        proxy.accept()
        await back(harness)
        assert (await other.take(TEN)).slots_left == 1


async def test_an_invalidation_during_an_outage_holds_here_at_once_and_elsewhere_afterwards(
    proxy: FaultProxy, server_url: str, prefix: str
) -> None:
    async with limiter_on(server_url, prefix) as other, limiter_on(proxy.url, prefix) as harness:
        await harness.take(TEN)
        cut(proxy)
        await harness.take(TEN)
        await harness.invalidate(2)
        assert await harness.admit(TEN) is STALE
        proxy.accept()
        await until_stale(other)


async def test_a_tier_lowered_during_an_outage_lowers_the_local_share(proxy: FaultProxy, prefix: str) -> None:
    high, low = Tier("100/minute", 50), Tier("5/minute", 50)
    async with limiter_on(proxy.url, prefix) as harness:
        await harness.take(high)
        cut(proxy)
        answers = [await harness.admit(low, version=2) for _ in range(20)]
        assert sum(isinstance(answer, Admitted) for answer in answers) == 4


async def test_units_admitted_during_an_outage_count_even_after_the_record_changed(
    proxy: FaultProxy, server_url: str, prefix: str
) -> None:
    async with limiter_on(server_url, prefix) as other, limiter_on(proxy.url, prefix) as harness:
        (await harness.take(TEN)).lease.release()
        cut(proxy)
        (await harness.take(TEN)).lease.release()
        assert (await other.take(TEN, version=2)).left == 8
        proxy.accept()
        await until_stale(harness)
        assert (await harness.take(TEN, version=2)).left == 10 - 4


@pytest.mark.parametrize("mode", MODES)
async def test_an_outage_is_logged_at_its_start_and_at_its_end(
    proxy: FaultProxy, prefix: str, mode: FailureMode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "machpay_gateway")
    async with limiter_on(proxy.url, prefix, mode) as harness:
        for _ in range(2):
            caplog.clear()
            cut(proxy)
            await seconds_of(harness, 20)
            proxy.accept()
            await back(harness)
            assert [message[:19] for message in caplog.messages] == ["Redis does not answ", "Redis answers again"]
            harness.clock.advance(60)


@pytest.mark.parametrize("mode", MODES)
async def test_the_limiter_starts_without_redis(mode: FailureMode) -> None:
    with running_server() as server:
        server.kill()
        began = time.monotonic()
        async with limiter_on(server.url, on_failure=mode) as harness:
            assert time.monotonic() - began < WAIT_SECONDS
            assert await seconds_of(harness, 3) < AT_ONCE_SECONDS
            assert counts(harness) == {mode: 3}
            server.restart()
            await back(harness, Tier("10/minute", 40))


FULL = (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"))
REPLICA = (("REPLICAOF", HOST, str(free_port())), ("REPLICAOF", "NO", "ONE"))


@pytest.mark.parametrize(
    "is_later, break_it, mend",
    [(False, *FULL), (True, *FULL), (True, *REPLICA)],  # a start on a replica fails
    ids=["full at the start", "full later", "replica later"],
)
@pytest.mark.parametrize("mode", MODES)
async def test_a_server_that_takes_no_writes_counts_as_unavailable(
    mode: FailureMode, *, is_later: bool, break_it: tuple[str, ...], mend: tuple[str, ...]
) -> None:
    with running_server() as server:
        if not is_later:
            server.command(*break_it)
        async with limiter_on(server.url, on_failure=mode) as harness:
            if is_later:
                await harness.take(TEN)
                server.command(*break_it)
            for _ in range(3):
                if mode == "deny":
                    assert isinstance(await harness.admit(TEN), LimiterUnavailable)
                else:
                    assert (await harness.take(TEN)).plan is not tier_plan(TEN)
            assert counts(harness) == {mode: 3}
            server.command(*mend)
            await back(harness, Tier("100/minute", 50))


@pytest.mark.parametrize("mode", ["local", "allow"])
async def test_no_fault_of_the_network_surfaces_as_an_error(proxy: FaultProxy, prefix: str, mode: FailureMode) -> None:
    many = Tier("100000/minute", 500)

    async def send_requests(until: float) -> None:
        while time.monotonic() < until:
            answer = await harness.take(many, subject=f"key_{time.monotonic() // 0.01}")
            await asyncio.sleep(0.002)
            answer.lease.release()

    async with limiter_on(proxy.url, prefix, mode) as harness:
        clients = [asyncio.create_task(send_requests(time.monotonic() + 1.2)) for _ in range(10)]
        for fault in (proxy.reset_all, proxy.refuse, proxy.reset_all, proxy.accept, proxy.reset_all) * 2:
            await asyncio.sleep(0.08)
            await asyncio.to_thread(fault)
        proxy.blackhole = True
        await asyncio.gather(*clients)
        proxy.blackhole = False
        assert (await back(harness, many)).slots_left == 499


@patient
async def test_the_first_worker_back_keeps_to_its_local_share_until_the_others_had_time_to_report(
    proxy: FaultProxy, server_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{LIMITER}._RESYNC_SECONDS", 60.0)
    with FaultProxy(int(server_url.rpartition(":")[2].partition("/")[0])) as others_proxy:
        async with limiter_on(others_proxy.url, prefix) as other, limiter_on(proxy.url, prefix) as harness:
            await harness.take(TEN, cost=0, subject="key_2")
            cut(proxy)
            cut(others_proxy)
            for each in (harness, other):
                (await each.take(TEN, cost=4)).lease.release()
            proxy.accept()
            assert (await back(harness)).left == 10 - 4  # the server knows nothing of the other worker's units
            assert (await harness.take(TEN)).left == 10 - 4 - 1
            refusal = await harness.refusal(TEN)
            assert (refusal.policies, refusal.left, refusal.slots_left, refusal.plan) == (("minute",), 0, 1, HALF)
            others_proxy.accept()
            assert (await back(other)).left == 10 - 4 - 1 - 4


@patient
async def test_the_server_alone_decides_once_every_worker_had_time_to_report(
    proxy: FaultProxy, server_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{LIMITER}._RESYNC_SECONDS", 0.05)
    async with limiter_on(server_url, prefix), limiter_on(proxy.url, prefix) as harness:
        cut(proxy)
        for _ in range(5):
            (await harness.take(TEN)).lease.release()
        assert (await harness.refusal(TEN)).plan is not tier_plan(TEN)
        proxy.accept()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not isinstance(answer := await harness.admit(TEN), Admitted):  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)
        assert (answer.levels[0], answer.plan) == (10 - 5 - 1, tier_plan(TEN))


@patient
@pytest.mark.parametrize("is_back", [True, False])
async def test_a_request_that_waits_behind_a_lost_one_of_its_subject_is_answered(
    proxy: FaultProxy, prefix: str, monkeypatch: pytest.MonkeyPatch, *, is_back: bool
) -> None:
    monkeypatch.setattr(f"{LIMITER}.HEARTBEAT_SECONDS", 3600.0)  # it would send what was left behind
    async with limiter_on(proxy.url, prefix) as harness:
        proxy.delay_seconds = 0.02
        first = asyncio.create_task(harness.admit(TEN))
        await asyncio.sleep(0.001)  # it is on its way
        second = asyncio.create_task(harness.admit(TEN, cost=2))
        await asyncio.sleep(0)
        if not is_back:
            proxy.refuse()
        proxy.reset_all()
        proxy.delay_seconds = 0.0
        async with asyncio.timeout(PATIENCE_SECONDS):
            answers = await asyncio.gather(first, second)
        assert all(isinstance(answer, Admitted) for answer in answers)
        assert counts(harness) == {"local": 1 if is_back else 2}  # the first one's reply was lost
        assert isinstance(answers[1], Admitted)
        assert (answers[1].plan is tier_plan(TEN)) is is_back


@patient
async def test_units_of_an_outage_are_counted_once_however_often_the_server_is_lost_again(
    prefix: str,
) -> None:
    with running_server() as server:
        rules = ("+@all", f"~{prefix}:*")
        with FaultProxy(server.port) as proxy:
            url = server.add_user("gateway", *rules).replace(f":{server.port}", f":{proxy.port}")
            async with limiter_on(url, prefix) as harness:
                (await harness.take(TEN)).lease.release()
                cut(proxy)
                for _ in range(3):
                    (await harness.take(TEN)).lease.release()
                # Heartbeats are answered and admissions are not: each connection is lost with the units on their way.
                server.command("ACL", "SETUSER", "gateway", "resetkeys", f"~{prefix}:workers")
                attempts = proxy.accepted
                proxy.accept()
                await asyncio.to_thread(
                    wait_until, lambda: proxy.accepted >= attempts + 4, seconds=PATIENCE_SECONDS, claim="it tries again"
                )
                server.command("ACL", "SETUSER", "gateway", f"~{prefix}:*")
                assert (await back(harness)).left == 10 - 1 - 3
                cut(proxy)
                await harness.take(TEN, cost=0)  # the connection is known to be lost
                await harness.take(TEN)
                proxy.accept()
                assert (await back(harness)).left == 10 - 1 - 3 - 1


@patient
@pytest.mark.parametrize("is_known", [False, True])
async def test_an_invalidation_holds_where_it_was_made_before_the_server_knows_of_it(
    proxy: FaultProxy, prefix: str, *, is_known: bool
) -> None:
    request = AdmissionRequest("key_1", 1, tier_plan(TEN), 1)
    async with limiter_on(proxy.url, prefix) as harness:
        if is_known:
            await harness.take(TEN)
        proxy.delay_seconds = 0.04
        invalidating = asyncio.create_task(harness.invalidate(2))
        await asyncio.sleep(0)
        assert harness.limiter.admit(request) is STALE  # at once, without waiting for the server
        assert await harness.limiter.remaining(request) is STALE
        assert not invalidating.done()
        await invalidating
        assert (await harness.take(TEN, version=2)).plan is tier_plan(TEN)


@patient
@pytest.mark.parametrize("is_in_flight", [True, False])
@pytest.mark.parametrize("first, second", [(2, 3), (3, 2)])
async def test_of_two_invalidations_the_newer_version_is_written(
    proxy: FaultProxy, server_url: str, prefix: str, first: int, second: int, *, is_in_flight: bool
) -> None:
    async with limiter_on(server_url, prefix) as other, limiter_on(proxy.url, prefix) as harness:
        proxy.delay_seconds = 0.03
        earlier = asyncio.create_task(harness.invalidate(first))
        if is_in_flight:
            await asyncio.sleep(0.01)
        await asyncio.gather(earlier, harness.invalidate(second))
        await until_stale(other, version=2)
        assert (await other.take(TEN, version=3)).left == 9


async def test_a_server_whose_memory_is_full_now_and_then_fills_no_log(
    prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "machpay_gateway")
    break_it, mend = FULL
    with running_server() as server:
        async with limiter_on(server.url, prefix) as harness:
            for _ in range(5):
                server.command(*break_it)
                while not harness.limiter.is_degraded:
                    await seconds_of(harness)
                server.command(*mend)
                await back(harness)
            assert [message[:12] for message in caplog.messages] == ["Redis does n", "Redis answer"]


ODD_REPLIES = [
    b"-NOAUTH Authentication required.\r\n",
    b"-WRONGPASS invalid username-password pair or user is disabled.\r\n",
    b"-NOPERM this user has no permissions to run the 'evalsha' command\r\n",
    b"-READONLY You can't write against a read only replica.\r\n",
    b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
    b"-LOADING Redis is loading the dataset in memory\r\n",
    b"-MISCONF Errors writing to the AOF file: No space left on device\r\n",
    b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    b"-ERR max number of clients reached\r\n",
    b"-DENIED Redis is running in protected mode\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"\x15\x03\x01\x00\x02\x02\x46",  # an alert of TLS
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"%1\r\n+of RESP 3\r\n:1\r\n",
    b"*-7\r\n",
    b"\xff\x00\xfe" * 9,
    b"$3\r\nabc\r\n" * 9,
    b":1\r\n" * 9,
    b"",  # it hangs up
]


@pytest.mark.parametrize("reply", ODD_REPLIES)
async def test_whatever_answers_in_place_of_the_server_is_an_outage_that_ends(reply: bytes, prefix: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(reply)
        writer.close()

    with running_server() as server:
        async with limiter_on(server.url, prefix) as harness:
            await harness.take(TEN)
            server.kill()
            async with await asyncio.start_server(answer, HOST, server.port):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while not harness.limiter.is_degraded:  # noqa: ASYNC110 - no event
                        await asyncio.sleep(0.01)
                await asyncio.sleep(0.3)  # for an attempt or two to connect
                await harness.limiter.open()  # as each query of a process without a start does
                assert harness.limiter.is_degraded
                assert await seconds_of(harness, 3) < AT_ONCE_SECONDS
            server.start()
            await back(harness)
