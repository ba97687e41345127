"""What a subject has left can be looked at, on every limiter, and looking takes nothing."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from machpay_gateway.core.limits.admission import STALE, AdmissionRequest, Admitted, Remaining
from machpay_gateway.core.limits.rate import Tier
from tests.limiters.harness import Rig, memory, redis_at

FIVE = Tier("5/minute", 100)
TWO_SLOTS = Tier("100/minute", 2)


@pytest.fixture(params=["memory", "server", "cluster"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    opened = memory() if request.param == "memory" else redis_at(request.getfixturevalue(f"{request.param}_url"))
    async with opened as rig:
        yield rig


async def test_what_is_left_is_shown_without_taking_any(rig: Rig) -> None:
    assert await rig.left(FIVE) == (5, 100)
    await rig.take(FIVE, cost=2)
    rig.clock.advance(10)
    await rig.take(FIVE)
    for _ in range(10):
        assert await rig.left(FIVE) == (2, 98)
    standing = await rig.limiter.remaining(AdmissionRequest("key_1", 1, FIVE, 1))
    assert isinstance(standing, Remaining)
    assert standing.resets_in == pytest.approx(51)
    rig.clock.advance(51)
    assert await rig.left(FIVE) == (4, 98)


async def test_what_is_left_is_shown_where_nothing_is(rig: Rig) -> None:
    tier = Tier("2/minute", 2)
    await rig.take(tier)
    await rig.take(tier)
    await rig.refused(tier)
    assert await rig.left(tier) == (0, 0)
    assert await rig.left(Tier("1/minute", 1)) == (0, 0)  # a tier that was lowered meanwhile


async def test_showing_what_is_left_never_keeps_a_request_from_the_last_slot(rig: Rig) -> None:
    (await rig.take(TWO_SLOTS)).lease.release()
    await rig.take(TWO_SLOTS)
    shown_before, answer, shown_after = await asyncio.gather(
        asyncio.gather(*(rig.left(TWO_SLOTS) for _ in range(20))),
        rig.ask(TWO_SLOTS),
        asyncio.gather(*(rig.left(TWO_SLOTS) for _ in range(20))),
    )
    assert isinstance(answer, Admitted)
    assert {slots for _, slots in [*shown_before, *shown_after]} <= {0, 1}


async def test_what_is_left_is_not_shown_by_a_record_that_has_changed(rig: Rig) -> None:
    demand = AdmissionRequest("key_1", 1, FIVE, 1)
    await rig.limiter.invalidate("key_1", 2)
    assert await rig.limiter.remaining(demand) is STALE
    assert await rig.left(FIVE, version=2) == (5, 100)
    assert await rig.limiter.remaining(demand) is STALE
