"""A sweep of idle subjects in the middle of a request that counts against several of them."""

import pytest

from machpay_gateway.core.limits.admission import AdmissionRequest, Admitted
from machpay_gateway.core.limits.plan import Part, plan_of
from machpay_gateway.core.limits.rate import Limits
from machpay_gateway.limiters.memory import MemoryLimiter
from tests.limiters.harness import redis_at

ONE = Limits.parse("1/minute", 1)
PLAN = plan_of((Part("key", ONE), Part("account", ONE), Part("owner", ONE)))
SWEEPS_AT = 1024  # subjects


def test_a_sweep_keeps_the_subjects_of_the_request_that_begins() -> None:
    for before in range(SWEEPS_AT - 3, SWEEPS_AT + 1):
        limiter = MemoryLimiter()
        for number in range(before):
            own = plan_of((Part("key", ONE),))
            admitted = limiter.admit(AdmissionRequest(f"key_{number}", 1, own, 0))
            assert isinstance(admitted, Admitted)
            admitted.lease.release()
        request = AdmissionRequest("key", 1, PLAN, 1, ("account", "owner"), "account")
        assert isinstance(limiter.admit(request), Admitted)
        for name in (request.subject, *request.others):
            spent = limiter.admit(AdmissionRequest(name, 1, plan_of((Part("key", ONE),)), 1))
            assert not isinstance(spent, Admitted), (before, name)


@pytest.mark.usefixtures("no_deadlines")
async def test_a_request_after_a_sweep_gives_its_slot_back_to_the_subjects_of_now(server_url: str) -> None:
    parts = Part("key", Limits.parse("99/minute", 9)), Part("account", Limits.parse(concurrency=1))
    request = AdmissionRequest("key_1", 1, plan_of(parts), 1, ("account:acct_1",), "acct_1")
    async with redis_at(server_url) as harness:
        for number in range(3):
            answer = await harness.answer(request)
            assert isinstance(answer, Admitted), number
            answer.lease.release()
            await harness.until_reported()
            if number == 0:
                del harness.limiter._subjects["account:acct_1"]  # type: ignore[attr-defined]  # noqa: SLF001 - as a sweep does


def test_a_charge_counts_although_its_subjects_were_swept_in_the_meantime() -> None:
    account = Part("account", Limits.parse("10/minute"))
    request = AdmissionRequest("key_1", 1, plan_of((Part("key", Limits.parse("99/minute")), account)), 0, ("account",))
    limiter = MemoryLimiter()
    first = limiter.admit(request)  # at no cost: nothing keeps its subjects
    assert isinstance(first, Admitted)
    for number in range(SWEEPS_AT):
        idle = limiter.admit(AdmissionRequest(f"idle_{number}", 1, plan_of((Part("key", ONE),)), 0))
        assert isinstance(idle, Admitted)
        idle.lease.release()
    assert len(limiter) < SWEEPS_AT, "it has swept"

    first.charge(4)

    after = limiter.admit(request)
    assert isinstance(after, Admitted)
    assert [left for _, left, _ in after.plan.levels(after.levels)] == [95, 6]
