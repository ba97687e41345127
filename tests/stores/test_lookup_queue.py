"""Look-ups share queries, wait for a bounded time in bounded number, and do not wait for a store that is away."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from machpay_gateway.core.errors import StoreUnavailable, UnreadableRecord
from machpay_gateway.stores import lookup_queue
from machpay_gateway.stores.lookup_queue import LookupQueue


class Numbers:
    """A store of the numbers below 1,000, which answers when it is let go."""

    def __init__(self) -> None:
        self.queries: list[Sequence[int]] = []
        self.let_go = asyncio.Event()
        self.error: Exception | None = None
        self.unreadable: set[int] = set()
        self.failures: list[BaseException] = []
        self.mark = 0
        self.queue: LookupQueue[int, str] = LookupQueue(
            self._load, "number", mark=lambda: self.mark, failed=self.failures.append
        )

    async def find(self, number: int) -> str | None:
        return (await self.queue.find(number)).value

    async def _load(self, numbers: Sequence[int]) -> Mapping[int, str]:
        self.queries.append(numbers)
        await self.let_go.wait()
        if self.error is not None:
            raise self.error
        if self.unreadable.intersection(numbers):
            raise UnreadableRecord("a number")
        return {number: str(number) for number in numbers if number < 1000}


@pytest.fixture
def numbers() -> Numbers:
    return Numbers()


async def begun(numbers: Numbers, *wanted: int) -> list[asyncio.Task[str | None]]:
    """Begin to look *wanted* up, and let the queries start."""
    tasks = [asyncio.create_task(numbers.find(number)) for number in wanted]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def test_many_look_ups_share_a_query(numbers: Numbers) -> None:
    tasks = await begun(numbers, *range(250))
    assert [len(query) for query in numbers.queries] == [1, 1]  # two go out at once, and the rest gathers
    numbers.let_go.set()
    assert await asyncio.gather(*tasks) == [str(number) for number in range(250)]
    assert [len(query) for query in numbers.queries] == [1, 1, 100, 100, 48]


async def test_look_ups_of_one_key_are_one(numbers: Numbers) -> None:
    tasks = await begun(numbers, 7, 7, 7, 1007)
    gone = tasks.pop(0)
    gone.cancel()
    numbers.let_go.set()
    assert await asyncio.gather(*tasks) == ["7", "7", None]
    assert numbers.queries == [[7], [1007]]


async def test_a_value_has_the_mark_of_when_its_query_started(numbers: Numbers) -> None:
    numbers.mark = 1
    first = asyncio.create_task(numbers.queue.find(7))
    await asyncio.sleep(0.0)
    await asyncio.sleep(0.0)
    numbers.mark = 2
    later = asyncio.create_task(numbers.queue.find(7))
    await asyncio.sleep(0.0)
    numbers.let_go.set()
    assert [(await first).mark, (await later).mark] == [1, 1]
    assert (await numbers.queue.find(7)).mark == 2


async def test_a_store_that_hangs_is_waited_for_within_bounds_and_then_not_at_all(
    numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup_queue, "LOOKUP_SECONDS", 0.05)
    tasks = await begun(numbers, *range(300))
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(error) for error in errors} == {StoreUnavailable}
    assert len(numbers.queries) == 2  # no more than that, for a server that hangs
    with pytest.raises(StoreUnavailable, match="a moment ago"):
        await numbers.find(1)
    assert len(numbers.queries) == 2


async def test_one_tries_again_and_the_others_do_not_wait_for_it(
    numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup_queue, "_LONGEST_PAUSE_SECONDS", 1e-9)
    numbers.error = StoreUnavailable("away")
    numbers.let_go.set()
    with pytest.raises(StoreUnavailable, match="away"):
        await numbers.find(1)
    assert numbers.failures == [numbers.error]
    numbers.error = None
    numbers.let_go.clear()
    (probe,) = await begun(numbers, 1)
    with pytest.raises(StoreUnavailable, match="another one tries"):
        await numbers.find(2)
    numbers.let_go.set()
    assert await probe == "1"
    assert await numbers.find(2) == "2"


async def test_more_than_can_be_served_in_time_are_refused_at_once(
    numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup_queue, "_WAITING", 10)
    tasks = await begun(numbers, *range(12))
    with pytest.raises(StoreUnavailable, match="too many"):
        await numbers.find(99)
    numbers.let_go.set()
    assert None not in await asyncio.gather(*tasks)


async def test_a_record_that_cannot_be_read_fails_alone(numbers: Numbers) -> None:
    numbers.unreadable = {5}
    tasks = await begun(numbers, *range(20))
    numbers.let_go.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [number for number, result in enumerate(results) if isinstance(result, UnreadableRecord)] == [5]
    assert [result for result in results if isinstance(result, str)] == [str(n) for n in range(20) if n != 5]
    assert await numbers.find(6) == "6"  # this is no outage


async def test_closing_ends_what_waits(numbers: Numbers) -> None:
    tasks = await begun(numbers, *range(20))
    await numbers.queue.close()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert {str(error) for error in errors} == {"number: canceled by closing"}
    assert not numbers.failures


def test_the_look_ups_of_an_event_loop_that_ended_hold_nothing_up(numbers: Numbers) -> None:
    async def abandoned() -> None:
        _ = await begun(numbers, 1, 2, 3)

    async def found() -> str | None:
        numbers.let_go = asyncio.Event()
        numbers.let_go.set()
        return await numbers.find(3)

    asyncio.run(abandoned())
    assert asyncio.run(found()) == "3"
