"""Workers die and freeze, and clients vanish, while slots are held: none is lost, none is had twice."""

import asyncio
import os
import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from machpay_gateway import Tier
from tests.drills.checker import worst_window
from tests.drills.clients import Client, is_free, leases, once, seconds_until, slots_held
from tests.drills.load import PATIENCE_SECONDS, Answer
from tests.drills.loads import READY_SECONDS, print_row, running_loads, steady, window_requests
from tests.drills.tiers import Shape, in_every_shape
from tests.drills.workers import Fleet, Worker, running_workers, unknown_secret
from tests.redises.servers import Server, running_server

FIFTY = Tier("1000000/minute", 50)
LITTLE = Tier("100 per 4 second", 10)
VICTIMS = 4
KILLS_VARIABLE = "DRILL_KILLS"  # workers to kill, at least; without it, as many as fit in a minute, in each shape
DEFAULT_SECONDS = 55.0
USABLE_SECONDS = 10.0
FROZEN_SECONDS = 30.0
_ROUND_SECONDS = 60.0
_HOLD_SECONDS = 0.5  # long enough for all of them to be held at once
_POLL_SECONDS = 0.03


@pytest.mark.drill
@pytest.mark.timeout(3600)
@in_every_shape
async def test_a_killed_worker_gives_back_all_its_slots_within_ten_seconds(shape: Shape) -> None:
    wanted, ends_at = int(os.environ.get(KILLS_VARIABLE, "0")), time.monotonic() + DEFAULT_SECONDS
    took: list[float] = []
    answers: list[Answer] = []
    with running_server() as server, running_workers(VICTIMS + 1, server.url, {"fifty": shape(FIFTY)}) as fleet:
        keys = await fleet.keys(VICTIMS, tier="fifty")
        while len(took) < wanted or (not wanted and time.monotonic() < ends_at):
            took += await _killed(fleet, server, keys, answers)
        strangers = {await once(port, "/quick", unknown_secret()) for port in fleet.ports}
    print_row(
        f"{len(took)} workers killed, {shape.__name__}",
        answers,
        f"all 50 slots usable after {min(took):.1f} to {max(took):.1f} s",
    )
    assert strangers == {401}
    assert {answer.status for answer in answers} == {200, 429}
    assert max(took) <= USABLE_SECONDS


async def _killed(
    fleet: Fleet, server: Server, keys: Sequence[tuple[str, str]], answers: list[Answer]
) -> Sequence[float]:
    """Kill every worker but the last, each while it holds all slots of a key; return when the last had them all."""
    *victims, survivor = fleet.workers
    took = []
    async with asyncio.timeout(_ROUND_SECONDS), AsyncExitStack() as stack:
        for victim, (key_id, secret) in zip(victims, keys, strict=True):
            await _hold_all(stack, victim, server, key_id, secret)
            assert await _send_and_record(survivor.port, "/quick", secret, answers) == 429
            victim.kill()
            took.append(asyncio.create_task(_usable_after(survivor, secret, answers)))
            await asyncio.sleep(random.random())  # noqa: S311 - spreads over the heartbeats
        seconds = await asyncio.gather(*took)
    for victim in victims:
        await asyncio.to_thread(victim.restart)
    return seconds


async def _hold_all(stack: AsyncExitStack, worker: Worker, server: Server, key_id: str, secret: str) -> None:
    """Let *worker* hold all slots of the key, for as long as it lives."""
    for _ in range(FIFTY.concurrency):
        holder = await stack.enter_async_context(Client.to(worker.port))
        holder.send("/slow?seconds=60", secret)
    all_are_held = await seconds_until(lambda: slots_held(server, key_id) == FIFTY.concurrency, patience_seconds=5)
    assert all_are_held < 5
    await asyncio.sleep(random.uniform(0.0, 3.0))  # noqa: S311 - as above


async def _usable_after(survivor: Worker, secret: str, answers: list[Answer]) -> float:
    """Return how many seconds it takes until *survivor* may hold all slots at once."""
    began_at = time.monotonic()
    while True:
        if await _send_and_record(survivor.port, "/quick", secret, answers) == 200:
            path = f"/slow?seconds={_HOLD_SECONDS}"
            all_at_once = (_send_and_record(survivor.port, path, secret, answers) for _ in range(FIFTY.concurrency))
            if set(await asyncio.gather(*all_at_once)) == {200}:
                return time.monotonic() - _HOLD_SECONDS - began_at
        await asyncio.sleep(_POLL_SECONDS)


