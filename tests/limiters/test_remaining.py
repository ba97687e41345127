"""Every limiter reports what a subject has left, and takes nothing to find out."""

import asyncio

import pytest

from machpay_gateway.core.limits.admission import STALE, Admitted, Remaining
from machpay_gateway.core.limits.rate import Tier
from tests.limiters.harness import Harness

pytestmark = pytest.mark.usefixtures("no_deadlines")
FIVE = Tier("5/minute", 100)
TWO_SLOTS = Tier("100/minute", 2)


async def test_the_remaining_quota_is_reported_without_taking_any(harness: Harness) -> None:
    assert await harness.left(FIVE) == (5, 100)
    await harness.take(FIVE, cost=2)
    harness.clock.advance(10)
    await harness.take(FIVE)
    for _ in range(10):
        assert await harness.left(FIVE) == (2, 98)
    remaining = await harness.remaining(FIVE)
    assert isinstance(remaining, Remaining)
    assert remaining.levels[1] == pytest.approx(51)
    harness.clock.advance(51)
    assert await harness.left(FIVE) == (4, 98)


async def test_an_exhausted_quota_is_reported_as_0_and_never_below(harness: Harness) -> None:
    tier = Tier("3/minute", 2)
    await harness.take(tier)
    await harness.take(tier)
    await harness.refusal(tier)
    assert await harness.left(tier) == (1, 0)
    assert await harness.left(Tier("2/minute", 3)) == (0, 1)
    assert await harness.left(Tier("1/minute", 1)) == (0, 0)  # a tier that was lowered since


async def test_reading_the_remaining_quota_takes_no_slot_even_for_a_moment(harness: Harness) -> None:
    (await harness.take(TWO_SLOTS)).lease.release()
    await harness.take(TWO_SLOTS)
    before, answer, after = await asyncio.gather(
        asyncio.gather(*(harness.left(TWO_SLOTS) for _ in range(20))),
        harness.admit(TWO_SLOTS),
        asyncio.gather(*(harness.left(TWO_SLOTS) for _ in range(20))),
    )
    assert isinstance(answer, Admitted)
    assert {slots for _, slots in [*before, *after]} <= {0, 1}


async def test_a_changed_record_is_stale_and_is_not_reported(harness: Harness) -> None:
    await harness.invalidate(2)
    assert await harness.remaining(FIVE) is STALE
    assert await harness.left(FIVE, version=2) == (5, 100)
    assert await harness.remaining(FIVE) is STALE
