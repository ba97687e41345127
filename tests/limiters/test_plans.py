"""Several limits at once: windows, calendar quotas and slots, of a key and of what it shares with others.

Every limiter decides them as the reference counters do, all or nothing.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machpay_gateway.core.limits.admission import (
    STALE,
    AdmissionRequest,
    Admitted,
    Exceeded,
    Lease,
    LimiterUnavailable,
    Remaining,
)
from machpay_gateway.core.limits.calendar import DAY_SECONDS
from machpay_gateway.core.limits.counters import Counters
from machpay_gateway.core.limits.plan import Part, Plan, plan_of
from machpay_gateway.core.limits.rate import Limits
from tests.limiters.harness import START, Harness, OpenLimiter

pytestmark = pytest.mark.usefixtures("no_deadlines")


def key(*rates: str, concurrency: int | None = 50, quota: Sequence[str] = (), enforced: bool = True) -> Part:
    return Part("key", Limits.parse(rates, concurrency, quota), enforced)


def account(*rates: str, concurrency: int | None = None, quota: Sequence[str] = (), enforced: bool = True) -> Part:
    return Part("account", Limits.parse(rates, concurrency, quota), enforced)


def request(*parts: Part, subject: str = "key_1", cost: int = 1, version: int = 1) -> AdmissionRequest:
    """Return a request of a key of the one account, with *parts* as its plan."""
    others = tuple(f"{part.kind}:acct_1" for part in parts[1:])
    return AdmissionRequest(subject, version, plan_of(parts), cost, others, "acct_1")


async def admitted(harness: Harness, asked: AdmissionRequest) -> Admitted:
    answer = await harness.answer(asked)
    assert isinstance(answer, Admitted), answer
    return answer


async def refused(harness: Harness, asked: AdmissionRequest) -> Exceeded:
    answer = await harness.answer(asked)
    assert isinstance(answer, Exceeded), answer
    return answer


def left(answer: Admitted | Exceeded | Remaining) -> dict[str, int]:
    return {policy.name: max(0, units) for policy, units, _ in answer.plan.levels(answer.levels)}


async def test_a_burst_window_beside_the_minute(harness: Harness) -> None:
    asked = request(key("10/minute", "3/second"))
    for expected in (2, 1, 0):
        answer = await admitted(harness, asked)
        answer.lease.release()
        assert left(answer) == {"minute": 7 + expected, "second": expected, "concurrency": 49}
    refusal = await refused(harness, asked)
    assert refusal.policies == ("second",)
    assert refusal.wait_seconds == pytest.approx(13 / 12, abs=2e-3)  # the cell that holds them, and the second
    harness.clock.advance(1.1)
    assert left(await admitted(harness, asked))["second"] == 2


async def test_a_refusal_takes_nothing_of_any_limit_and_names_all_that_are_full(harness: Harness) -> None:
    asked = request(key("4/minute", "2/second"), account("3/minute"), cost=2)
    await admitted(harness, asked)
    for _ in range(3):
        refusal = await refused(harness, asked)
        assert refusal.policies == ("second", "account-minute")
        assert refusal.wait_seconds == pytest.approx(61, abs=2e-3)
        assert left(refusal) == {"minute": 2, "second": 0, "concurrency": 49, "account-minute": 1}
    harness.clock.advance(61)
    assert left(await admitted(harness, asked)) == {
        "minute": 2,
        "second": 0,
        "concurrency": 48,
        "account-minute": 1,
    }


async def test_a_refusal_names_no_limit_that_has_room_again(harness: Harness) -> None:
    asked = request(key("3/second", "3/minute"), account("9/minute", "3/20 seconds"))
    for _ in range(3):
        (await admitted(harness, asked)).lease.release()
    assert (await refused(harness, asked)).policies == ("second", "minute", "account-20-seconds")
    for passed, policies in ((1.1, ("minute", "account-20-seconds")), (20.0, ("minute",))):
        harness.clock.advance(passed)
        for _ in range(2):
            refusal = await refused(harness, asked)
            assert refusal.policies == policies
            assert refusal.wait_seconds == pytest.approx(START + 61 - harness.clock.now, abs=2e-3)


async def test_keys_of_an_account_share_its_window_and_its_slots(harness: Harness) -> None:
    parts = key("5/minute"), account("6/minute", concurrency=3)
    first, second = request(*parts), request(*parts, subject="key_2")
    leases = [(await admitted(harness, asked)).lease for asked in (first, second, first)]
    refusal = await refused(harness, second)
    assert refusal.policies == ("account-concurrency",)
    assert refusal.wait_seconds == 1.0
    leases.pop().release()
    leases.append((await admitted(harness, second)).lease)
    for lease in leases:
        lease.release()
    for asked in (first, second):
        (await admitted(harness, asked)).lease.release()
    refusal = await refused(harness, first)
    assert refusal.policies == ("account-minute",)
    assert left(refusal)["minute"] == 2  # of its own five it has taken three
    assert (await refused(harness, second)).policies == ("account-minute",)


async def test_another_key_of_a_spent_account_hears_what_is_left_to_itself(harness: Harness) -> None:
    parts = key("5/minute"), account("2/minute")
    for _ in range(2):
        (await admitted(harness, request(*parts))).lease.release()
    await refused(harness, request(*parts))
    assert left(await refused(harness, request(*parts, subject="key_2"))) == {
        "minute": 5,
        "concurrency": 50,
        "account-minute": 0,
    }
    harness.clock.advance(61)
    await admitted(harness, request(*parts, subject="key_2"))


async def test_equal_requests_of_one_moment_are_decided_one_by_one(harness: Harness) -> None:
    asked = request(key("9/minute", "4/second"), account("3/minute", concurrency=9))
    answers = await asyncio.gather(*(harness.answer(asked) for _ in range(5)))
    assert [left(answer)["account-minute"] for answer in answers if isinstance(answer, Admitted)] == [2, 1, 0]
    assert [left(answer)["account-concurrency"] for answer in answers if isinstance(answer, Admitted)] == [8, 7, 6]
    assert [answer.policies for answer in answers if isinstance(answer, Exceeded)] == [("account-minute",)] * 2


async def test_what_is_only_counted_names_its_policies_and_shows_what_is_left_of_them(harness: Harness) -> None:
    asked = request(key("9/minute"), account("5/minute", concurrency=4, enforced=False), cost=2)
    answers = await asyncio.gather(*(harness.answer(asked) for _ in range(4)))
    levels = [(left(answer)["minute"], left(answer)["account-minute"]) for answer in answers]  # type: ignore[arg-type]
    assert levels == [(7, 3), (5, 1), (3, 1), (1, 1)]
    violated = [answer.plan.violated(answer.levels, 2, enforced=False) for answer in answers]  # type: ignore[union-attr]
    assert [answer.is_shadow_limited for answer in answers] == [False, False, True, True]  # type: ignore[union-attr]
    assert violated[2:] == [("account-minute",)] * 2


async def test_keys_that_ask_at_one_moment_share_the_accounts_slots(harness: Harness) -> None:
    parts = key("99/minute"), account(concurrency=4)
    asked = [request(*parts, subject=f"key_{number % 5}") for number in range(20)]
    answers = await asyncio.gather(*map(harness.answer, asked))
    leases = [answer.lease for answer in answers if isinstance(answer, Admitted)]
    assert len(leases) == 4
    for lease in leases:
        lease.release()
    answers = await asyncio.gather(*map(harness.answer, asked))
    assert sum(isinstance(answer, Admitted) for answer in answers) == 4


async def test_what_is_left_is_read_without_taking_any(harness: Harness) -> None:
    asked = request(key("5/minute", quota=["9/day"]), account("6/minute"))
    await admitted(harness, asked)
    for _ in range(3):
        remaining = await harness.limiter.remaining(asked)
        assert isinstance(remaining, Remaining)
        assert left(remaining) == {"minute": 4, "day": 8, "concurrency": 49, "account-minute": 5}


async def test_a_stale_request_takes_nothing_of_the_account(harness: Harness) -> None:
    parts = key("5/minute"), account("2/minute")
    await admitted(harness, request(*parts, version=2))
    for _ in range(5):
        assert await harness.answer(request(*parts, version=1)) is STALE
    assert left(await admitted(harness, request(*parts, version=2)))["account-minute"] == 0


class TestQuotas:
    """Calendar days and months in UTC, that outlast what the limiter holds."""

    async def test_a_day_ends_at_midnight(self, harness: Harness) -> None:
        asked = request(key("9/minute", quota=["3/day"]))
        for _ in range(3):
            (await admitted(harness, asked)).lease.release()
        refusal = await refused(harness, asked)
        assert refusal.policies == ("day",)
        assert refusal.wait_seconds == pytest.approx(DAY_SECONDS - harness.clock.now, abs=2e-3)
        harness.clock.advance(DAY_SECONDS - harness.clock.now - 1)
        await refused(harness, asked)
        harness.clock.advance(1)
        assert left(await admitted(harness, asked))["day"] == 2

    async def test_a_month_has_the_days_of_the_calendar(self, harness: Harness) -> None:
        asked = request(key("9/minute", quota=["2/month"]))
        for days in (31, 28, 31, 30):  # from January 1970 on
            for _ in range(2):
                (await admitted(harness, asked)).lease.release()
            assert (await refused(harness, asked)).policies == ("month",)
            harness.clock.advance(days * DAY_SECONDS - 10)
            harness.clock.advance(10)

    async def test_the_count_goes_on_from_what_is_stored(self, harness: Harness) -> None:
        harness.stored.units["key_1", 0] = 7
        harness.stored.units["account:acct_1", 0] = 40
        asked = request(key("99/minute", quota=["9/day"]), account(quota=["50/month"]))
        assert left(await admitted(harness, asked)) == {
            "minute": 98,
            "day": 1,
            "concurrency": 49,
            "account-month": 9,
        }
        await admitted(harness, asked)
        assert (await refused(harness, asked)).policies == ("day",)

    async def test_only_the_days_of_the_period_count(self, harness: Harness) -> None:
        harness.clock.advance(45 * DAY_SECONDS)  # into February
        today = int(harness.clock.now // DAY_SECONDS)
        harness.stored.units.update({("key_1", 30): 500, ("key_1", 31): 4, ("key_1", today): 2})
        asked = request(key("99/minute", quota=["10/day", "20/month"]))
        assert left(await admitted(harness, asked)) == {"minute": 98, "day": 7, "month": 13, "concurrency": 49}

    async def test_what_is_admitted_is_stored(self, harness: Harness) -> None:
        asked = request(key("99/minute", quota=["9/day"]), account("99/minute", quota=["50/month"]), cost=2)
        lease = (await admitted(harness, asked)).lease
        lease.charge(3)
        await harness.limiter.close()
        assert dict(harness.stored.units) == {("key_1", 0): 5, ("account:acct_1", 0): 5}

    async def test_without_the_stored_count_nothing_is_admitted(self, harness: Harness) -> None:
        harness.stored.is_away = True
        asked = request(key("99/minute", quota=["9/day"]))
        assert isinstance(await harness.answer(asked), LimiterUnavailable)
        harness.stored.is_away = False
        assert left(await admitted(harness, asked))["day"] == 8

    async def test_requests_that_wait_for_the_stored_count_together_are_all_counted(self, harness: Harness) -> None:
        harness.stored.units["key_1", 0] = 5
        asked = request(key("99/minute", quota=["9/day"]))
        answers = await asyncio.gather(*(harness.answer(asked) for _ in range(8)))
        assert sum(isinstance(answer, Admitted) for answer in answers) == 4

    async def test_a_request_that_costs_nothing_stores_nothing(self, harness: Harness) -> None:
        await admitted(harness, request(key("9/minute", quota=["9/day"]), cost=0))
        await harness.limiter.close()
        assert list(harness.stored.units) == []


class TestCharges:
    """Units that are known only after the answer."""

    async def test_a_charge_overdraws_and_nothing_is_admitted_until_it_has_expired(self, harness: Harness) -> None:
        asked = request(key("5/minute", "5/hour"), account("9/minute"))
        answer = await admitted(harness, asked)
        harness.clock.advance(2)
        answer.lease.charge(7)
        answer.lease.release()
        refusal = await refused(harness, asked)
        assert refusal.policies == ("minute", "hour")
        assert left(refusal) == {"minute": 0, "hour": 0, "concurrency": 50, "account-minute": 1}
        harness.clock.advance(61)
        assert (await refused(harness, asked)).policies == ("hour",)

    async def test_a_charge_of_a_tier_with_one_window(self, harness: Harness) -> None:
        asked = request(key("10/minute"))
        answer = await admitted(harness, asked)
        answer.charge(4)
        assert left(await admitted(harness, asked))["minute"] == 4
        for wrong in (-1, 10**9 + 1, True, 1.5):
            with pytest.raises(ValueError, match="is not a number of units"):
                answer.charge(wrong)  # type: ignore[arg-type]

    async def test_a_charge_counts_by_the_newest_limits_while_a_tier_changes(self, harness: Harness) -> None:
        old = request(key("99/minute"), account("9/minute"))
        new = request(key("99/minute"), account("9/minute", quota=["20/month"]), subject="key_2")
        await admitted(harness, new)
        await admitted(harness, old)  # its record is read again a moment later
        (await admitted(harness, new)).lease.charge(5)
        assert left(await admitted(harness, new))["account-month"] == 20 - 2 - 5 - 1

    async def test_a_charge_takes_of_a_quota(self, harness: Harness) -> None:
        asked = request(key("99/minute", quota=["10/day"]))
        (await admitted(harness, asked)).charge(20)
        refusal = await refused(harness, asked)
        assert (refusal.policies, left(refusal)["day"]) == (("day",), 0)


class TestShadow:
    """Limits that count as enforced, and refuse nothing."""

    async def test_beyond_a_shadow_limit_requests_are_admitted_and_marked(self, harness: Harness) -> None:
        asked = request(key("2/minute", concurrency=9, enforced=False))
        answers = [await admitted(harness, asked) for _ in range(4)]
        assert [answer.is_shadow_limited for answer in answers] == [False, False, True, True]
        harness.clock.advance(61)
        assert not (await admitted(harness, asked)).is_shadow_limited

    async def test_it_takes_what_it_would_if_it_were_enforced(self, harness: Harness) -> None:
        asked = request(key("9/minute"), account("2/minute", concurrency=1, enforced=False))
        first = await admitted(harness, asked)
        second = await admitted(harness, asked)  # no slot: marked, and nothing of the account is taken
        assert (first.is_shadow_limited, second.is_shadow_limited) == (False, True)
        second.lease.release()
        first.lease.release()
        assert not (await admitted(harness, asked)).is_shadow_limited
        remaining = await harness.limiter.remaining(asked)
        assert isinstance(remaining, Remaining)
        assert left(remaining) == {
            "minute": 6,
            "concurrency": 49,
            "account-minute": 0,
            "account-concurrency": 0,
        }

    async def test_an_enforced_limit_refuses_beside_it(self, harness: Harness) -> None:
        asked = request(key("1/minute"), account("9/minute", enforced=False))
        await admitted(harness, asked)
        assert (await refused(harness, asked)).policies == ("minute",)
        assert asked.plan.header(plan_levels(asked.plan)) == b'"minute";r=1;t=1, "concurrency";r=50'

    async def test_requests_of_one_moment_are_marked_from_the_first_beyond_it_on(self, harness: Harness) -> None:
        asked = request(key("9/minute"), account("2/minute", enforced=False))
        answers = await asyncio.gather(*(harness.answer(asked) for _ in range(4)))
        marks = [answer.is_shadow_limited for answer in answers if isinstance(answer, Admitted)]
        assert marks == [False, False, True, True]


def plan_levels(plan: Plan) -> tuple[float, ...]:
    return tuple(
        level
        for policy in plan.policies
        for level in ([policy.limit] if policy.is_concurrency else [policy.limit, 0.0])
    )


PLANS = (
    (key("6/minute", "3/second", concurrency=3), account("8/minute", concurrency=4)),
    (key("6/minute", concurrency=3), account("8/minute", concurrency=4)),
    (key("4/minute", "9/hour", concurrency=2, quota=["12/day"]), account("5/minute", quota=["20/month"])),
    (key("3/30 seconds", concurrency=2),),
    (key("6/minute", concurrency=3), account("3/minute", concurrency=2, enforced=False)),
)


@dataclass(frozen=True)
class Move:
    """What happens next: time passes, a slot is given back, a key asks, or is charged."""

    wait: float
    number: int
    cost: int
    plan: int
    release: bool
    charge: int


MOVES = st.lists(
    st.builds(
        Move,
        st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0, 10.0, 61.0, 3600.0, 86_400.0]),
        st.integers(0, 1),
        st.integers(0, 3),
        st.sampled_from([0, 0, 0, 1, 2, 3, 4]),
        st.booleans(),
        st.sampled_from([0, 0, 0, 0, 2, 9]),
    ),
    max_size=20,
)


@dataclass
class Reference:
    """The reference counters of every subject, and how to decide by them."""

    subjects: dict[str, Counters] = field(default_factory=dict)

    def decide(self, asked: AdmissionRequest, now: float) -> tuple[tuple[str, ...], bool, Sequence[str]]:
        """Return the violated policies, whether shadow limits are full, and the subjects that count the request."""
        subjects = [self.subject(name, part, now) for name, part in zip(names(asked), asked.plan.parts, strict=True)]
        for subject in subjects:
            subject.advance(now, now)
        full = [not subject.has_room(now, asked.cost) for subject in subjects]
        pairs = list(zip(names(asked), asked.plan.parts, full, strict=True))
        if any(is_full for _, part, is_full in pairs if part.enforced):
            levels = tuple(level for subject in subjects for level in subject.levels(now, now))
            return asked.plan.violated(levels, asked.cost), False, ()
        is_shadow_limited = any(full)
        counted = [name for name, part, _ in pairs if part.enforced or not is_shadow_limited]
        for name in counted:
            self.subjects[name].take(now, now, asked.cost)
            self.subjects[name].in_flight += self.subjects[name].limits.concurrency is not None
        return (), is_shadow_limited, counted

    def would_change(self, asked: AdmissionRequest) -> bool:
        """Tell whether *asked* has other limits than its subjects had before."""
        pairs = zip(names(asked), asked.plan.parts, strict=True)
        return any(name in self.subjects and self.subjects[name].limits is not part.limits for name, part in pairs)

    def subject(self, name: str, part: Part, now: float) -> Counters:
        subject = self.subjects.setdefault(name, Counters(part.limits, now, now))
        if subject.limits is not part.limits:
            subject.change(part.limits, now, now)
        return subject


@pytest.fixture
def asked_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no worker refuse by itself, by what it knew a second ago."""
    monkeypatch.setattr("machpay_gateway.limiters.redis.subject._RECHECK_SECONDS", -1.0)


