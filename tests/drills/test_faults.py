"""Redis dies, stops, slows down and forgets under a steady small load, and callers are served as if nothing were."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from machpay_gateway import Tier
from tests.drills.checker import worst_window
from tests.drills.clients import seconds_until, subject_state
from tests.drills.load import Answer
from tests.drills.loads import (
    READY_SECONDS,
    highest_concurrency,
    print_row,
    running_loads,
    slowest_seconds,
    steady,
    window_requests,
)
from tests.drills.tiers import Shape, in_every_shape
from tests.drills.workers import Fleet, running_workers, unknown_secret
from tests.redises.faults import FaultProxy
from tests.redises.servers import Server, running_server

PLENTY = Tier("1000000/minute", 500)
LITTLE = Tier("100 per 4 second", 10)
FAULT_SECONDS = 5.0  # longer than the little window, so that it passes while the fault lasts
BEFORE_SECONDS, AFTER_SECONDS = 2.0, 6.0
BACK_SECONDS = 2.0  # within which Redis counts again


def kill_and_restart(server: Server, _proxy: FaultProxy) -> None:
    server.kill()
    time.sleep(FAULT_SECONDS)
    server.start()


def stop(server: Server, _proxy: FaultProxy) -> None:
    with server.frozen():
        time.sleep(FAULT_SECONDS)


def slow_down(_server: Server, proxy: FaultProxy) -> None:
    proxy.delay_seconds = 0.15  # each way
    time.sleep(FAULT_SECONDS)
    proxy.delay_seconds = 0.0


def slow_down_to_the_edge(_server: Server, proxy: FaultProxy) -> None:
    proxy.delay_seconds = 0.098  # there and back it is nearly what a worker waits: some answers come in time, some late
    time.sleep(FAULT_SECONDS)
    proxy.delay_seconds = 0.0


def kill_connections(server: Server, _proxy: FaultProxy) -> None:
    for _ in range(round(FAULT_SECONDS)):
        server.command("CLIENT", "KILL", "TYPE", "normal")
        time.sleep(1.0)


def flush_scripts(server: Server, _proxy: FaultProxy) -> None:
    for _ in range(round(FAULT_SECONDS)):
        server.command("SCRIPT", "FLUSH")
        time.sleep(1.0)


def flush_all(server: Server, _proxy: FaultProxy) -> None:
    server.command("FLUSHALL")


Fault = Callable[[Server, FaultProxy], None]
THROUGH_PROXY = (slow_down, slow_down_to_the_edge)


@pytest.mark.drill
@pytest.mark.timeout(60)
@in_every_shape
@pytest.mark.parametrize(
    "fault, windows, slowest",
    [
        (kill_and_restart, 1, 1.0),
        (stop, 1, 1.0),
        (slow_down, 1, 1.0),
        (slow_down_to_the_edge, 1, 1.0),
        (kill_connections, 1, 1.0),
        (flush_scripts, 1, 1.0),
        (flush_all, 2, 1.0),  # what Redis was told to forget can be had once more
    ],
)
async def test_callers_are_served_through_it(fault: Fault, windows: int, slowest: float, shape: Shape) -> None:
    with (
        running_server() as server,
        FaultProxy(server.port) as proxy,
        running_workers(
            2, proxy.url if fault in THROUGH_PROXY else server.url, {"plenty": shape(PLENTY), "little": shape(LITTLE)}
        ) as fleet,
    ):
        seen = await _seen(fleet, server, lambda: fault(server, proxy))
        fleet.check_logs()
    answers = [*seen.plenty, *seen.little]
    worst = worst_window(window_requests(seen.little), LITTLE.window_seconds)
    figure = f"{worst} in {LITTLE.window_seconds} s of {LITTLE.limit}; Redis counts after {seen.back_seconds:.2f} s"
    print_row(f"{fault.__name__.replace('_', ' ')}, {shape.__name__}", [*answers, *seen.strangers], figure)
    assert {answer.status for answer in seen.plenty} == {200}
    assert {answer.status for answer in seen.little} == {200, 429}
    assert {answer.status for answer in seen.strangers} == {401}
    assert slowest_seconds(answers) <= slowest
    assert highest_concurrency(seen.little) <= LITTLE.concurrency
    assert seen.back_seconds <= BACK_SECONDS
    assert worst <= windows * LITTLE.limit


@dataclass(frozen=True)
class _Seen:
    """What the holders of a key with plenty, of one with little, and of none were answered."""

    plenty: Sequence[Answer]
    little: Sequence[Answer]
    strangers: Sequence[Answer]
    back_seconds: float  # from the end of the fault until Redis counts again


async def _seen(fleet: Fleet, server: Server, fault: Callable[[], None]) -> _Seen:
    [(plenty_id, plenty)], [(_, little)] = await fleet.keys(tier="plenty"), await fleet.keys(tier="little")
    began_at = time.monotonic() + READY_SECONDS
    requests = [("/slow?seconds=0.01", plenty), ("/quick", little), ("/quick", unknown_secret())]
    seconds = BEFORE_SECONDS + FAULT_SECONDS + AFTER_SECONDS
    plans = [steady(fleet, path, secret, began_at, seconds) for path, secret in requests]
    with running_loads(plans, fleet.folder) as loads:
        await asyncio.sleep(began_at + BEFORE_SECONDS - time.monotonic())
        await asyncio.to_thread(fault)
        taken = subject_state(server, plenty_id).taken
        back_seconds = await seconds_until(
            lambda: subject_state(server, plenty_id).taken > taken, patience_seconds=AFTER_SECONDS
        )
        plenty_answers, little_answers, strangers = [await asyncio.to_thread(load.answers) for load in loads]
        return _Seen(plenty_answers, little_answers, strangers, back_seconds)
