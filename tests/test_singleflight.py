import asyncio
from collections.abc import Callable

import pytest

from machpay_gateway.singleflight import SingleFlight


class Fetch:
    """Fetches when it is let go; counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.entered = asyncio.Event()
        self.let_go = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, key: str) -> str:
        self.asked.append(key)
        self.entered.set()
        await self.let_go.wait()
        if self.error is not None:
            raise self.error
        return f"{key} {len(self.asked)}"


def unheard(error: BaseException) -> None:
    raise AssertionError(error)


def heard(errors: list[BaseException]) -> Callable[[BaseException], None]:
    return errors.append


async def test_all_who_ask_while_it_is_under_way_share_one_fetch() -> None:
    fetch = Fetch()
    flights = SingleFlight(fetch, failed=unheard)
    waiting = [asyncio.create_task(flights.join("a")) for _ in range(10)]
    await fetch.entered.wait()
    waiting += [asyncio.create_task(flights.join("a")) for _ in range(10)]
    flights.begin("a")
    assert not any(task.done() for task in waiting)
    fetch.let_go.set()
    assert await asyncio.gather(*waiting) == ["a 1"] * 20
    assert fetch.asked == ["a"]


async def test_each_key_is_fetched_by_itself_and_at_the_same_time() -> None:
    fetch = Fetch()
    flights = SingleFlight(fetch, failed=unheard)
    waiting = [asyncio.create_task(flights.join(key)) for key in "abab"]
    await fetch.entered.wait()
    fetch.let_go.set()
    await asyncio.gather(*waiting)
    assert sorted(fetch.asked) == ["a", "b"]


async def test_what_has_landed_is_fetched_anew() -> None:
    fetch = Fetch()
    fetch.let_go.set()
    flights = SingleFlight(fetch, failed=unheard)
    assert [await flights.join("a"), await flights.join("a")] == ["a 1", "a 2"]


async def test_a_failure_is_everybodys_and_the_next_who_asks_tries_again() -> None:
    fetch, errors = Fetch(), list[BaseException]()
    flights = SingleFlight(fetch, failed=heard(errors))
    fetch.error = OSError("away")
    waiting = [asyncio.create_task(flights.join("a")) for _ in range(3)]
    await fetch.entered.wait()
    fetch.let_go.set()
    assert await asyncio.gather(*waiting, return_exceptions=True) == [fetch.error] * 3
    assert errors == [fetch.error]
    fetch.error = None
    assert await flights.join("a") == "a 2"


async def test_one_who_is_cancelled_leaves_the_others_waiting_for_the_same_fetch() -> None:
    fetch = Fetch()
    flights = SingleFlight(fetch, failed=unheard)
    first, second = (asyncio.create_task(flights.join("a")) for _ in range(2))
    await fetch.entered.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    fetch.let_go.set()
    assert await second == "a 1"
    assert fetch.asked == ["a"]


async def test_a_fetch_that_everybody_left_fails_to_whoever_keeps_the_log() -> None:
    fetch, told = Fetch(), asyncio.Queue[BaseException]()
    flights = SingleFlight(fetch, failed=told.put_nowait)
    fetch.error = OSError("away")
    waiting = asyncio.create_task(flights.join("a"))
    await fetch.entered.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    fetch.let_go.set()
    assert await told.get() is fetch.error


async def test_begin_fetches_in_the_background() -> None:
    fetch = Fetch()
    flights = SingleFlight(fetch, failed=unheard)
    flights.begin("a")
    flights.begin("a")
    joined = asyncio.create_task(flights.join("a"))
    await fetch.entered.wait()
    fetch.let_go.set()
    assert await joined == "a 1"


async def test_a_failure_in_the_background_is_told_once() -> None:
    fetch, told = Fetch(), asyncio.Queue[BaseException]()
    flights = SingleFlight(fetch, failed=told.put_nowait)
    fetch.error = OSError("away")
    fetch.let_go.set()
    flights.begin("a")
    assert await told.get() is fetch.error
    assert told.empty()


def test_a_flight_that_was_abandoned_with_its_loop_is_replaced() -> None:
    asked: list[str] = []

    async def fetch(key: str) -> str:
        asked.append(key)
        if len(asked) == 1:
            await asyncio.Event().wait()
        return key

    async def ask(flights: SingleFlight[str, str]) -> str:
        return await flights.join("a")

    async def ask_and_leave(flights: SingleFlight[str, str]) -> None:
        flights.begin("a")
        await asyncio.sleep(0)  # let it start

    flights = SingleFlight(fetch, failed=unheard)
    abandoned = asyncio.new_event_loop()  # as test clients leave theirs: stopped in the middle, not closed
    try:
        abandoned.run_until_complete(ask_and_leave(flights))
        assert asyncio.run(ask(flights)) == "a"
        assert asked == ["a", "a"]
    finally:
        for task in asyncio.all_tasks(abandoned):
            task.cancel()
        abandoned.run_until_complete(asyncio.sleep(0))
        abandoned.close()
