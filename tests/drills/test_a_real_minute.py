"""The promise of a window on the real clock: bursts over two minutes, and an independent reading of what got in."""

import time

import pytest

from machpay_gateway.core.limits.admission import AdmissionRequest, Admitted, Exceeded
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.limiters.memory import MemoryLimiter

TIER = TIERS["test"]
PLAN = tier_plan(TIER)
SECONDS = 130


@pytest.mark.drill
@pytest.mark.timeout(SECONDS + 30)
def test_no_sixty_seconds_hold_more_than_the_limit_and_nobody_waits_longer_than_told() -> None:
    limiter, admitted, due = MemoryLimiter(), [], 0.0
    ends_at = time.monotonic() + SECONDS
    while (now := time.monotonic()) < ends_at:
        answer = limiter.admit(AdmissionRequest("subject", 1, PLAN, 1))
        if isinstance(answer, Admitted):
            admitted.append(now)
            answer.lease.release()
        else:
            assert isinstance(answer, Exceeded)
            assert not due or now < due + 0.1, "told to wait, and refused again after that"
            due = now + answer.wait_seconds
            time.sleep(min(answer.wait_seconds, 0.5))
            due = due if time.monotonic() >= due else 0.0
    worst = max(sum(start <= moment < start + 60 for moment in admitted) for start in admitted)
    print(f"{len(admitted)} admitted in {SECONDS} s, at most {worst} within any 60 s (limit {TIER.limit})")
    assert worst <= TIER.limit
    assert len(admitted) >= 3 * TIER.limit  # at 0, 61 and 122 s
