"""Hashes in few threads: whoever sends many waits for themselves, and whoever leaves frees their place."""

import asyncio
import time
from functools import partial
from threading import Event

import pytest

from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.services.passwords import OPERATOR, HashingClient, Passwords

HOSTILE = HashingClient("2001:db8::/64")


@pytest.fixture
def passwords() -> Passwords:
    made = Passwords()
    made._most_running = 1  # noqa: SLF001 - on any machine
    return made


async def _hold(passwords: Passwords) -> tuple["asyncio.Task[bool]", Event]:
    """Occupy the thread until the event is set."""
    began, held = Event(), Event()

    def work() -> bool:
        began.set()
        return held.wait(30)

    task = asyncio.create_task(passwords.in_thread(work, HashingClient("first")))
    assert await asyncio.to_thread(began.wait, 30)
    return task, held


async def test_forty_four_at_once_from_one_block_do_not_keep_others_waiting(passwords: Passwords) -> None:
    first, held = await _hold(passwords)
    done: list[str] = []
    hostile = [asyncio.create_task(passwords.in_thread(lambda: done.append("hostile"), HOSTILE)) for _ in range(44)]
    await asyncio.sleep(0)
    good = [
        asyncio.create_task(passwords.in_thread(partial(done.append, name), HashingClient(name))) for name in "abc"
    ]  # fmt: skip
    of_known = asyncio.create_task(passwords.in_thread(lambda: done.append("known"), HashingClient("k", is_known=True)))
    operator = asyncio.create_task(passwords.in_thread(lambda: done.append("operator"), OPERATOR))
    await asyncio.sleep(0)
    held.set()
    await asyncio.gather(first, *good, of_known, operator)
    refused = [each for each in await asyncio.gather(*hostile, return_exceptions=True) if each is not None]
    assert len(refused) == 44 - 8
    assert all(isinstance(each, StoreUnavailable) for each in refused)
    # One of the hostile block's at most between any two: everybody else is answered before its second.
    assert done.index("c") < 8
    assert sorted(done[:8]) == sorted(["known", "hostile", "operator", "a", "b", "c", "hostile", "hostile"]), done


async def test_forty_one_after_the_other_are_answered_though_some_leave(passwords: Passwords) -> None:
    for number in range(40):
        task = asyncio.create_task(passwords.in_thread(lambda: "done", HOSTILE))
        await asyncio.sleep(0)
        if number % 3:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            assert await task == "done"
    assert await passwords.in_thread(lambda: "done", HOSTILE) == "done"


async def test_who_leaves_while_waiting_makes_room(passwords: Passwords) -> None:
    first, held = await _hold(passwords)
    for _ in range(40):
        task = asyncio.create_task(passwords.in_thread(lambda: None, HOSTILE))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    last = asyncio.create_task(passwords.in_thread(lambda: "done", HOSTILE))
    held.set()
    assert await first
    assert await last == "done"


async def test_what_fails_tells_who_waits(passwords: Passwords) -> None:
    with pytest.raises(ZeroDivisionError):
        await passwords.in_thread(lambda: 1 // 0)
    assert await passwords.in_thread(lambda: 1) == 1


async def test_good_sign_ins_are_answered_beside_a_block_that_sends_many() -> None:
    passwords = Passwords()
    stored_hash = await passwords.compute_hash("correct horse battery")
    hostile = [asyncio.create_task(passwords.is_right("wrong", stored_hash, HOSTILE)) for _ in range(44)]
    took = []
    for number in range(8):
        before = time.perf_counter()
        assert await passwords.is_right("correct horse battery", stored_hash, HashingClient(f"good {number}"))
        took.append(time.perf_counter() - before)
    await asyncio.gather(*hostile, return_exceptions=True)
    assert max(took) < 10
