"""What the memory limiter alone does: it answers without waiting, and drops idle subjects."""

from machpay_gateway.core.limits.admission import STALE, AdmissionRequest, Admitted
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.limiters.memory import MemoryLimiter
from tests.clocks import FixedClock
from tests.limiters.harness import Left

TIER = Tier("10/minute", 2)
MANY = 5000


def take(limiter: MemoryLimiter, subject: str, *, version: int = 1, cost: int = 1) -> Left:
    answer = limiter.admit(AdmissionRequest(subject, version, tier_plan(TIER), cost))
    assert isinstance(answer, Admitted)
    return Left(answer)


def pass_by(limiter: MemoryLimiter, clock: FixedClock, subjects: int = MANY) -> None:
    """Send one request of each of *subjects*, long after one another."""
    for number in range(subjects):
        clock.advance(100)
        take(limiter, f"passing_{number}").lease.release()


def test_idle_subjects_are_dropped() -> None:
    clock = FixedClock(0.0)
    limiter = MemoryLimiter(clock)
    pass_by(limiter, clock)
    assert len(limiter) <= 1024


def test_a_subject_that_holds_a_slot_is_kept() -> None:
    clock = FixedClock(0.0)
    limiter = MemoryLimiter(clock)
    take(limiter, "streaming")
    pass_by(limiter, clock)
    assert take(limiter, "streaming").slots_left == 0


def test_a_lease_that_outlives_its_window_releases_its_slot() -> None:
    clock = FixedClock(0.0)
    limiter = MemoryLimiter(clock)
    lease = take(limiter, "streaming").lease
    pass_by(limiter, clock)
    lease.release()
    assert take(limiter, "streaming").slots_left == 1


def test_a_subject_with_units_in_its_window_is_kept() -> None:
    clock = FixedClock(0.0)
    limiter = MemoryLimiter(clock)
    take(limiter, "busy", cost=4).lease.release()
    for number in range(MANY):
        take(limiter, f"passing_{number}", cost=0).lease.release()
    assert len(limiter) <= 1024
    assert take(limiter, "busy").left == 5


async def test_a_version_marker_lasts_as_long_as_an_older_decision_may_take() -> None:
    clock = FixedClock(0.0)
    limiter = MemoryLimiter(clock)
    await limiter.invalidate([("changed", 2, "")])
    for number in range(MANY):
        clock.advance(30 / MANY)
        take(limiter, f"passing_{number}", cost=0).lease.release()
    assert limiter.admit(AdmissionRequest("changed", 1, tier_plan(TIER), 1)) is STALE
    pass_by(limiter, clock)
    assert len(limiter) <= 1024


def test_many_busy_subjects_are_all_kept() -> None:
    clock = FixedClock(0.0)
    limiter = MemoryLimiter(clock)
    for number in range(MANY):
        take(limiter, f"busy_{number}", cost=10)
    assert len(limiter) == MANY
    assert all(
        not isinstance(limiter.admit(AdmissionRequest(f"busy_{number}", 1, tier_plan(TIER), 1)), Admitted)
        for number in range(MANY)
    )
