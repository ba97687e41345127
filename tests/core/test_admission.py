"""Slots of callers that are canceled while they wait for their admission."""

import asyncio
from dataclasses import dataclass

import pytest

from machpay_gateway.core.limits.admission import (
    STALE,
    Admitted,
    Answer,
    LimiterUnavailable,
    abandon,
    take_and_release,
)
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.limits.rate import Tier

TIER = Tier("5/minute", 3)
REFUSALS: list[Answer] = [STALE, LimiterUnavailable("no reply")]


@dataclass
class Slot:
    """Counts its releases."""

    releases: int = 0

    def release(self) -> None:
        self.releases += 1

    def charge(self, units: int) -> None:
        raise AssertionError(units)


def admitted_to(slot: Slot) -> Admitted:
    return Admitted(slot, (4, 61.0, 2), tier_plan(TIER))


@pytest.mark.parametrize("is_pending", [False, True])
async def test_an_admission_that_is_only_counted_releases_its_slot_once(*, is_pending: bool) -> None:
    slot = Slot()
    answer = admitted_to(slot)
    pending: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    pending.set_result(answer)
    assert await take_and_release(pending if is_pending else answer) is answer
    assert slot.releases == 1


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_refusal_is_returned_as_it_is(refusal: Answer) -> None:
    assert await take_and_release(refusal) is refusal


async def test_a_caller_canceled_in_the_turn_of_its_answer_releases_the_slot() -> None:
    slot = Slot()
    pending: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    caller = asyncio.create_task(take_and_release(pending))
    await asyncio.sleep(0)
    pending.set_result(admitted_to(slot))
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert slot.releases == 1


async def test_a_caller_canceled_before_its_answer_cancels_the_admission() -> None:
    pending: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    caller = asyncio.create_task(take_and_release(pending))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert pending.cancelled()


async def test_abandoning_an_admission_without_an_answer_releases_nothing() -> None:
    slot = Slot()
    pending: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    abandon(pending)
    pending.set_result(admitted_to(slot))
    assert slot.releases == 0
    abandon(pending)
    assert slot.releases == 1
