import asyncio
import logging

import pytest

from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.jose.session import SessionToken, secret_fingerprint
from machpay_gateway.core.keys.key import SecretRecord
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.stores.cache import KeyCache
from machpay_gateway.stores.change_poller import ChangePoller
from tests.clocks import FixedClock
from tests.fake_store import START, Lookup, digest, presented, record


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(START)


@pytest.fixture
def lookup(clock: FixedClock) -> Lookup:
    lookup = Lookup(clock)
    for number in range(1, 6):
        lookup.put(record(number))
    lookup.log.clear()
    return lookup


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a store that is back be asked at once."""
    monkeypatch.setattr("machpay_gateway.stores.lookup_queue._LONGEST_PAUSE_SECONDS", 0.0)


@pytest.fixture
def cache(lookup: Lookup, clock: FixedClock) -> KeyCache:
    return KeyCache(lookup, TIERS, ChangePoller(lookup.changes_after, clock=clock), clock=clock, size=3)


async def version_of(cache: KeyCache, number: int = 1) -> int | None:
    principal = await cache.find(presented(number))
    return None if principal is None else principal.version


def known_version(cache: KeyCache, clock: FixedClock, number: int = 1) -> int | None:
    principal = cache.cached(digest(number), clock.now)
    return None if principal is None else principal.version


async def background_sync(lookup: Lookup) -> None:
    """Wait until a sync that `cached` began has been answered and landed."""
    await lookup.synced.wait()
    for _ in range(10):
        await asyncio.sleep(0)


async def ask_every_second(cache: KeyCache, clock: FixedClock, seconds: int) -> None:
    for _ in range(seconds):
        clock.advance(1)
        await cache.find(presented(1))


async def test_a_key_is_loaded_once_and_known_from_then_on(cache: KeyCache, lookup: Lookup, clock: FixedClock) -> None:
    assert cache.cached(digest(1), clock.now) is None
    principal = await cache.find(presented(1))
    assert principal is not None
    assert cache.cached(digest(1), clock.now) is principal
    assert await cache.find(presented(1)) is principal
    assert lookup.loads == 1


async def test_however_many_ask_at_once_the_store_is_asked_once(cache: KeyCache, lookup: Lookup) -> None:
    lookup.let_go.clear()
    waiting = [asyncio.create_task(cache.find(presented(1))) for _ in range(20)]
    await lookup.entered.wait()
    assert not any(task.done() for task in waiting)
    lookup.let_go.set()
    principals = await asyncio.gather(*waiting)
    assert len(set(map(id, principals))) == 1
    assert lookup.loads == 1


async def test_one_who_is_cancelled_leaves_the_others_waiting(cache: KeyCache, lookup: Lookup) -> None:
    lookup.let_go.clear()
    gone, stays = (asyncio.create_task(cache.find(presented(1))) for _ in range(2))
    await lookup.entered.wait()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    lookup.let_go.set()
    assert await stays is not None
    assert lookup.loads == 1


async def test_nobodys_digest_is_remembered_for_seconds_only(
    cache: KeyCache, lookup: Lookup, clock: FixedClock
) -> None:
    for _ in range(3):
        assert await cache.find(presented(99)) is None
    assert lookup.loads == 1
    lookup.put(record(99))
    clock.advance(4.9)
    assert await cache.find(presented(99)) is None
    clock.advance(0.2)
    assert await cache.find(presented(99)) is not None


async def test_what_is_cached_is_bounded(cache: KeyCache, lookup: Lookup) -> None:
    for number in range(1, 6):
        assert await cache.find(presented(number)) is not None
    for number in range(100, 200):
        assert await cache.find(presented(number)) is None
    assert len(cache) == 6  # three keys, three digests of nobody
    for number in range(197, 200):
        assert await cache.find(presented(number)) is None  # the last three, without a load
    assert await version_of(cache, 1) == 1  # one that had to go is loaded again
    assert lookup.loads == 5 + 100 + 1


async def test_a_change_of_a_key_that_had_to_go_does_no_harm(
    cache: KeyCache, lookup: Lookup, clock: FixedClock
) -> None:
    for number in range(1, 6):
        await cache.find(presented(number))
    lookup.put(record(1, version=2))
    clock.advance(6)
    assert await version_of(cache, 5) == 1
    assert await version_of(cache, 1) == 2


async def test_a_change_is_seen_within_a_second_while_requests_come(
    cache: KeyCache, lookup: Lookup, clock: FixedClock
) -> None:
    await cache.find(presented(1))
    await cache.find(presented(2))
    lookup.synced.clear()
    lookup.put(record(1, version=2, revoked_at=clock.now))
    clock.advance(0.4)
    assert known_version(cache, clock) == 1
    assert lookup.syncs == 1  # where the log ends; not asked more than twice a second
    clock.advance(0.2)
    assert known_version(cache, clock) == 1  # this one is still answered at once, and has the changes asked for
    await background_sync(lookup)
    assert known_version(cache, clock) is None
    principal = await cache.find(presented(1))
    assert principal is not None
    assert principal.revoked
    assert known_version(cache, clock, 2) == 1  # a key that did not change stays
    assert lookup.loads == 3


@pytest.mark.parametrize("change_after, ask_after", [(0, 1.1), (0, 6), (1, 100), (1, 700), (100, 1000), (100, 1e6)])
async def test_a_change_made_while_nobody_asked_holds_for_the_next_who_does(
    cache: KeyCache, lookup: Lookup, clock: FixedClock, change_after: float, ask_after: float
) -> None:
    await cache.find(presented(1))
    clock.advance(change_after)
    lookup.put(record(1, version=2, revoked_at=clock.now))
    clock.now = START + ask_after
    assert known_version(cache, clock) is None
    assert await version_of(cache) == 2


async def test_what_was_cached_before_the_log_had_another_history_is_read_again(
    cache: KeyCache, lookup: Lookup, clock: FixedClock, caplog: pytest.LogCaptureFixture
) -> None:
    lookup.put(record(1, version=7))
    assert await version_of(cache) == 7
    lookup.put(record(1, version=6))  # by a restored backup
    lookup.history, lookup.log = b"second", []
    clock.advance(1.01)
    assert await version_of(cache) == 6
    assert "another history" in caplog.text


async def test_a_change_of_its_account_concerns_a_key(cache: KeyCache, lookup: Lookup, clock: FixedClock) -> None:
    await cache.find(presented(1))
    await cache.find(presented(2))
    lookup.put(record(2, account_id="acct_2"))
    cache.forget("key_2")
    await cache.find(presented(2))
    lookup.records[digest(1)] = record(1, tier="enterprise", account_version=9)
    lookup.log.append("acct_1")
    clock.advance(1.01)
    principal = await cache.find(presented(1))
    assert principal is not None
    assert (principal.tier, principal.account_version) == ("enterprise", 9)
    assert known_version(cache, clock, 2) == 1
    assert lookup.loads == 4


async def test_a_key_is_loaded_anew_after_ten_minutes(cache: KeyCache, lookup: Lookup, clock: FixedClock) -> None:
    await cache.find(presented(1))
    await ask_every_second(cache, clock, 599)
    assert lookup.loads == 1
    await ask_every_second(cache, clock, 2)
    assert lookup.loads == 2


async def test_what_is_known_without_asking_is_known_for_a_second(
    cache: KeyCache, lookup: Lookup, clock: FixedClock
) -> None:
    await cache.find(presented(1))
    clock.advance(1.01)
    assert known_version(cache, clock) is None
    assert await version_of(cache) == 1
    assert (lookup.syncs, lookup.loads) == (2, 1)  # what did not change need not be loaded
    assert known_version(cache, clock) == 1


async def test_trust_ends_five_seconds_after_the_store_last_answered(
    cache: KeyCache, lookup: Lookup, clock: FixedClock, caplog: pytest.LogCaptureFixture
) -> None:
    await cache.find(presented(1))
    lookup.is_away = True
    for _ in range(5):
        clock.advance(1)
        assert await version_of(cache) == 1
    clock.advance(0.01)
    assert known_version(cache, clock) is None
    with pytest.raises(StoreUnavailable):
        await cache.find(presented(1))
    assert {entry.levelno for entry in caplog.records} == {logging.WARNING}


async def test_a_store_that_is_slow_to_say_what_changed_is_not_waited_for_while_trust_lasts(
    cache: KeyCache, lookup: Lookup, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machpay_gateway.stores.change_poller._PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr("machpay_gateway.stores.change_poller._POLL_SECONDS", 60.0)
    await cache.find(presented(1))
    lookup.tells_changes.clear()
    clock.advance(2)
    assert await version_of(cache) == 1
    assert lookup.loads == 1
    clock.advance(3.01)
    assert await version_of(cache) == 1  # past that, the key itself is asked for
    assert lookup.loads == 2
    lookup.tells_changes.set()


async def test_trust_is_back_as_soon_as_the_store_answers(cache: KeyCache, lookup: Lookup, clock: FixedClock) -> None:
    await cache.find(presented(1))
    lookup.is_away = True
    clock.advance(60)
    with pytest.raises(StoreUnavailable):
        await cache.find(presented(1))
    lookup.is_away = False
    assert await version_of(cache) == 1
    clock.advance(1)
    assert await version_of(cache) == 1
    assert known_version(cache, clock) == 1


async def test_an_outage_is_told_when_it_begins_and_when_it_ends_and_not_for_each_who_asks(
    cache: KeyCache, lookup: Lookup, caplog: pytest.LogCaptureFixture
) -> None:
    lookup.is_away = True
    for number in range(50, 70):
        with pytest.raises(StoreUnavailable):
            await cache.find(presented(number))
    lookup.is_away = False
    await cache.find(presented(1))
    await cache.find(presented(2))
    assert [entry.getMessage() for entry in caplog.records] == [
        "The database did not answer (key lookup): see that it runs and that `database` names it.",
        "The database answers again.",
    ]


async def test_a_store_that_is_away_is_everybodys_error_and_no_answer(cache: KeyCache, lookup: Lookup) -> None:
    lookup.is_away = True
    answers = await asyncio.gather(*(cache.find(presented(1)) for _ in range(5)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 5
    lookup.is_away = False
    assert await version_of(cache) == 1  # not remembered as nobody's


async def test_a_load_in_flight_when_the_change_came_is_repeated(
    cache: KeyCache, lookup: Lookup, clock: FixedClock
) -> None:
    await cache.find(presented(2))
    lookup.synced.clear()
    lookup.let_go.clear()
    lookup.entered.clear()
    loading = asyncio.create_task(cache.find(presented(1)))
    await lookup.entered.wait()  # the old record has been read
    lookup.put(record(1, version=2))
    clock.advance(0.6)
    assert known_version(cache, clock, 2) == 1  # begins a sync, which sees the change and nothing cached it concerns
    await background_sync(lookup)
    lookup.let_go.set()
    found = await loading
    assert found is not None
    assert found.version == 2


async def test_what_is_forgotten_is_loaded_anew_by_each_of_its_secrets(cache: KeyCache, lookup: Lookup) -> None:
    secrets = (SecretRecord(digest(1), "…", START), SecretRecord(digest(11), "…", START - 9, expires_at=START + 50))
    lookup.put(record(1, secrets=secrets))
    assert [await version_of(cache, 1), await version_of(cache, 11)] == [1, 1]
    lookup.put(record(1, version=2, secrets=secrets))
    cache.forget("key_1")
    cache.forget("key_unknown")
    assert [await version_of(cache, 1), await version_of(cache, 11)] == [2, 2]


async def test_each_secret_ends_by_itself(cache: KeyCache, lookup: Lookup) -> None:
    secrets = (SecretRecord(digest(1), "…", START), SecretRecord(digest(11), "…", START - 9, expires_at=START + 50))
    lookup.put(record(1, secrets=secrets, expires_at=START + 70))
    current, previous = await cache.find(presented(1)), await cache.find(presented(11))
    assert current is not None
    assert previous is not None
    assert (current.expires_at, previous.expires_at) == (START + 70, START + 50)


async def test_a_record_that_does_not_have_the_digest_it_was_found_by_is_nobodys(
    cache: KeyCache, lookup: Lookup
) -> None:
    lookup.records[digest(50)] = record(1)
    assert await cache.find(presented(50)) is None


async def test_a_stored_network_that_cannot_be_read_is_the_stores_failure(cache: KeyCache, lookup: Lookup) -> None:
    lookup.put(record(1, allowed_ips=("10.0.0.1/8",)))
    with pytest.raises(StoreUnavailable, match="key_1"):
        await cache.find(presented(1))


async def test_a_tier_that_is_not_configured_is_the_smallest(cache: KeyCache, lookup: Lookup) -> None:
    lookup.put(record(1, tier="platinum"))
    principal = await cache.find(presented(1))
    assert principal is not None
    assert principal.tier == "platinum"
    limits, least = principal.limits.limits, TIERS["test"].limits
    assert (limits.rates, limits.quotas, limits.concurrency) == (least.rates, least.quotas, least.concurrency)


@pytest.mark.parametrize("step", [-0.1, -3.0, -3600.0])
async def test_a_clock_that_steps_back_asks_the_store_instead_of_trusting(
    cache: KeyCache, lookup: Lookup, clock: FixedClock, step: float
) -> None:
    await cache.find(presented(1))
    lookup.put(record(1, version=2))
    clock.advance(step)
    assert known_version(cache, clock) is None
    assert await version_of(cache) == 2


def session(number: int, kid: str) -> SessionToken:
    """Return a session of the key *number*, signed by *kid*."""
    return SessionToken(
        digest(100 + number), f"key_{number}", secret_fingerprint(digest(number)), Scopes(), START + 900, kid
    )


async def test_a_dropped_signing_key_ends_what_is_cached_of_its_sessions_and_nothing_else(
    cache: KeyCache,
) -> None:
    await cache.find(presented(1))
    await cache.find(session(1, "old"))
    await cache.find(session(2, "new"))
    cache.forget_signed_by({"old"})
    assert [cache.holds(digest(number)) for number in (1, 101, 102)] == [True, False, True]
    await cache.find(session(3, "new"))
    await cache.find(session(4, "new"))  # the cache has room for three: evicting what was dropped must not fail
    cache.forget_signed_by({"new"})
    assert len(cache) == 0


async def test_a_session_that_is_looked_up_while_its_signing_key_is_dropped_is_not_cached(
    cache: KeyCache, lookup: Lookup
) -> None:
    lookup.lookups_wait = asyncio.Event()
    look_up = asyncio.create_task(cache.find(session(1, "old")))
    await asyncio.sleep(0)
    cache.forget_signed_by({"old"})
    lookup.lookups_wait.set()
    await look_up
    assert not cache.holds(digest(101))