def names(asked: AdmissionRequest) -> Sequence[str]:
    return asked.subject, *asked.others


@pytest.mark.usefixtures("asked_every_time")
@given(moves=MOVES)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_history_is_decided_as_by_the_reference_counters(open_limiter: OpenLimiter, moves: list[Move]) -> None:
    asyncio.run(_compare(open_limiter, moves))


async def _compare(open_limiter: OpenLimiter, moves: list[Move]) -> None:
    async with open_limiter() as harness:
        reference = Reference()
        held: list[tuple[Lease, Sequence[str], Sequence[str]]] = []
        for move in moves:
            await harness.until_reported()
            harness.clock.advance(move.wait)
            now = harness.clock.now
            if move.release and held:
                lease, _, holding = held.pop()
                lease.release()
                for name in holding:
                    reference.subjects[name].in_flight -= 1
            asked = request(*PLANS[move.plan], subject=f"key_{move.number}", cost=move.cost)
            # Units that are charged at the very moment of a tier change are counted by the new limits alone.
            if move.charge and held and not reference.would_change(asked):
                lease, counted, _ = held[-1]
                lease.charge(move.charge)
                for name in counted:
                    reference.subjects[name].take(now, now, move.charge)
            policies, is_shadow_limited, counted = reference.decide(asked, now)
            answer = await harness.answer(asked)
            if isinstance(answer, Admitted):
                holding = [name for name in counted if reference.subjects[name].limits.concurrency is not None]
                held.append((answer.lease, counted, holding))
                assert answer.is_shadow_limited is is_shadow_limited
                assert not policies
            else:
                assert isinstance(answer, Exceeded)
                assert answer.policies == policies
            levels = [level for name in names(asked) for level in reference.subjects[name].levels(now, now)]
            assert answer.levels == pytest.approx(levels, abs=2e-3)
