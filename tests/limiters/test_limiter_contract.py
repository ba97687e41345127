"""One suite for every limiter: what `core.limits.ports.Limiter` promises, whichever store holds the counters.

A limiter joins with a function that opens it on a fixed clock (`conftest.open_limiter`).
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machpay_gateway.core.limits.admission import (
    STALE,
    AdmissionRequest,
    Admitted,
    Answer,
    Exceeded,
    Lease,
    PendingAnswer,
)
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.limits.rate import CONCURRENCY, Tier
from machpay_gateway.core.limits.window import CellWindow
from tests.limiters.harness import Harness, OpenLimiter

pytestmark = pytest.mark.usefixtures("no_deadlines")
FIVE = Tier("5/minute", 100)
TWO_SLOTS = Tier("100/minute", 2)


async def test_a_window_admits_its_limit_and_reports_what_is_left(harness: Harness) -> None:
    answers = [await harness.take(FIVE) for _ in range(5)]
    assert [answer.left for answer in answers] == [4, 3, 2, 1, 0]
    assert [answer.slots_left for answer in answers] == [99, 98, 97, 96, 95]
    assert [answer.resets_in for answer in answers] == pytest.approx([61.0] * 5)


async def test_a_refusal_names_the_window_and_the_exact_wait(harness: Harness) -> None:
    await harness.take(FIVE, cost=2)
    harness.clock.advance(10.25)
    await harness.take(FIVE, cost=3)
    harness.clock.advance(10)
    refusal = await harness.refusal(FIVE)
    assert (refusal.policies, refusal.left, refusal.slots_left) == (("minute",), 0, 98)
    assert refusal.wait_seconds == refusal.resets_in == pytest.approx(40.75)
    assert (await harness.refusal(FIVE, cost=3)).wait_seconds == pytest.approx(50.75)  # until three are free
    harness.clock.advance(40.74)
    await harness.refusal(FIVE)
    harness.clock.advance(0.02)
    await harness.take(FIVE, cost=2)


async def test_a_refusal_for_concurrency_names_it_and_reports_what_is_left(harness: Harness) -> None:
    await harness.take(TWO_SLOTS)
    await harness.take(TWO_SLOTS)
    refusal = await harness.refusal(TWO_SLOTS)
    assert (refusal.policies, refusal.left, refusal.slots_left) == ((CONCURRENCY,), 98, 0)
    assert refusal.wait_seconds == 1.0
    assert refusal.resets_in == pytest.approx(61)


async def test_where_both_limits_are_exceeded_both_are_named(harness: Harness) -> None:
    tier = Tier("6/minute", 2)
    await harness.take(tier, cost=2)
    harness.clock.advance(10)
    await harness.take(tier, cost=3)
    refusal = await harness.refusal(tier, cost=4)
    assert (refusal.policies, refusal.left, refusal.slots_left) == (("minute", CONCURRENCY), 1, 0)
    assert refusal.wait_seconds == pytest.approx(61)
    assert refusal.resets_in == pytest.approx(51)


async def test_a_refusal_for_concurrency_spends_nothing_of_the_window(harness: Harness) -> None:
    await harness.take(TWO_SLOTS)
    lease = (await harness.take(TWO_SLOTS)).lease
    for _ in range(50):
        await harness.refusal(TWO_SLOTS)
    lease.release()
    assert (await harness.take(TWO_SLOTS)).left == 97


async def test_a_refusal_for_the_window_takes_no_slot(harness: Harness) -> None:
    tier = Tier("2/minute", 3)
    await harness.use_up(tier, 2)
    for _ in range(10):
        await harness.refusal(tier)
    harness.clock.advance(61)
    assert (await harness.take(tier)).slots_left == 2


async def test_a_refusal_for_the_window_reports_slots_that_were_released_since(harness: Harness) -> None:
    leases = [(await harness.take(FIVE)).lease for _ in range(5)]
    assert (await harness.refusal(FIVE)).slots_left == 95
    for lease in leases[:2]:
        lease.release()
    assert (await harness.refusal(FIVE)).slots_left == 97


async def test_a_refused_cost_leaves_what_a_smaller_one_may_still_have(harness: Harness) -> None:
    await harness.take(FIVE, cost=3)
    assert (await harness.refusal(FIVE, cost=3)).left == 2
    assert (await harness.take(FIVE, cost=2)).left == 0


async def test_a_released_slot_is_free_at_once(harness: Harness) -> None:
    leases = [(await harness.take(TWO_SLOTS)).lease for _ in range(2)]
    for _ in range(20):
        await harness.refusal(TWO_SLOTS)
        leases.pop(0).release()
        answer = await harness.take(TWO_SLOTS)
        assert answer.slots_left == 0
        leases.append(answer.lease)


async def test_a_slot_is_held_however_long_its_request_takes(harness: Harness) -> None:
    await harness.take(TWO_SLOTS)
    await harness.take(TWO_SLOTS)
    harness.clock.advance(7200)
    assert (await harness.refusal(TWO_SLOTS)).policies == (CONCURRENCY,)


async def test_a_cost_of_0_counts_for_concurrency_only(harness: Harness) -> None:
    tier = Tier("1/minute", 2)
    assert (await harness.take(tier, cost=0)).left == 1
    assert (await harness.take(tier)).left == 0
    assert (await harness.refusal(tier, cost=0)).policies == (CONCURRENCY,)


async def test_a_cost_of_0_is_admitted_while_the_window_is_exhausted(harness: Harness) -> None:
    await harness.use_up(FIVE, 5)
    await harness.refusal(FIVE)
    assert (await harness.take(FIVE, cost=0)).left == 0


async def test_subjects_are_counted_apart(harness: Harness) -> None:
    tier = Tier("1/minute", 1)
    await harness.take(tier, subject="key_1")
    await harness.refusal(tier, subject="key_1")
    assert (await harness.take(tier, subject="key_2")).left == 0
    await harness.invalidate(9, subject="key_3")
    assert await harness.admit(tier, subject="key_1") is not STALE


async def test_a_request_older_than_the_invalidated_version_is_stale(harness: Harness) -> None:
    await harness.take(FIVE, version=1)
    await harness.invalidate(2)
    assert await harness.admit(FIVE, version=1) is STALE
    assert (await harness.take(FIVE, version=2)).left == 3


async def test_an_invalidation_holds_for_a_subject_without_requests(harness: Harness) -> None:
    await harness.invalidate(5)
    assert await harness.admit(FIVE, version=4) is STALE
    assert (await harness.take(FIVE, version=5)).left == 4


async def test_a_stale_request_leaves_no_trace_of_its_own_window(harness: Harness) -> None:
    await harness.invalidate(2)
    assert await harness.admit(Tier("5/second", 100), version=1) is STALE
    assert (await harness.take(FIVE, version=2)).resets_in == pytest.approx(61)


async def test_an_invalidation_never_lowers_the_version(harness: Harness) -> None:
    await harness.invalidate(5)
    await harness.invalidate(3)
    assert await harness.admit(FIVE, version=4) is STALE


def of_account(number: int, account_version: int, tier: Tier = FIVE, version: int = 1) -> AdmissionRequest:
    """Return a request of a key of the account, read when that had *account_version*."""
    return AdmissionRequest(f"key_{number}", version, tier_plan(tier), 1, (), "acct_1", account_version)


async def test_a_change_of_an_account_makes_older_requests_of_all_its_subjects_stale(harness: Harness) -> None:
    for number in range(3):
        assert isinstance(await harness.answer(of_account(number, 7)), Admitted)
    harness.subjects.add("acct_1")
    await harness.limiter.invalidate([("acct_1", 9, "acct_1")])
    for number in range(4):  # the last one is new
        assert await harness.answer(of_account(number, 8)) is STALE
        answer = await harness.answer(of_account(number, 9))
        assert isinstance(answer, Admitted)
        assert answer.levels[0] == (3 if number < 3 else 4)  # what was stale took nothing
    assert await harness.remaining(FIVE, subject="key_9") is not STALE  # of no account


async def test_many_changes_are_announced_at_once(harness: Harness) -> None:
    harness.subjects.update(f"key_{number}" for number in range(1200))
    await harness.limiter.invalidate([(f"key_{number}", 5, "acct_1") for number in range(1200)])
    answers = [await harness.answer(of_account(number, 1, version=4)) for number in range(0, 1200, 100)]
    assert answers == [STALE] * 12
    assert isinstance(await harness.answer(of_account(1199, 1, version=5)), Admitted)


@pytest.mark.parametrize("later", [False, True])
async def test_versions_that_a_restored_backup_set_back_are_the_newest_once_they_are_believed(
    harness: Harness, *, later: bool
) -> None:
    assert isinstance(await harness.answer(of_account(1, 9, version=6)), Admitted)
    harness.subjects.add("acct_1")
    await harness.limiter.invalidate([("key_1", 7, "acct_1"), ("acct_1", 10, "acct_1")])
    restored = of_account(1, 8, version=5)
    assert await harness.answer(restored) is STALE
    await harness.limiter.lower_version(restored)
    if later:
        restored = of_account(1, 9, version=6)
    answer = await harness.answer(restored)
    assert isinstance(answer, Admitted)
    assert answer.levels[0] == 3  # what was counted before is still counted
    assert await harness.answer(of_account(1, 7, version=4)) is STALE


async def test_a_request_of_a_newer_version_makes_the_older_stale(harness: Harness) -> None:
    await harness.take(FIVE, version=7)
    assert await harness.admit(FIVE, version=6) is STALE
    await harness.take(FIVE, version=7)


@pytest.mark.parametrize("tier", [FIVE, Tier("5/hour", 100), Tier("1/minute", 1)])
async def test_a_stale_request_changes_nothing_whatever_its_tier(harness: Harness, tier: Tier) -> None:
    await harness.take(FIVE, version=2, cost=4)
    harness.clock.advance(30)
    for _ in range(3):
        assert await harness.admit(tier, version=1) is STALE
    answer = await harness.take(FIVE, version=2)
    assert (answer.left, answer.slots_left) == (0, 98)
    assert answer.resets_in == pytest.approx(31)


async def test_a_lowered_tier_holds_within_the_window(harness: Harness) -> None:
    await harness.take(Tier("10/minute", 10), cost=4)
    harness.clock.advance(20)
    await harness.take(Tier("10/minute", 10), cost=4)
    refusal = await harness.refusal(Tier("5/minute", 10))
    assert (refusal.policies, refusal.left) == (("minute",), 0)
    assert refusal.wait_seconds == pytest.approx(41)  # when the first four are free, there is room for one
    harness.clock.advance(41)
    assert (await harness.take(Tier("5/minute", 10))).left == 0


async def test_a_cost_of_0_is_refused_while_a_lowered_tier_is_overdrawn(harness: Harness) -> None:
    await harness.take(Tier("10/minute", 10), cost=2)
    harness.clock.advance(20)
    await harness.take(Tier("10/minute", 10), cost=4)
    refusal = await harness.refusal(Tier("3/minute", 10), cost=0)
    assert (refusal.policies, refusal.left, refusal.slots_left) == (("minute",), 0, 8)
    assert refusal.resets_in == pytest.approx(41)
    assert refusal.wait_seconds == pytest.approx(61)
    assert (await harness.take(Tier("6/minute", 10), cost=0)).left == 0


async def test_a_lowered_concurrency_holds_while_more_are_in_flight(harness: Harness) -> None:
    leases = [(await harness.take(Tier("100/minute", 10))).lease for _ in range(4)]
    low = Tier("100/minute", 2)
    assert (await harness.refusal(low)).slots_left == 0
    for lease in leases[:3]:
        lease.release()
    assert (await harness.take(low)).slots_left == 0


async def test_a_raised_tier_holds_at_once(harness: Harness) -> None:
    await harness.take(FIVE, cost=5)
    await harness.refusal(FIVE)
    assert (await harness.take(Tier("8/minute", 100))).left == 2


async def test_a_window_of_another_length_does_not_admit_the_limit_twice(harness: Harness) -> None:
    await harness.take(Tier("5/minute", 100), cost=5)
    harness.clock.advance(5)
    assert (await harness.refusal(Tier("5/hour", 100))).policies == ("hour",)
    assert (await harness.refusal(Tier("5/second", 100))).policies == ("second",)
    await harness.refusal(Tier("5/minute", 100))


@pytest.mark.parametrize("resized", [Tier("5/hour", 100), Tier("5/second", 100), Tier("5/2 minutes", 100)])
async def test_units_that_have_expired_are_not_counted_in_a_window_of_another_length(
    harness: Harness, resized: Tier
) -> None:
    await harness.take(FIVE, cost=2)
    harness.clock.advance(30)
    await harness.take(FIVE)
    harness.clock.advance(31)  # the first two have expired, and nothing has looked since
    assert (await harness.take(resized)).left == 3


async def test_units_expire_on_time_in_a_window_of_another_length(harness: Harness) -> None:
    resized = Tier("5/2 minutes", 100)
    await harness.take(FIVE, cost=2)
    harness.clock.advance(5)
    assert (await harness.take(resized)).left == 2
    harness.clock.advance(60)
    assert (await harness.take(resized)).left == 1
    harness.clock.advance(60)
    await harness.refusal(resized, cost=2)
    harness.clock.advance(1)  # 61 cells of 2 s after the change
    assert (await harness.take(resized, cost=4)).left == 0


async def test_a_window_of_another_length_keeps_the_slots_that_are_held(harness: Harness) -> None:
    first = await harness.take(Tier("50/minute", 2))
    assert (await harness.take(Tier("50/hour", 2))).slots_left == 0
    assert (await harness.refusal(Tier("50/hour", 2))).policies == (CONCURRENCY,)
    first.lease.release()
    await harness.take(Tier("50/hour", 2))


async def test_a_burst_across_a_minute_boundary_is_one_window(harness: Harness) -> None:
    harness.clock.advance(59)
    await harness.take(FIVE, cost=5)
    harness.clock.advance(2)
    await harness.refusal(FIVE)
    harness.clock.advance(58)
    await harness.refusal(FIVE)  # 60 s later, and the oldest cell counts whole
    harness.clock.advance(1)
    await harness.take(FIVE, cost=5)


async def test_concurrent_requests_are_admitted_up_to_the_limit(harness: Harness) -> None:
    tier = Tier("7/minute", 5)
    answers = await asyncio.gather(*(harness.admit(tier) for _ in range(50)))
    assert sum(isinstance(answer, Admitted) for answer in answers) == 5
    for answer in answers:
        if isinstance(answer, Admitted):
            answer.lease.release()
    answers = await asyncio.gather(*(harness.admit(tier) for _ in range(50)))
    assert sum(isinstance(answer, Admitted) for answer in answers) == 2


async def test_equal_requests_of_one_moment_each_report_what_the_ones_before_left(harness: Harness) -> None:
    tier = Tier("10/minute", 5)
    harness.subjects.add("key_1")
    request = AdmissionRequest("key_1", 1, tier_plan(tier), 3)  # one object, so that they share a step
    answers = await asyncio.gather(*(answer_to(harness.limiter.admit(request)) for _ in range(4)))
    *admitted, refusal = answers
    lefts = [(answer.levels[0], answer.levels[-1]) for answer in admitted if isinstance(answer, Admitted)]
    assert lefts == [(7, 4), (4, 3), (1, 2)]
    assert isinstance(refusal, Exceeded)
    assert (refusal.levels[0], refusal.levels[-1]) == (1, 2)


async def answer_to(answer: Answer | PendingAnswer) -> Answer:
    return await answer if isinstance(answer, Awaitable) else answer


@dataclass(frozen=True)
class Move:
    wait: float
    cost: int
    release: bool


MOVES = st.lists(st.builds(Move, st.sampled_from([0.0, 0.5, 1.0, 10.0, 60.0, 61.0]), st.integers(0, 3), st.booleans()))


@given(moves=MOVES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_history_is_answered_as_by_the_reference_window(open_limiter: OpenLimiter, moves: list[Move]) -> None:
    asyncio.run(_compare(open_limiter, moves))


async def _compare(open_limiter: OpenLimiter, moves: list[Move]) -> None:
    tier = Tier("6/minute", 4)
    async with open_limiter() as harness:
        window = CellWindow(60, harness.clock.now)
        held: list[Lease] = []
        for move in moves:
            harness.clock.advance(move.wait)
            if move.release and held:
                held.pop().release()
            has_slot = len(held) < tier.concurrency
            admitted = has_slot and window.try_take(harness.clock.now, move.cost, 6)
            answer = await harness.admit(tier, cost=move.cost)
            assert isinstance(answer, Admitted | Exceeded)
            assert isinstance(answer, Admitted) is admitted
            window.advance(harness.clock.now)
            left, resets_in, slots_left = answer.levels
            assert left == 6 - window.taken
            assert resets_in == pytest.approx(window.frees_in(harness.clock.now), abs=1e-3)
            if isinstance(answer, Admitted):
                held.append(answer.lease)
            assert slots_left == tier.concurrency - len(held)
