"""One suite for every limiter: what `core.limits.ports.Limiter` promises, whatever counts underneath.

A limiter joins by a way to open it with a clock of ours. One file past the usual length,
because it is one contract: whoever writes a limiter reads it as a whole.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machpay_gateway.core.limits.admission import CONCURRENCY, STALE, Admitted, Exceeded, Lease
from machpay_gateway.core.limits.rate import CellWindow, Tier
from tests.limiters.harness import Opened, Rig, memory, redis_at


@pytest.fixture(params=["memory", "fakeredis", "server", "cluster"])
def opened(request: pytest.FixtureRequest) -> Opened:
    """How to open each limiter; whoever writes one joins here."""
    if request.param == "memory":
        return memory
    url = request.getfixturevalue(f"{request.param}_url")
    return lambda: redis_at(url)


@pytest.fixture
async def rig(opened: Opened) -> AsyncIterator[Rig]:
    async with opened() as rig:
        yield rig


FIVE = Tier("5/minute", 100)
TWO_SLOTS = Tier("100/minute", 2)


async def test_a_window_admits_its_limit_and_says_what_is_left(rig: Rig) -> None:
    answers = [await rig.take(FIVE) for _ in range(5)]
    assert [answer.left for answer in answers] == [4, 3, 2, 1, 0]
    assert [answer.slots_left for answer in answers] == [99, 98, 97, 96, 95]
    assert [answer.resets_in for answer in answers] == pytest.approx([61.0] * 5)


async def test_a_refusal_names_the_window_and_the_exact_wait(rig: Rig) -> None:
    await rig.take(FIVE, cost=2)
    rig.clock.advance(10.25)
    await rig.take(FIVE, cost=3)
    rig.clock.advance(10)
    refusal = await rig.refused(FIVE)
    assert (refusal.policy, refusal.left, refusal.slots_left) == ("minute", 0, 98)
    assert refusal.wait_seconds == refusal.resets_in == pytest.approx(40.75)
    assert (await rig.refused(FIVE, cost=3)).wait_seconds == pytest.approx(50.75)  # until three of the five are free
    rig.clock.advance(40.74)
    await rig.refused(FIVE)
    rig.clock.advance(0.02)
    await rig.take(FIVE, cost=2)


async def test_a_refusal_for_concurrency_names_it_and_says_what_is_left(rig: Rig) -> None:
    await rig.take(TWO_SLOTS)
    await rig.take(TWO_SLOTS)
    refusal = await rig.refused(TWO_SLOTS)
    assert (refusal.policy, refusal.left, refusal.slots_left) == (CONCURRENCY, 98, 0)
    assert refusal.wait_seconds > 0


async def test_where_both_are_exceeded_the_one_that_lasts_is_named(rig: Rig) -> None:
    tier = Tier("2/minute", 2)
    await rig.take(tier)
    await rig.take(tier)
    refusal = await rig.refused(tier)
    assert (refusal.policy, refusal.left, refusal.slots_left) == ("minute", 0, 0)
    assert refusal.wait_seconds == pytest.approx(61)


async def test_a_refusal_for_concurrency_spends_nothing_of_the_window(rig: Rig) -> None:
    await rig.take(TWO_SLOTS)
    lease = (await rig.take(TWO_SLOTS)).lease
    for _ in range(50):
        await rig.refused(TWO_SLOTS)
    lease.release()
    assert (await rig.take(TWO_SLOTS)).left == 97


async def test_a_refusal_for_the_window_takes_no_slot(rig: Rig) -> None:
    tier = Tier("2/minute", 3)
    await rig.spend(tier, 2)
    for _ in range(10):
        await rig.refused(tier)
    rig.clock.advance(61)
    assert (await rig.take(tier)).slots_left == 2


async def test_a_refused_cost_leaves_what_a_smaller_one_may_still_have(rig: Rig) -> None:
    await rig.take(FIVE, cost=3)
    assert (await rig.refused(FIVE, cost=3)).left == 2
    assert (await rig.take(FIVE, cost=2)).left == 0


async def test_a_released_slot_is_free_at_once(rig: Rig) -> None:
    leases = [(await rig.take(TWO_SLOTS)).lease for _ in range(2)]
    for _ in range(20):
        await rig.refused(TWO_SLOTS)
        leases.pop(0).release()
        answer = await rig.take(TWO_SLOTS)
        assert answer.slots_left == 0
        leases.append(answer.lease)


async def test_a_slot_is_held_however_long_its_request_takes(rig: Rig) -> None:
    await rig.take(TWO_SLOTS)
    await rig.take(TWO_SLOTS)
    rig.clock.advance(7200)
    assert (await rig.refused(TWO_SLOTS)).policy == CONCURRENCY


async def test_a_cost_of_nothing_counts_for_concurrency_only(rig: Rig) -> None:
    tier = Tier("1/minute", 2)
    assert (await rig.take(tier, cost=0)).left == 1
    assert (await rig.take(tier)).left == 0
    assert (await rig.refused(tier, cost=0)).policy == CONCURRENCY


async def test_a_cost_of_nothing_is_admitted_while_the_window_is_spent(rig: Rig) -> None:
    await rig.spend(FIVE, 5)
    await rig.refused(FIVE)
    assert (await rig.take(FIVE, cost=0)).left == 0


async def test_subjects_do_not_touch_each_other(rig: Rig) -> None:
    tier = Tier("1/minute", 1)
    await rig.take(tier, subject="key_1")
    await rig.refused(tier, subject="key_1")
    assert (await rig.take(tier, subject="key_2")).left == 0
    await rig.limiter.invalidate("key_3", 9)
    assert await rig.ask(tier, subject="key_1") is not STALE


async def test_a_demand_of_a_version_before_the_marked_is_stale(rig: Rig) -> None:
    await rig.take(FIVE, version=1)
    await rig.limiter.invalidate("key_1", 2)
    assert await rig.ask(FIVE, version=1) is STALE
    assert (await rig.take(FIVE, version=2)).left == 3


async def test_a_mark_holds_for_a_subject_that_never_asked(rig: Rig) -> None:
    await rig.limiter.invalidate("key_1", 5)
    assert await rig.ask(FIVE, version=4) is STALE
    assert (await rig.take(FIVE, version=5)).left == 4


async def test_a_stale_demand_leaves_no_clock_of_its_own_window_behind(rig: Rig) -> None:
    await rig.limiter.invalidate("key_1", 2)
    assert await rig.ask(Tier("5/second", 100), version=1) is STALE
    assert (await rig.take(FIVE, version=2)).resets_in == pytest.approx(61)


async def test_a_mark_never_lowers_the_version(rig: Rig) -> None:
    await rig.limiter.invalidate("key_1", 5)
    await rig.limiter.invalidate("key_1", 3)
    assert await rig.ask(FIVE, version=4) is STALE


async def test_a_demand_of_a_newer_version_makes_the_older_stale(rig: Rig) -> None:
    await rig.take(FIVE, version=7)
    assert await rig.ask(FIVE, version=6) is STALE
    await rig.take(FIVE, version=7)


@pytest.mark.parametrize("tier", [FIVE, Tier("5/hour", 100), Tier("1/minute", 1)])
async def test_a_stale_demand_changes_nothing_whatever_tier_it_still_believes_in(rig: Rig, tier: Tier) -> None:
    await rig.take(FIVE, version=2, cost=4)
    rig.clock.advance(30)
    for _ in range(3):
        assert await rig.ask(tier, version=1) is STALE
    answer = await rig.take(FIVE, version=2)
    assert (answer.left, answer.slots_left) == (0, 98)
    assert answer.resets_in == pytest.approx(31)


async def test_a_lowered_tier_holds_within_the_window(rig: Rig) -> None:
    await rig.take(Tier("10/minute", 10), cost=4)
    rig.clock.advance(20)
    await rig.take(Tier("10/minute", 10), cost=4)
    refusal = await rig.refused(Tier("5/minute", 10))
    assert (refusal.policy, refusal.left) == ("minute", 0)
    assert refusal.wait_seconds == pytest.approx(41)  # when the first four are free, there is room for one
    rig.clock.advance(41)
    assert (await rig.take(Tier("5/minute", 10))).left == 0


async def test_a_lowered_concurrency_holds_while_more_are_in_flight(rig: Rig) -> None:
    leases = [(await rig.take(Tier("100/minute", 10))).lease for _ in range(4)]
    low = Tier("100/minute", 2)
    assert (await rig.refused(low)).slots_left == 0
    for lease in leases[:3]:
        lease.release()
    assert (await rig.take(low)).slots_left == 0


async def test_a_raised_tier_holds_at_once(rig: Rig) -> None:
    await rig.take(FIVE, cost=5)
    await rig.refused(FIVE)
    assert (await rig.take(Tier("8/minute", 100))).left == 2


async def test_a_window_of_another_length_does_not_admit_the_limit_twice(rig: Rig) -> None:
    await rig.take(Tier("5/minute", 100), cost=5)
    rig.clock.advance(5)
    assert (await rig.refused(Tier("5/hour", 100))).policy == "hour"
    assert (await rig.refused(Tier("5/second", 100))).policy == "second"
    await rig.refused(Tier("5/minute", 100))


async def test_a_window_of_another_length_keeps_the_slots_that_are_held(rig: Rig) -> None:
    first = await rig.take(Tier("50/minute", 2))
    assert (await rig.take(Tier("50/hour", 2))).slots_left == 0
    assert (await rig.refused(Tier("50/hour", 2))).policy == CONCURRENCY
    first.lease.release()
    await rig.take(Tier("50/hour", 2))


async def test_a_burst_over_the_turn_of_a_minute_is_one_window(rig: Rig) -> None:
    rig.clock.advance(59)
    await rig.take(FIVE, cost=5)
    rig.clock.advance(2)
    await rig.refused(FIVE)
    rig.clock.advance(58)
    await rig.refused(FIVE)  # 60 s later, and the oldest cell counts whole
    rig.clock.advance(1)
    await rig.take(FIVE, cost=5)


async def test_of_many_at_once_no_more_than_the_limit_are_admitted(rig: Rig) -> None:
    tier = Tier("7/minute", 5)
    answers = await asyncio.gather(*(rig.ask(tier) for _ in range(50)))
    assert sum(isinstance(answer, Admitted) for answer in answers) == 5
    for answer in answers:
        if isinstance(answer, Admitted):
            answer.lease.release()
    answers = await asyncio.gather(*(rig.ask(tier) for _ in range(50)))
    assert sum(isinstance(answer, Admitted) for answer in answers) == 2


@dataclass(frozen=True)
class Move:
    wait: float
    cost: int
    release: bool


MOVES = st.lists(st.builds(Move, st.sampled_from([0.0, 0.5, 1.0, 10.0, 60.0, 61.0]), st.integers(0, 3), st.booleans()))


@given(moves=MOVES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_history_is_answered_as_the_reference_arithmetic_does(opened: Opened, moves: list[Move]) -> None:
    asyncio.run(_compare(opened, moves))


async def _compare(opened: Opened, moves: list[Move]) -> None:
    tier = Tier("6/minute", 4)
    async with opened() as rig:
        window = CellWindow(60, rig.clock.now)
        held: list[Lease] = []
        for move in moves:
            rig.clock.advance(move.wait)
            if move.release and held:
                held.pop().release()
            has_slot = len(held) < tier.concurrency
            admitted = has_slot and window.try_take(rig.clock.now, move.cost, tier.limit)
            answer = await rig.ask(tier, cost=move.cost)
            assert isinstance(answer, Admitted | Exceeded)
            assert isinstance(answer, Admitted) is admitted
            window.advance(rig.clock.now)
            assert answer.left == tier.limit - window.taken
            assert answer.resets_in == pytest.approx(window.frees_in(rig.clock.now), abs=1e-3)
            if isinstance(answer, Admitted):
                held.append(answer.lease)
            assert answer.slots_left == tier.concurrency - len(held)
