"""What goes out together, and when, over a connection whose replies the test sends."""

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
REPLY = [1, 9, 3, 60_000, 0]  # as `admit.lua` answers the first step of a subject
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
        self.batcher = Batcher(Scripts(), "worker", clock=clock, decide_locally=self._never, batches=self.batches)
        self.batcher.attach(self.connection)
        self.futures: list[asyncio.Future[Answer]] = []

    def add(self) -> None:
        """Submit the request of another subject; its answer comes to the last of *futures*."""
        name = f"key_{len(self.futures)}"
        request = AdmissionRequest(name, 1, TEN, 1)
        subject = Subject(name.encode(), request, self.batcher.report_release)
        self.futures.append(asyncio.get_running_loop().create_future())
        subject.wait_for_answer(request, self.futures[-1])
        self.batcher.submit(subject)

    def _never(self, subject: Subject, request: AdmissionRequest) -> Answer:
        raise AssertionError(subject, request)


async def test_the_requests_of_one_turn_go_out_as_one_call_and_each_gets_its_answer() -> None:
    requests = Requests()
    for _ in range(3):
        requests.add()
    assert not requests.connection.calls
    await asyncio.sleep(0)
    (call,) = requests.connection.calls
    call.on_reply([*REPLY, 0, 0, 4, 60_000, 5000, *REPLY])
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
    call.on_reply(REPLY * 24)
    assert requests.connection.calls[1].encoded.count(b"key_") == 6
    assert requests.batches == {24: 1, 6: 1}


async def test_while_replies_are_quick_steps_gather_behind_one_batch() -> None:
    requests = Requests()
    for _ in range(4):
        requests.add()
        await asyncio.sleep(0)
    assert len(requests.connection.calls) == 1
    requests.connection.calls[0].on_reply(REPLY)
    assert len(requests.connection.calls) == 2
    assert requests.connection.calls[1].encoded.count(b"key_") == 3


async def test_chunks_gather_behind_three_batches() -> None:
    requests = Requests()
    for _ in range(24 * 5):
        requests.add()
    assert [call.encoded.count(b"key_") for call in requests.connection.calls] == [24, 24, 24]
    requests.connection.calls[0].on_reply(REPLY * 24)
    assert requests.connection.calls[3].encoded.count(b"key_") == 24 * 2


async def test_no_step_waits_long_for_the_replies_to_others() -> None:
    requests = Requests()
    for count in range(1, 6):
        requests.add()
        await asyncio.sleep(LONGER_THAN_STEPS_GATHER)
        assert len(requests.connection.calls) == count
