"""What is known of grants: no question while nothing changed, a second when something did, five when nobody answers."""

import asyncio
from dataclasses import replace

import pytest

from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.oauth.grant import Grant
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.stores.grant_cache import GrantCache
from tests.clocks import FixedClock

START, LIFE = 1_700_000_000.0, 3660.0
GRANT = Grant("grant_1", "app_1", "user_1", "acct_1", "live", "standard", Scopes(), START)


class FakeGrants:
    """Grants, and how often each thing is asked of them."""

    def __init__(self, clock: FixedClock) -> None:
        self.clock = clock
        self.grants: dict[str, tuple[Grant, float]] = {}
        self.loads = self.syncs = 0
        self.asked_since: list[float] = []
        self.is_away = False
        self.is_asked, self.on_the_way = asyncio.Event(), asyncio.Event()
        self.on_the_way.set()

    def put(self, grant: Grant) -> None:
        self.grants[grant.id] = grant, self.clock()

    async def grant(self, grant_id: str, now: float) -> Grant | None:
        assert now == self.clock()
        self.loads += 1
        self._answer()
        grant = self.grants[grant_id][0] if grant_id in self.grants else None
        self.is_asked.set()
        await self.on_the_way.wait()
        return grant

    async def grant_versions_since(self, since: float) -> list[tuple[str, int]]:
        self.syncs += 1
        self.asked_since.append(since)
        self._answer()
        return [(grant.id, grant.version) for grant, at in self.grants.values() if at >= since]

    def _answer(self) -> None:
        if self.is_away:
            raise StoreUnavailable("grants")


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(START)


@pytest.fixture
def store(clock: FixedClock) -> FakeGrants:
    return FakeGrants(clock)


@pytest.fixture
def watch(store: FakeGrants, clock: FixedClock) -> GrantCache:
    return GrantCache(store, life_seconds=LIFE, clock=clock)


async def test_the_first_question_goes_back_as_far_as_a_token_lives(watch: GrantCache, store: FakeGrants) -> None:
    assert not watch.is_current("grant_1", 1, START)
    assert await watch.changed("grant_1", 1) is None
    assert store.asked_since == [START - LIFE - 60]
    assert watch.is_current("grant_1", 1, START)
    assert store.loads == 0


async def test_no_token_costs_a_question_while_nothing_changed(watch: GrantCache, store: FakeGrants) -> None:
    await watch.changed("grant_1", 1)
    for number in range(1000):
        assert await watch.changed(f"grant_{number}", 1) is None
        assert watch.is_current(f"grant_{number}", 1, START)
    assert (store.syncs, store.loads) == (1, 0)


async def test_a_change_that_is_announced_here_holds_at_once(watch: GrantCache, store: FakeGrants) -> None:
    await watch.changed("grant_1", 1)
    store.put(replace(GRANT, version=2, is_alive=False))
    watch.note("grant_1", 2)
    assert not watch.is_current("grant_1", 1, START)
    changed = await watch.changed("grant_1", 1)
    assert isinstance(changed, Grant)
    assert not changed.is_alive
    for _ in range(10):
        await watch.changed("grant_1", 1)
    assert store.loads == 1  # and is loaded once


@pytest.mark.parametrize("doubted", [False, True])
async def test_an_answer_that_was_on_its_way_before_a_change_is_not_for_who_comes_after(
    watch: GrantCache, store: FakeGrants, *, doubted: bool
) -> None:
    await watch.changed("grant_1", 1)
    store.put(replace(GRANT, version=2))
    watch.note("grant_1", 2)
    store.on_the_way.clear()
    early = asyncio.create_task(watch.changed("grant_1", 1))
    await store.is_asked.wait()
    store.put(replace(GRANT, version=3, is_alive=False))
    if doubted:
        watch.forget("grant_1")
    else:
        watch.note("grant_1", 3)
    late = asyncio.create_task(watch.changed("grant_1", 1))
    await asyncio.sleep(0)
    store.on_the_way.set()
    changed = await late
    assert isinstance(changed, Grant)
    assert (changed.version, changed.is_alive, store.loads) == (3, False, 2)
    await early


async def test_a_change_elsewhere_holds_within_a_second(
    watch: GrantCache, store: FakeGrants, clock: FixedClock
) -> None:
    await watch.changed("grant_1", 1)
    store.put(replace(GRANT, version=2))
    clock.now += 1.01
    assert not watch.is_current("grant_1", 1, clock())
    changed = await watch.changed("grant_1", 1)
    assert isinstance(changed, Grant)
    assert changed.version == 2
    assert watch.is_current("grant_1", 2, clock())


async def test_what_is_doubted_is_loaded_whatever_version_is_known(watch: GrantCache, store: FakeGrants) -> None:
    store.put(GRANT)
    await watch.changed("grant_1", 1)
    loads = store.loads
    watch.forget("grant_1")  # the limiter knows of a later version than this
    assert not watch.is_current("grant_1", 1, START)
    store.put(replace(GRANT, version=7, is_alive=False))
    changed = await watch.changed("grant_1", 1)
    assert isinstance(changed, Grant)
    assert (changed.version, store.loads) == (7, loads + 1)


async def test_a_grant_that_is_gone_is_told_so(watch: GrantCache) -> None:
    watch.note("grant_1", 2)
    assert await watch.changed("grant_1", 1) == "the grant is gone"


async def test_a_store_that_is_away_is_gone_by_for_five_seconds(
    watch: GrantCache, store: FakeGrants, clock: FixedClock
) -> None:
    await watch.changed("grant_1", 1)
    store.is_away = True
    clock.now += 4.9
    assert await watch.changed("grant_1", 1) is None
    clock.now += 0.2
    with pytest.raises(StoreUnavailable):
        await watch.changed("grant_1", 1)
    store.is_away = False
    assert await watch.changed("grant_1", 1) is None


async def test_a_clock_that_steps_back_makes_it_ask(watch: GrantCache, clock: FixedClock) -> None:
    await watch.changed("grant_1", 1)
    clock.now -= 100
    assert not watch.is_current("grant_1", 1, clock())


async def test_what_no_token_can_be_of_any_more_is_forgotten(
    watch: GrantCache, store: FakeGrants, clock: FixedClock
) -> None:
    for number in range(100):
        watch.note(f"grant_{number}", 2)
    clock.now += LIFE * 3
    await watch.changed("grant_x", 1)
    assert watch.is_current("grant_5", 1, clock())
    assert store.loads == 0
