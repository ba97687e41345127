"""What goes out together, and when, over a link that answers only when told to."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from machpay_gateway.core.limits.admission import AdmissionRequest, Admitted, Answer
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.limiters.redis.batcher import Batcher
from machpay_gateway.limiters.redis.connection import RedisCall
from machpay_gateway.limiters.redis.scripts import Scripts
from machpay_gateway.limiters.redis.subject import Subject

TEN = Tier("10/minute", 4)
GRANTED = [1, 9, 3, 60_000, 0]  # as `admit.lua` answers the first question of a subject
LONGER_THAN_ANY_GATHERS = 0.02


class PatientLink:
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


class Desk:
    """Commits, and subjects that nobody else asks about."""

    def __init__(self) -> None:
        self.link = PatientLink()
        clock = asyncio.get_running_loop().time
        self.batches: Counter[int] = Counter()
        self.batcher = Batcher(Scripts(), "worker", clock=clock, decide_locally=self._never, batches=self.batches)
        self.batcher.attach(self.link)
        self.futures: list[asyncio.Future[Answer]] = []

    def ask(self) -> None:
        """Ask about another subject; its answer comes to the last of *futures*."""
        name = f"key_{len(self.futures)}"
        request = AdmissionRequest(name, 1, TEN, 1)
        subject = Subject(name.encode(), request, self.batcher.report_release)
        self.futures.append(asyncio.get_running_loop().create_future())
        subject.wait_for_answer(request, self.futures[-1])
        self.batcher.submit(subject)

    def _never(self, subject: Subject, request: AdmissionRequest) -> Answer:
        raise AssertionError(subject, request)


async def test_what_one_turn_asks_for_goes_out_as_one_call_and_each_gets_its_answer() -> None:
    desk = Desk()
    for _ in range(3):
        desk.ask()
    assert not desk.link.calls
    await asyncio.sleep(0)
    (call,) = desk.link.calls
    call.on_reply([*GRANTED, 0, 0, 4, 60_000, 5000, *GRANTED])
    first, second, third = await asyncio.gather(*desk.futures)
    assert isinstance(first, Admitted)
    assert isinstance(third, Admitted)
    assert not isinstance(second, Admitted)


async def test_a_chunk_leaves_before_the_turn_is_over() -> None:
    desk = Desk()
    for _ in range(30):
        desk.ask()
    (call,) = desk.link.calls
    assert call.encoded.count(b"key_") == 24
    await asyncio.sleep(0)
    assert len(desk.link.calls) == 1  # what is left over waits for the answer
    call.on_reply(GRANTED * 24)
    assert desk.link.calls[1].encoded.count(b"key_") == 6
    assert desk.batches == {24: 1, 6: 1}


async def test_while_answers_are_quick_questions_gather_behind_a_batch() -> None:
    desk = Desk()
    for _ in range(4):
        desk.ask()
        await asyncio.sleep(0)
    assert len(desk.link.calls) == 1
    desk.link.calls[0].on_reply(GRANTED)
    assert len(desk.link.calls) == 2
    assert desk.link.calls[1].encoded.count(b"key_") == 3


async def test_chunks_gather_behind_three_batches() -> None:
    desk = Desk()
    for _ in range(24 * 5):
        desk.ask()
    assert [call.encoded.count(b"key_") for call in desk.link.calls] == [24, 24, 24]
    desk.link.calls[0].on_reply(GRANTED * 24)
    assert desk.link.calls[3].encoded.count(b"key_") == 24 * 2


async def test_no_question_waits_long_for_the_answers_of_others() -> None:
    desk = Desk()
    for count in range(1, 6):
        desk.ask()
        await asyncio.sleep(LONGER_THAN_ANY_GATHERS)
        assert len(desk.link.calls) == count
