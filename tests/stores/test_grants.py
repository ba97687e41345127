"""What is known of grants: a question for each at first, none while nothing changed, and none while nobody answers."""

import asyncio
from dataclasses import replace

import pytest

from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.keys.audit import AuditHead
from machpay_gateway.core.keys.ports import ChangePage
from machpay_gateway.core.oauth.grant import Dependencies, Grant
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.stores.change_poller import ChangePoller
from machpay_gateway.stores.grant_cache import GrantCache
from tests.clocks import FixedClock

START, LIFE = 1_700_000_000.0, 3660.0
GRANT = Grant("grant_1", "app_1", "user_1", "acct_1", "live", "standard", Scopes(), START)
TOKEN = Dependencies("grant_1", "app_1", "user_1", "acct_1")


class FakeGrants:
    """Grants, the log of their changes, and how often each thing is asked of them."""

    def __init__(self, clock: FixedClock) -> None:
        self.clock = clock
        self.grants = {GRANT.id: GRANT}
        self.log: list[str] = []
        self.loads = self.syncs = 0
        self.is_away = False
        self.is_asked, self.on_the_way = asyncio.Event(), asyncio.Event()
        self.on_the_way.set()

    def put(self, grant: Grant, changed: str = GRANT.id) -> None:
        """Store *grant* by a change of what has the id *changed*."""
        self.grants[grant.id] = grant
        self.log.append(changed)

    async def grant(self, grant_id: str, now: float) -> Grant | None:
        assert now == self.clock()
        self.loads += 1
        self._answer()
        grant = self.grants.get(grant_id)
        self.is_asked.set()
        await self.on_the_way.wait()
        return grant

    async def changes_after(self, place: AuditHead | None) -> ChangePage:
        self.syncs += 1
        self._answer()
        ids = [] if place is None else self.log[place.sequence :]
        return ChangePage(AuditHead(len(self.log)), ids)

    def _answer(self) -> None:
        if self.is_away:
            raise StoreUnavailable("grants")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a store that is back be asked at once."""
    monkeypatch.setattr("machpay_gateway.stores.lookup_queue._LONGEST_PAUSE_SECONDS", 0.0)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(START)


@pytest.fixture
def store(clock: FixedClock) -> FakeGrants:
    return FakeGrants(clock)


@pytest.fixture
def changes(store: FakeGrants, clock: FixedClock) -> ChangePoller:
    return ChangePoller(store.changes_after, clock=clock)


@pytest.fixture
def watch(store: FakeGrants, changes: ChangePoller, clock: FixedClock) -> GrantCache:
    return GrantCache(store, changes, life_seconds=LIFE, clock=clock)


async def follow(changes: ChangePoller, clock: FixedClock) -> None:
    """Follow the changes of the longest life of a token."""
    await changes.catch_up_or_fail()
    clock.advance(LIFE + 1)
    await changes.catch_up_or_fail()


async def test_a_grant_that_was_never_seen_is_loaded_once(watch: GrantCache, store: FakeGrants) -> None:
    assert not watch.is_current(TOKEN, 1, START)
    for _ in range(10):
        assert await watch.changed(TOKEN, 1) is None
        assert watch.is_current(TOKEN, 1, START)
    assert (store.syncs, store.loads) == (1, 1)


async def test_a_change_before_the_first_question_holds_whatever_its_clock_was(
    watch: GrantCache, store: FakeGrants
) -> None:
    store.put(replace(GRANT, version=2, is_alive=False))
    changed = await watch.changed(TOKEN, 1)
    assert isinstance(changed, Grant)
    assert not changed.is_alive


async def test_no_grant_costs_a_question_once_the_changes_of_a_tokens_life_were_followed(
    watch: GrantCache, store: FakeGrants, changes: ChangePoller, clock: FixedClock
) -> None:
    await follow(changes, clock)
    for number in range(1000):
        token = TOKEN._replace(grant=f"grant_{number}")
        assert watch.is_current(token, 1, clock())
        assert await watch.changed(token, 1) is None
    assert store.loads == 0


@pytest.mark.parametrize("changed", TOKEN)
async def test_a_change_of_what_it_depends_on_makes_it_ask(
    watch: GrantCache, store: FakeGrants, changes: ChangePoller, clock: FixedClock, changed: str
) -> None:
    await follow(changes, clock)
    store.put(replace(GRANT, version=2), changed)
    clock.advance(1.01)
    assert isinstance(await watch.changed(TOKEN, 1), Grant)
    assert await watch.changed(TOKEN, 2) is None
    assert watch.is_current(TOKEN, 2, clock())
    other = Dependencies("grant_2", "app_2", "user_2", "acct_2")
    assert watch.is_current(other, 1, clock())
    assert store.loads == 1


async def test_a_change_that_is_announced_here_holds_at_once(watch: GrantCache, store: FakeGrants) -> None:
    await watch.changed(TOKEN, 1)
    store.put(replace(GRANT, version=2, is_alive=False))
    watch.forget("grant_1")
    assert not watch.is_current(TOKEN, 1, START)
    for _ in range(10):
        changed = await watch.changed(TOKEN, 1)
        assert isinstance(changed, Grant)
        assert not changed.is_alive
    assert store.loads == 2  # and is loaded once


async def test_an_answer_that_was_on_its_way_before_a_change_is_not_for_who_comes_after(
    watch: GrantCache, store: FakeGrants
) -> None:
    await watch.changed(TOKEN, 1)
    store.put(replace(GRANT, version=2))
    watch.forget("grant_1")
    store.is_asked.clear()
    store.on_the_way.clear()
    early = asyncio.create_task(watch.changed(TOKEN, 1))
    await store.is_asked.wait()
    store.put(replace(GRANT, version=3, is_alive=False))
    watch.forget("grant_1")
    late = asyncio.create_task(watch.changed(TOKEN, 1))
    await asyncio.sleep(0)
    store.on_the_way.set()
    changed = await late
    assert isinstance(changed, Grant)
    assert (changed.version, changed.is_alive, store.loads) == (3, False, 3)
    await early


async def test_a_change_elsewhere_holds_within_a_second(
    watch: GrantCache, store: FakeGrants, clock: FixedClock
) -> None:
    await watch.changed(TOKEN, 1)
    store.put(replace(GRANT, version=2))
    clock.now += 1.01
    assert not watch.is_current(TOKEN, 1, clock())
    changed = await watch.changed(TOKEN, 1)
    assert isinstance(changed, Grant)
    assert changed.version == 2
    assert watch.is_current(TOKEN, 2, clock())


async def test_a_grant_that_is_gone_is_told_so(watch: GrantCache) -> None:
    assert await watch.changed(TOKEN._replace(grant="grant_2"), 1) == "the grant is gone"


async def test_a_store_that_is_away_is_gone_by_for_five_seconds(
    watch: GrantCache, store: FakeGrants, clock: FixedClock
) -> None:
    await watch.changed(TOKEN, 1)
    store.is_away = True
    clock.now += 4.9
    assert await watch.changed(TOKEN, 1) is None
    clock.now += 0.2
    with pytest.raises(StoreUnavailable):
        await watch.changed(TOKEN, 1)
    store.is_away = False
    assert await watch.changed(TOKEN, 1) is None


async def test_a_clock_that_steps_back_makes_it_ask(watch: GrantCache, clock: FixedClock) -> None:
    await watch.changed(TOKEN, 1)
    clock.now -= 100
    assert not watch.is_current(TOKEN, 1, clock())


async def test_more_changes_than_are_remembered_make_it_ask_again(
    watch: GrantCache, store: FakeGrants, changes: ChangePoller, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machpay_gateway.stores.change_poller._MOST_REMEMBERED", 10)
    await follow(changes, clock)
    store.put(replace(GRANT, version=2))
    changes.note("grant_1")
    for number in range(30):
        changes.note(f"key_{number}")
    assert isinstance(await watch.changed(TOKEN, 1), Grant)
