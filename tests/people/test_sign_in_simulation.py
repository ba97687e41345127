"""Six hours of attack on one e-mail, on a clock that is set: who gets in, who is refused, and how much is tried."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from machpay_gateway.core.oauth.device import device_cookie, device_of
from machpay_gateway.core.oauth.user import User
from machpay_gateway.limiters.memory import MemoryLimiter
from machpay_gateway.people.budgets import Attempt, Budgets
from tests.clocks import FixedClock

EMAIL, HOUR = "ada@example.org", 3600
ADA = User("user_ada", "acct_1", EMAIL, 0.0, password="$argon2id$the hash")  # noqa: S106 - none
OWNER = -1  # before any block, when they try at the same moment
STEP = 5  # seconds between looks at who is due
# A block that has no tries left gets none: asking on would only make the test slow.
TRIES, PAUSE = 6, HOUR + 60


@dataclass
class Attack:
    """What came of it: moments at which attackers got a try, and at which the owner was refused, by browser."""

    tried_at: list[float] = field(default_factory=list)
    refused_at: dict[str, list[float]] = field(default_factory=lambda: {"known": [], "home": [], "away": [], "new": []})

    def most_in_an_hour(self, moments: list[float]) -> int:
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


async def attacked(attack: Iterator[tuple[float, int]], *, owner_from: float) -> Attack:
    """Carry out the *attack* while the owner tries every ten minutes, *owner_from* seconds after its start.

    The owner has a known browser, and new ones: at home, which is a familiar block; in one unfamiliar block, and in
    another unfamiliar block each time.
    """
    clock, found = FixedClock(), Attack()
    start, budgets = clock.now, Budgets(MemoryLimiter(clock))
    owners = ((owner_from + 600 * turn, OWNER) for turn in range(36))
    device = device_of(device_cookie(ADA, bytes(16), start), ADA, start)
    for after, block in heapq.merge(attack, owners):
        if after >= 6 * HOUR:
            break
        clock.now = start + after
        if block != OWNER:
            if await budgets.wait_seconds(Attempt(EMAIL, f"hostile {block}")) is None:
                found.tried_at.append(after)
            continue
        tries = {
            "known": Attempt(EMAIL, "hostile 0", device),  # even from a hostile block
            "home": Attempt(EMAIL, "home", is_familiar=True),
            "away": Attempt(EMAIL, "away"),
            "new": Attempt(EMAIL, f"new {after}"),
        }
        for name, attempt in tries.items():
            if await budgets.wait_seconds(attempt) is not None:
                found.refused_at[name].append(after)
    return found


@pytest.mark.parametrize("owner_from", [60, 300, 590])
@pytest.mark.parametrize("blocks", [1, 3, 1000])
async def test_x(blocks: int, owner_from: float) -> None:
    for attack in (fast, slow):
        found = await attacked(attack(blocks), owner_from=owner_from)
        figures = {name: found.most_in_an_hour(moments) for name, moments in found.refused_at.items()}
        print(f"{attack.__name__} {blocks} {owner_from}: tries {found.most_in_an_hour(found.tried_at)}/hour, refused/hour {figures}")
