"""Rules 1 and 2 over many workers: bursts over the boundaries of windows, read by the independent checker."""

import time

import pytest

from machpay_gateway import Tier
from tests.drills.checker import overdue_seconds, worst_window, wrongly_refused
from tests.drills.load import Answer, Plan
from tests.drills.loads import READY_SECONDS, highest_concurrency, notes_in, print_row, running_loads, window_requests
from tests.drills.tiers import Shape, alone, in_every_shape, tightest_by_account, tightest_of_four
from tests.drills.workers import Fleet, running_workers
from tests.redises.faults import FaultProxy
from tests.redises.servers import running_server

WORKERS, PROCESSES = 4, 8
REFUSALS_PER_SECOND = 1500  # about what is asked in vain: more would only be load


@pytest.mark.drill
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "shape",
    [alone, tightest_of_four, tightest_by_account],
    ids=["one limit", "four limits", "four limits, tightest by account"],
)
@pytest.mark.parametrize(
    "rate, concurrency, hold_seconds, seconds",
    [
        ("100 per 3 second", 5, 0.01, 12),
        ("1000 per 3 second", 50, 0.02, 12),
        ("10000 per 6 second", 500, 0.1, 24),
    ],
)
async def test_no_window_is_passed_and_nobody_is_refused_wrongly(
    rate: str, concurrency: int, hold_seconds: float, seconds: float, shape: Shape
) -> None:
    await _drill(Tier(rate, concurrency), hold_seconds, seconds, shape)


@pytest.mark.drill
@pytest.mark.timeout(200)
async def test_two_real_minutes_of_the_smallest_tier() -> None:
    await _drill(Tier("100/minute", 5), 0.01, 125, tightest_of_four, refusals_per_second=150)


@pytest.mark.drill
@pytest.mark.timeout(120)
@in_every_shape
async def test_a_distant_redis_makes_nobody_wait_longer(shape: Shape) -> None:
    await _drill(Tier("100 per 3 second", 20), 0.01, 12, shape, one_way_seconds=0.03)


async def _drill(
    tier: Tier,
    hold_seconds: float,
    seconds: float,
    shape: Shape,
    *,
    refusals_per_second: int = REFUSALS_PER_SECOND,
    one_way_seconds: float = 0.0,
) -> None:
    with (
        running_server() as server,
        FaultProxy(server.port) as proxy,
        running_workers(WORKERS, proxy.url if one_way_seconds else server.url, {"standard": shape(tier)}) as fleet,
    ):
        proxy.delay_seconds = one_way_seconds
        answers = await _answers(fleet, tier, hold_seconds, seconds, refusals_per_second)
        fleet.check_logs()
    requests, window = window_requests(answers), tier.window_seconds
    worst, highest = worst_window(requests, window), highest_concurrency(answers)
    wrong = wrongly_refused(requests, limit=tier.limit, window_seconds=window)
    latest = max(overdue_seconds(requests, limit=tier.limit, window_seconds=window), default=0.0)
    figure = f"{worst} in {window} s, {highest} at once; refused wrongly {wrong}, at most {latest * 1000:.1f} ms late"
    print_row(
        f"{WORKERS} workers, {tier.rate}, {tier.concurrency} at once, {shape.__name__}, "
        f"{one_way_seconds * 1000:.0f} ms away",
        answers,
        figure,
    )
    assert {answer.status for answer in answers} == {200, 429}
    assert worst <= tier.limit
    assert wrong == 0
    assert highest <= tier.concurrency
    assert worst >= 0.9 * tier.limit, "the load has not reached the limit"


async def _answers(
    fleet: Fleet, tier: Tier, hold_seconds: float, seconds: float, refusals_per_second: int
) -> list[Answer]:
    """Let one key be used by all processes: half of them in bursts, and after a third of the time half all the time."""
    (_, secret), *_ = await fleet.keys()
    connections = -(-tier.concurrency * 5 // 4 // PROCESSES) + 1
    began_at = time.monotonic() + READY_SECONDS
    plans = [
        Plan(
            ports=fleet.ports,
            path=f"/slow?seconds={hold_seconds}",
            secrets=[secret],
            notes=notes_in(fleet),
            connections=connections,
            starts_at=began_at + number % 2 * seconds / 3,
            ends_at=began_at + seconds,
            refused_pause_seconds=connections * PROCESSES / refusals_per_second,
            burst_seconds=0.0 if number % 2 else tier.window_seconds,
        )
        for number in range(PROCESSES)
    ]
    with running_loads(plans, fleet.folder) as loads:
        return [answer for load in loads for answer in load.answers()]
