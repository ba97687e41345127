"""How long the keys of a server last, and what its own clock does to them: a lost key is a whole limit once more."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from secrets import token_hex

import pytest
from redis import Redis

from machpay_gateway.core.limits.admission import STALE
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.core.limits.window import cells_of
from machpay_gateway.limiters.redis import RedisLimiter
from machpay_gateway.limiters.redis.version_markers import MARKER_SECONDS
from tests.clocks import FixedClock
from tests.limiters.harness import START, Harness, ScriptsAt, subject_keys

pytestmark = pytest.mark.usefixtures("no_deadlines")
FIVE = Tier("5/minute", 100)


@dataclass(frozen=True)
class KeyHarness(Harness):
    """A limiter of one subject, on a server that can be asked for that subject's key."""

    url: str = ""
    prefix: str = ""

    def ttl(self) -> int:
        """Return the seconds until the server drops the key of the only subject."""
        (key,) = subject_keys(self.url, self.prefix)
        with Redis.from_url(self.url) as server:
            return int(server.ttl(key))

    def lose_key(self) -> None:
        """Delete the key of the only subject, as a server does that evicts it or restarts empty."""
        (key,) = subject_keys(self.url, self.prefix)
        with Redis.from_url(self.url) as server:
            server.delete(key)


@pytest.fixture
async def harness(server_url: str) -> AsyncIterator[KeyHarness]:
    clock, prefix = FixedClock(START), f"test{token_hex(4)}"
    limiter = RedisLimiter(server_url, prefix=prefix, clock=clock, scripts=ScriptsAt(clock))
    await limiter.open()
    try:
        yield KeyHarness(limiter, clock, url=server_url, prefix=prefix)
    finally:
        await limiter.close()


@pytest.mark.parametrize("rate", ["5/second", "5/minute", "5/hour", "5/day"])
async def test_a_key_outlives_its_window(harness: KeyHarness, rate: str) -> None:
    tier = Tier(rate, 100)
    window_seconds = tier.limits.rates[0].window_seconds
    cell_seconds = window_seconds / cells_of(window_seconds)
    await harness.take(tier)
    assert harness.ttl() >= window_seconds + cell_seconds
    harness.clock.advance(cell_seconds)  # into the next cell, whose units last longer
    await harness.take(tier)
    assert harness.ttl() >= window_seconds + cell_seconds


@pytest.mark.parametrize("is_known", [False, True])
async def test_an_admission_does_not_shorten_the_life_of_a_version_marker(
    harness: KeyHarness, *, is_known: bool
) -> None:
    if is_known:
        await harness.take(FIVE, version=1)
        harness.clock.advance(1)
    await harness.invalidate(2)
    assert harness.ttl() > MARKER_SECONDS - 10
    await harness.take(FIVE, version=2)
    assert harness.ttl() > MARKER_SECONDS - 10
    assert await harness.admit(FIVE, version=1) is STALE


async def test_a_version_marker_does_not_shorten_the_life_of_a_long_window(harness: KeyHarness) -> None:
    await harness.take(Tier("5/day", 100))
    before = harness.ttl()
    await harness.invalidate(2)
    assert harness.ttl() > before - 10


async def test_a_stale_request_does_not_shorten_the_life_of_a_version_marker(harness: KeyHarness) -> None:
    await harness.invalidate(2)
    assert await harness.admit(FIVE, version=1) is STALE
    assert harness.ttl() > MARKER_SECONDS - 10


async def test_after_a_clock_step_back_of_more_than_a_window_units_count_from_there(harness: KeyHarness) -> None:
    await harness.take(FIVE, cost=2)
    harness.clock.advance(20)
    await harness.take(FIVE)
    harness.clock.advance(-3600)
    assert (await harness.take(FIVE)).left == 1
    harness.clock.advance(60)
    assert (await harness.take(FIVE)).left == 0
    harness.clock.advance(1)
    assert (await harness.take(FIVE)).left == 3  # all but the last one have expired


async def test_a_clock_step_back_within_the_window_frees_nothing_and_stands_still(harness: KeyHarness) -> None:
    await harness.take(FIVE, cost=2)
    harness.clock.advance(20)
    await harness.take(FIVE)
    harness.clock.advance(-50)
    assert (await harness.take(FIVE)).left == 1
    harness.clock.advance(90)  # 40 s after the newest cell
    assert (await harness.take(FIVE, cost=0)).left == 1
    harness.clock.advance(1)
    assert (await harness.take(FIVE)).left == 2  # the first two have expired


async def test_an_exhausted_window_is_asked_for_again_after_a_moment_and_not_before(harness: KeyHarness) -> None:
    await harness.take(FIVE, cost=5)
    await harness.refusal(FIVE)
    batches = harness.limiter.batches.copy()  # type: ignore[attr-defined]  # a Counter, in this limiter
    harness.lose_key()
    harness.clock.advance(1.4)
    for _ in range(50):
        await harness.refusal(FIVE)
    assert harness.limiter.batches == batches
    harness.clock.advance(0.1)
    await harness.take(FIVE)
