"""The promise of a window on the real clock: bursts over two minutes, and an independent reading of what got in."""

import asyncio
import time
from collections.abc import Awaitable

import pytest

from machpay_gateway.core.limits.admission import AdmissionRequest, Admitted, Exceeded
from machpay_gateway.core.limits.plan import Part, plan_of
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.limiters.memory import MemoryLimiter
from tests.drills.tiers import Shape, alone, tightest_of_four

TIER = TIERS["test"]
SECONDS = 130


@pytest.mark.drill
@pytest.mark.timeout(SECONDS + 30)
async def test_no_sixty_seconds_hold_more_than_the_limit_and_nobody_waits_longer_than_told() -> None:
    await asyncio.gather(*map(_drill, (alone, tightest_of_four)))


async def _drill(shape: Shape) -> None:
    limiter, request, admitted, due = MemoryLimiter(), _request(shape), list[float](), 0.0
    ends_at = time.monotonic() + SECONDS
    while (now := time.monotonic()) < ends_at:
        answer = limiter.admit(request)
        if isinstance(answer, Awaitable):
            answer = await answer
        if isinstance(answer, Admitted):
            admitted.append(now)
            answer.lease.release()
        else:
            assert isinstance(answer, Exceeded)
            assert not due or now < due + 0.1, "told to wait, and refused again after that"
            due = now + answer.wait_seconds
            await asyncio.sleep(min(answer.wait_seconds, 0.5))
            due = due if time.monotonic() >= due else 0.0
    worst = max(sum(start <= moment < start + 60 for moment in admitted) for start in admitted)
    print(
        f"{shape.__name__}: {len(admitted)} admitted in {SECONDS} s, "
        f"at most {worst} within any 60 s (limit {TIER.limit})"
    )
    assert worst <= TIER.limit
    assert len(admitted) >= 3 * TIER.limit  # at 0, 61 and 122 s


def _request(shape: Shape) -> AdmissionRequest:
    tier = shape(TIER)
    if tier.account_limits is None:
        return AdmissionRequest("subject", 1, plan_of((Part("key", tier.limits),)), 1)
    plan = plan_of((Part("key", tier.limits), Part("account", tier.account_limits)))
    return AdmissionRequest("subject", 1, plan, 1, ("account",), "account")