async def _send_and_record(port: int, path: str, secret: str, answers: list[Answer]) -> int:
    sent = time.monotonic()
    status = await once(port, path, secret)
    came = time.monotonic()
    answers.append(Answer(sent, came, came, came, status, "-"))
    return status


@pytest.mark.drill
@pytest.mark.timeout(120)
@in_every_shape
async def test_a_worker_frozen_and_thawed_keeps_nothing_and_takes_nothing(shape: Shape) -> None:
    tiers = {"fifty": shape(FIFTY), "little": shape(LITTLE)}
    with running_server() as server, running_workers(2, server.url, tiers) as fleet:
        [(fifty_id, fifty)], [(little_id, little)] = await fleet.keys(tier="fifty"), await fleet.keys(tier="little")
        held, answers, little_answers, strangers = await _frozen(fleet, server, fifty_id, fifty, little)
        freed = await seconds_until(
            lambda: is_free(server, fifty_id) and is_free(server, little_id), patience_seconds=10
        )
        fleet.check_logs()
    worst = worst_window(window_requests(little_answers), LITTLE.window_seconds)
    figure = f"{worst} in {LITTLE.window_seconds} s of {LITTLE.limit}; {held} slots held when frozen, 0 at the end"
    print_row(
        f"a worker frozen {FROZEN_SECONDS:.0f} s, {shape.__name__}", [*answers, *little_answers, *strangers], figure
    )
    assert {answer.status for answer in answers} == {200}
    assert {answer.status for answer in little_answers} == {200, 429}
    assert {answer.status for answer in strangers} == {401}
    assert worst <= LITTLE.limit
    assert freed <= 1.0


async def _frozen(
    fleet: Fleet, server: Server, key_id: str, secret: str, little: str
) -> tuple[int, list[Answer], list[Answer], list[Answer]]:
    """Freeze a worker that holds slots under load; return how many it held, and what was answered meanwhile."""
    began_at = time.monotonic() + READY_SECONDS
    requests = [("/slow?seconds=0.2", secret), ("/quick", little), ("/quick", unknown_secret())]
    plans = [steady(fleet, path, key, began_at, FROZEN_SECONDS + 8) for path, key in requests]
    with running_loads(plans, fleet.folder) as loads:
        await asyncio.sleep(began_at + 2.0 - time.monotonic())
        fleet.workers[0].freeze()
        held = max(leases(server, key_id).values(), default=0)
        await asyncio.sleep(FROZEN_SECONDS)
        remaining = leases(server, key_id)
        fleet.workers[0].thaw()
        assert len(remaining) <= 1, f"the frozen worker still holds slots: {remaining}"
        answers, little_answers, strangers = [await asyncio.to_thread(load.answers) for load in loads]
    assert PATIENCE_SECONDS > FROZEN_SECONDS
    return held, answers, little_answers, strangers


CLIENTS, GROUP = 1000, 50


@pytest.mark.drill
@pytest.mark.timeout(120)
@in_every_shape
async def test_a_thousand_clients_gone_in_the_middle_of_an_answer_hold_nothing_a_second_later(shape: Shape) -> None:
    with running_server() as server, running_workers(2, server.url, {"fifty": shape(FIFTY)}) as fleet:
        [(key_id, secret)] = await fleet.keys(tier="fifty")
        answers: list[Answer] = []
        took = [await _vanished(fleet, server, key_id, secret, answers) for _ in range(CLIENTS // GROUP)]
        strangers = {await once(port, "/quick", unknown_secret()) for port in fleet.ports}
        fleet.check_logs()
    print_row(
        f"{len(answers)} clients gone, {shape.__name__}",
        answers,
        f"0 slots held {max(took) * 1000:.0f} ms later at most",
    )
    assert strangers == {401}
    assert {answer.status for answer in answers} == {200}
    assert max(took) <= 1.0


async def _vanished(fleet: Fleet, server: Server, key_id: str, secret: str, answers: list[Answer]) -> float:
    """Let a group begin to read streams and be gone; return after how many seconds no slot is held."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Client.to(fleet.ports[number % len(fleet.ports)]))
            for number in range(GROUP)
        ]
        sent = time.monotonic()
        statuses = await asyncio.gather(*(client.begin("/stream?seconds=60", secret) for client in clients))
        came = time.monotonic()
        answers += [Answer(sent, came, came, came, status, "-") for status in statuses]
        assert slots_held(server, key_id) == GROUP
        for number, client in enumerate(clients):
            client.vanish(reset=bool(number % 2))
        return await seconds_until(lambda: is_free(server, key_id), patience_seconds=15)
