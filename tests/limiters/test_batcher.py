"""What goes out together, and when, over a connection whose replies the test sends."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from machpay_gateway.core.limits.admission import AdmissionRequest, Admitted, Answer, LimiterUnavailable
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.limiters.redis.batcher import Batcher
from machpay_gateway.limiters.redis.connection import RedisCall
from machpay_gateway.limiters.redis.scripts import Scripts
from machpay_gateway.limiters.redis.shards import HashSlot, Shard
from machpay_gateway.limiters.redis.subject import Step, Subject, SubjectSet

TEN = Tier("10/minute", 4)
STEP = [1, 1, 0, 9, 60_000, 3]  # as `admit.lua` answers the first step of a subject


def reply(*steps: int) -> list[int]:
    """Return the reply to several steps, which begins with the number of the day."""
    return [20_000, *steps]


LONGER_THAN_STEPS_GATHER = 0.02


class SilentConnection:
    is_cluster = False

    def __init__(self) -> None:
        self.calls: list[RedisCall] = []

    def send(self, calls: Sequence[RedisCall]) -> None:
        self.calls += calls

    def fail(self, reason: Exception) -> None:
        raise AssertionError(reason)

    async def wait_lost(self) -> Exception:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


class Requests:
    """A batcher, and one request for each of many subjects."""

    def __init__(self) -> None:
        self.connection = SilentConnection()
        clock = asyncio.get_running_loop().time
        self.batches: Counter[int] = Counter()
        self.seeded: list[Step] = []
        self.refused = LimiterUnavailable("away")
        self.batcher = Batcher(
            Scripts(),
            "worker",
            clock=clock,
            wall_clock=time.time,
            decide_locally=lambda *_: self.refused,
            seed=self.seeded.append,
            batches=self.batches,
        )
        shard = Shard()
        shard.batcher, shard.supervisor = self.batcher, None  # type: ignore[assignment]  # which no batcher uses
        self.slot = HashSlot(shard)
        self.batcher.attach(self.connection)
        self.futures: list[asyncio.Future[Answer]] = []

    def add(self, subject: Subject | None = None) -> Subject:
        """Submit a request of *subject*, by default another one; its answer comes to the last of *futures*."""
        if subject is None:
            name = f"key_{len(self.futures)}"
            request = AdmissionRequest(name, 1, tier_plan(TEN), 1)
            subject = Subject(
                name,
                name.encode(),
                request,
                slot=self.slot,
                count_quotas=lambda *_: None,
            )
        self.futures.append(asyncio.get_running_loop().create_future())
        SubjectSet((subject,), subject.request).wait_for_answer(subject.request, self.futures[-1])
        self.batcher.submit(subject)
        return subject


async def test_the_requests_of_one_turn_go_out_as_one_call_and_each_gets_its_answer() -> None:
    requests = Requests()
    for _ in range(3):
        requests.add()
    assert not requests.connection.calls
    await asyncio.sleep(0)
    (call,) = requests.connection.calls
    call.on_reply(reply(*STEP, 0, 0, 5000, 0, 60_000, 4, *STEP))
    first, second, third = await asyncio.gather(*requests.futures)
    assert isinstance(first, Admitted)
    assert isinstance(third, Admitted)
    assert not isinstance(second, Admitted)


async def test_a_chunk_leaves_before_the_turn_is_over() -> None:
    requests = Requests()
    for _ in range(30):
        requests.add()
    (call,) = requests.connection.calls
    assert call.encoded.count(b"key_") == 24
    await asyncio.sleep(0)
    assert len(requests.connection.calls) == 1  # the rest waits for the reply
    call.on_reply(reply(*STEP * 24))
    assert requests.connection.calls[1].encoded.count(b"key_") == 6
    assert requests.batches == {24: 1, 6: 1}


async def test_while_replies_are_quick_steps_gather_behind_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machpay_gateway.limiters.redis.batcher._GATHER_SECONDS", 60.0)  # longer than this test
    requests = Requests()
    for _ in range(4):
        requests.add()
        await asyncio.sleep(0)
    assert len(requests.connection.calls) == 1
    requests.connection.calls[0].on_reply(reply(*STEP))
    assert len(requests.connection.calls) == 2
    assert requests.connection.calls[1].encoded.count(b"key_") == 3


async def test_chunks_gather_behind_three_batches() -> None:
    requests = Requests()
    for _ in range(24 * 5):
        requests.add()
    assert [call.encoded.count(b"key_") for call in requests.connection.calls] == [24, 24, 24]
    requests.connection.calls[0].on_reply(reply(*STEP * 24))
    assert requests.connection.calls[3].encoded.count(b"key_") == 24 * 2


async def test_no_step_waits_long_for_the_replies_to_others() -> None:
    requests = Requests()
    for count in range(1, 6):
        requests.add()
        await asyncio.sleep(LONGER_THAN_STEPS_GATHER)
        assert len(requests.connection.calls) == count


async def test_a_subject_that_waits_when_the_connection_is_lost_goes_out_once_over_the_next_one() -> None:
    requests = Requests()
    subject = requests.add()
    await asyncio.sleep(0)
    requests.add(subject)  # waits for the reply to the step before
    requests.batcher.detach()
    assert requests.futures[0].result() is requests.refused
    requests.add(subject)
    requests.batcher.attach(requests.connection)
    _, call = requests.connection.calls
    assert call.encoded.count(b"key_0") == 1
    call.on_reply(reply(2, 2, 0, 8, 60_000, 2))
    assert all(isinstance(future.result(), Admitted) for future in requests.futures[1:])


async def test_a_late_reply_is_waited_for_until_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    requests, timers = Requests(), list[tuple[float, Callable[[], None]]]()
    sent_at = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: sent_at)
    monkeypatch.setattr(
        asyncio.get_running_loop(),
        "call_later",
        lambda delay, call, *rest: timers.append((delay, partial(call, *rest))),
    )
    requests.add()
    await asyncio.sleep(0)
    delay, check = timers[-1]
    assert delay == pytest.approx(0.15)
    monkeypatch.setattr(time, "monotonic", lambda: sent_at + 0.16)
    check()
    delay, _ = timers[-1]
    assert delay == pytest.approx(0.04)  # up to 0.2 s, for an event loop that was blocked itself
    requests.connection.calls[0].on_reply(reply(*STEP))
    assert isinstance(requests.futures[0].result(), Admitted)
