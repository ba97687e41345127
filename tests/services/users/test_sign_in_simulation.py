"""Six hours of attack on one e-mail, on a clock that is set: who gets in, who is refused, and how much is tried."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from machpay_gateway.core.accounts.device import device_cookie, device_of
from machpay_gateway.core.accounts.user import User
from machpay_gateway.limiters.memory import MemoryLimiter
from machpay_gateway.services.sign_in_limits import SignInAttempt, SignInLimits
from tests.clocks import FixedClock

EMAIL, HOUR = "ada@example.org", 3600
ADA = User("user_ada", "acct_1", EMAIL, 0.0, password="$argon2id$the hash")
OWNER = -1  # before any block, when they try at the same moment
STEP = 5  # seconds between looks at who is due
# A block that has no tries left gets none: asking on would only make the test slow.
TRIES, PAUSE = 6, HOUR + 60


@dataclass
class Outcome:
    """Moments at which attackers got a try, and at which the owner was refused."""

    tried_at: list[float] = field(default_factory=list)
    refused_at: list[float] = field(default_factory=list)


def most_in_an_hour(moments: list[float]) -> int:
    """Return the most of *moments* in any hour."""
    return max((sum(1 for at in moments if start <= at < start + HOUR) for start in moments), default=0)


def fast(blocks: int) -> Iterator[tuple[float, int]]:
    """Yield when which block tries, from the start: all of them all that they have, as soon as they have it."""
    for turn in range(6 * HOUR // PAUSE + 1):
        for number in range(TRIES):
            yield from ((turn * PAUSE + number * STEP, block) for block in range(blocks))


def slow(blocks: int) -> Iterator[tuple[float, int]]:
    """Yield the same of attackers who know the rules: each block tries twice an hour, one block after another."""
    yield from ((number * HOUR / 2 / blocks, number % blocks) for number in range(12 * blocks))


async def attacked(attack: Iterator[tuple[float, int]], browser: str, *, owner_from: float) -> Outcome:
    """Carry out the *attack* while the owner signs in every ten minutes, *owner_from* seconds after its start."""
    clock, outcome = FixedClock(), Outcome()
    start, budgets = clock.now, SignInLimits(MemoryLimiter(clock))
    device = device_of(device_cookie(ADA, bytes(16), start), ADA, start)
    is_familiar = browser == "home"
    owner = ((owner_from + 600 * turn, OWNER) for turn in range(36))
    for after, block in heapq.merge(attack, owner):
        if after >= 6 * HOUR:
            break
        clock.now = start + after
        if block != OWNER:
            if await budgets.wait_seconds(SignInAttempt(EMAIL, f"hostile {block}")) is None:
                outcome.tried_at.append(after)
            continue
        attempt = {
            "known": SignInAttempt(EMAIL, "hostile 0", device),  # even from a hostile block
            "home": SignInAttempt(EMAIL, "home", is_familiar=True),
            "away": SignInAttempt(EMAIL, "away", is_familiar=is_familiar),
            "new": SignInAttempt(EMAIL, f"new {after}"),
        }[browser]
        if await budgets.wait_seconds(attempt) is not None:
            outcome.refused_at.append(after)
        else:
            is_familiar = True  # the password was right
    return outcome


# A new browser each time: in a block that the user has signed in from, in one that they come to for the first time and
# then stay in, and in another such block each time.
BROWSERS = ("known", "home", "away", "new")


@pytest.mark.parametrize("browser", BROWSERS)
@pytest.mark.parametrize("blocks", [1, 3, 1000])
async def test_the_owner_gets_in_while_attackers_are_as_fast_as_they_can(blocks: int, browser: str) -> None:
    for owner_from in (60, 300, 590):
        outcome = await attacked(fast(blocks), browser, owner_from=owner_from)
        assert most_in_an_hour(outcome.refused_at) <= (0 if browser == "known" else 1)
        assert most_in_an_hour(outcome.tried_at) <= 20


@pytest.mark.parametrize("browser, refused", [("known", 0), ("home", 0), ("away", 36), ("new", 6)], ids=str)
async def test_patient_attackers_keep_out_only_who_comes_from_where_the_user_never_was(
    browser: str, refused: int
) -> None:
    outcome = await attacked(slow(1000), browser, owner_from=300)
    assert len(outcome.refused_at) == refused  # as docs/console.md says, with the way out
    assert most_in_an_hour(outcome.tried_at) <= 20
    for blocks in (1, 3):
        assert (await attacked(slow(blocks), browser, owner_from=300)).refused_at == []


async def test_tries_from_familiar_and_unfamiliar_blocks_are_at_most_20_an_hour_in_all() -> None:
    clock = FixedClock()
    budgets = SignInLimits(MemoryLimiter(clock))
    tried_at = []
    for turn in range(2 * HOUR):
        clock.advance(1)
        tries = (SignInAttempt(EMAIL, f"{turn}"), SignInAttempt(EMAIL, f"home {turn}", is_familiar=True))
        tried_at += [clock.now for attempt in tries if await budgets.wait_seconds(attempt) is None]
    assert 14 < most_in_an_hour(tried_at) <= 20


async def test_refused_tries_of_made_up_e_mails_store_nothing_of_their_own() -> None:
    limiter = MemoryLimiter(FixedClock())
    budgets = SignInLimits(limiter)
    for number in range(5000):
        await budgets.wait_seconds(SignInAttempt(f"{number}@example.org", "one block"))
    assert len(limiter) <= 1 + 60 * 2


async def test_a_device_that_fails_too_often_is_a_stranger() -> None:
    budgets = SignInLimits(MemoryLimiter(FixedClock()))
    for number in range(100):
        await budgets.wait_seconds(SignInAttempt(EMAIL, f"{number}"))
    waits = [await budgets.wait_seconds(SignInAttempt(EMAIL, "home", "nonce")) for _ in range(11)]
    assert [wait is None for wait in waits] == [True] * 10 + [False]
