"""Our own access tokens, verified: without a question while nothing changed, and worth at once what their grant is."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256

import pytest

from machpay_gateway.core.decision.credential import ApiKey
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.jose.compact import CompactToken, parse_compact
from machpay_gateway.core.jose.session import SessionToken
from machpay_gateway.core.jose.signing import PUBLISH_BEFORE_SIGNING_SECONDS, SigningKey
from machpay_gateway.core.keys.audit import AuditHead
from machpay_gateway.core.keys.ports import ChangePage
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.core.oauth.access_token import TYPE, access_claims
from machpay_gateway.core.oauth.grant import Dependencies, Grant
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.keysets.own import VERIFIED_SECONDS, OwnTokens
from machpay_gateway.keysets.signing import SigningKeys
from machpay_gateway.stores.change_poller import ChangePoller
from machpay_gateway.stores.grant_cache import GrantCache
from machpay_gateway.stores.sql import SqlStore
from tests.clocks import FixedClock
from tests.waiting import until

START, LIFE = 1_700_000_000.0, 3660.0
AUTHORITY = OAuthSettings("https://auth.example.com", audience="https://api.example.com")
TIERS = {"standard": Tier(rate="60/minute", concurrency=5), "enterprise": Tier(rate="600/minute", concurrency=50)}
BOTH = Scopes(frozenset({"account:read", "skills:execute"}))
READ = Scopes(frozenset({"account:read"}))
GRANT = Grant("grant_1", "app_1", "user_1", "acct_1", "live", "standard", BOTH, START, account_tier="enterprise")


class Store(SqlStore):
    """Signing keys and grants, and how often anything is asked of them."""

    def __init__(self, clock: FixedClock) -> None:
        super().__init__("memory://")
        self.clock = clock
        self.queries: list[str] = []
        self.is_away = False
        self._grants = {GRANT.id: GRANT}
        self._log: list[str] = []

    def put(self, grant: Grant) -> None:
        """Change the grant, as any process may do."""
        self._grants[grant.id] = grant
        self._log.append(grant.id)

    async def grant(self, grant_id: str, now: float) -> Grant | None:  # noqa: ARG002 - as stores are asked
        self._note("grant")
        return self._grants[grant_id]

    async def changes_after(self, place: AuditHead | None) -> ChangePage:
        self._note("changes")
        return ChangePage(AuditHead(len(self._log)), [] if place is None else self._log[place.sequence :])

    async def signing_keys(self) -> Sequence[SigningKey]:
        if self.is_away:
            raise StoreUnavailable("signing keys")
        return await super().signing_keys()

    def _note(self, question: str) -> None:
        self.queries.append(question)
        if self.is_away:
            raise StoreUnavailable(question)


class NoKeys:
    """Keys of which there are none: an access token is no key's."""

    def cached(self, digest: bytes, now: float) -> Principal | None:
        raise AssertionError(digest, now)

    def holds(self, digest: bytes) -> bool:
        raise AssertionError(digest)

    def forget(self, key_id: str) -> None:
        raise AssertionError(key_id)

    def forget_signed_by(self, kids: Collection[str]) -> None:
        """There are no sessions."""

    async def find(self, presented: ApiKey | SessionToken) -> Principal | None:
        raise AssertionError(presented)


class Worker:
    """A process that serves: it signs, watches grants, and is presented tokens."""

    def __init__(self, store: Store, clock: FixedClock) -> None:
        self.clock = clock
        changes = ChangePoller(store.changes_after, clock=clock)
        self.watch = GrantCache(store, changes, life_seconds=LIFE, clock=clock)
        self.signing = SigningKeys(
            store, secret_key=lambda: b"s" * 32, life_seconds=LIFE, clock=clock, poll_seconds=0.01
        )
        self.tokens = OwnTokens(self.signing, keys=NoKeys(), tiers=TIERS, oauth_settings=AUTHORITY, grants=self.watch)

    async def signed(self, grant: Grant = GRANT, *, scopes: Scopes = BOTH, family_id: str = "family_1") -> str:
        """Return a token of *grant* as it is now."""
        claims = access_claims(
            AUTHORITY, grant, scopes=scopes, resources=(AUTHORITY.audience,), family_id=family_id, key=None,
            token_id="at_1", now=self.clock(),
        )  # fmt: skip
        return await self.signing.sign(claims, TYPE)

    async def presented(self, token: str) -> Principal | str:
        """Return who presents *token*, as the gate finds out: from memory if that has it."""
        digest = sha256(token.encode()).digest()
        cached = self.tokens.cached(digest, self.clock())
        return cached or await self.tokens.verify(self.parsed(token), digest, self.clock())

    def parsed(self, token: str) -> CompactToken:
        compact = parse_compact(token.encode())
        assert not isinstance(compact, str)
        return compact


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(START)


@pytest.fixture
def store(clock: FixedClock) -> Store:
    return Store(clock)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a store that is back be asked at once."""
    monkeypatch.setattr("machpay_gateway.stores.lookup_queue._LONGEST_PAUSE_SECONDS", 0.0)


@pytest.fixture
def worker(store: Store, clock: FixedClock) -> Worker:
    return Worker(store, clock)


@pytest.fixture
def ended(worker: Worker, store: Store) -> Callable[[Grant], Awaitable[None]]:
    """Change the grant by this very process, which is told."""

    async def end(grant: Grant) -> None:
        store.put(grant)
        worker.watch.forget(grant.id)

    return end


async def test_a_token_costs_no_question_while_nothing_changed(worker: Worker, store: Store) -> None:
    tokens = [await worker.signed(family_id=f"family_{number}") for number in range(20)]
    for token in tokens * 10:
        principal = await worker.presented(token)
        assert isinstance(principal, Principal)
        assert (principal.id, principal.subject, principal.scopes) == ("user_1", "grant_1", BOTH)
    assert store.queries == ["changes", "grant"]  # where the log ends, and what changed before this process began


async def test_what_was_verified_is_known_without_a_look_at_its_signature(
    worker: Worker, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    has_signed = worker.signing.has_signed

    async def counted(token: CompactToken) -> bool:
        nonlocal looks
        looks += 1
        return await has_signed(token)

    monkeypatch.setattr(worker.signing, "has_signed", counted)
    token = await worker.signed()
    for _ in range(int(VERIFIED_SECONDS)):
        assert isinstance(await worker.presented(token), Principal)
        clock.now += 0.9
    assert looks == 1
    clock.now = START + VERIFIED_SECONDS
    await worker.presented(token)
    assert looks == 2


async def test_a_revoked_grant_fails_at_the_next_request_where_it_was_revoked(
    worker: Worker, ended: Callable[[Grant], Awaitable[None]]
) -> None:
    token = await worker.signed()
    assert isinstance(await worker.presented(token), Principal)
    await ended(replace(GRANT, version=2, is_alive=False))
    assert worker.tokens.holds(sha256(token.encode()).digest())  # so that its owner is not taken for a guesser
    assert await worker.presented(token) == "the grant was revoked"
    assert await worker.presented(token) == "the grant was revoked"


async def test_a_revoked_grant_fails_within_a_second_at_every_other_worker(
    worker: Worker, store: Store, clock: FixedClock
) -> None:
    other = Worker(store, clock)
    token = await worker.signed()
    for each in (worker, other):
        assert isinstance(await each.presented(token), Principal)
    store.put(replace(GRANT, version=2, is_alive=False))
    clock.now += 1.01
    for each in (worker, other, Worker(store, clock)):  # and at one that has just begun
        assert await each.presented(token) == "the grant was revoked"


async def test_an_ended_family_fails_and_the_others_of_its_grant_go_on(
    worker: Worker, store: Store, ended: Callable[[Grant], Awaitable[None]]
) -> None:
    token, other = await worker.signed(), await worker.signed(family_id="family_2")
    for each in (token, other):
        assert isinstance(await worker.presented(each), Principal)
    await ended(replace(GRANT, version=2, ended_families=frozenset({"family_1"})))
    for _ in range(3):
        assert await worker.presented(token) == "the token's family has ended"
        assert isinstance(await worker.presented(other), Principal)
    assert store.queries.count("grant") == 2  # at first, and since the change


async def test_a_store_that_is_away_is_gone_by_for_five_seconds_and_then_nothing_is_known(
    worker: Worker, store: Store, clock: FixedClock
) -> None:
    token, never_seen = await worker.signed(), await worker.signed(family_id="family_2")
    assert isinstance(await worker.presented(token), Principal)
    store.is_away = True
    for _ in range(4):
        clock.now += 1.2
        assert isinstance(await worker.presented(token), Principal)
    assert isinstance(await worker.presented(never_seen), Principal)  # its signature says enough meanwhile
    clock.now += 0.3
    for each in (token, never_seen):
        with pytest.raises(StoreUnavailable):
            await worker.presented(each)
    store.is_away = False
    assert isinstance(await worker.presented(token), Principal)


async def test_what_is_known_to_have_changed_is_not_gone_by_while_the_store_is_away(
    worker: Worker, store: Store, ended: Callable[[Grant], Awaitable[None]]
) -> None:
    token = await worker.signed()
    assert isinstance(await worker.presented(token), Principal)
    await ended(replace(GRANT, version=2, is_alive=False))
    store.is_away = True
    with pytest.raises(StoreUnavailable):
        await worker.presented(token)


async def test_a_tier_and_scopes_arrive_at_once_and_no_token_ends(
    worker: Worker, ended: Callable[[Grant], Awaitable[None]]
) -> None:
    token = await worker.signed()
    for grant in (
        replace(GRANT, version=2, tier="enterprise", account_tier="standard"),
        replace(GRANT, version=3, scopes=READ),  # the client has lost one
        replace(GRANT, version=4, scopes=BOTH),  # and got it back
        replace(GRANT, version=5, tier="gone", account_tier="enterprise"),
    ):
        await ended(grant)
        principal = await worker.presented(token)
        assert isinstance(principal, Principal)
        assert (principal.scopes, principal.version) == (grant.scopes, grant.version)
        # A tier that is not configured is an operator's mistake, and counts as the least there is.
        assert principal.tier == grant.tier
        least = TIERS[grant.tier if grant.tier in TIERS else "standard"].limits
        limits = principal.limits.limits
        assert (limits.rates, limits.concurrency) == (least.rates, least.concurrency)
        assert principal.account_tier == grant.account_tier


async def test_a_token_gets_no_scope_by_what_its_grant_gets_later(
    worker: Worker, ended: Callable[[Grant], Awaitable[None]]
) -> None:
    token = await worker.signed(replace(GRANT, scopes=READ), scopes=READ)
    await ended(replace(GRANT, version=2))
    principal = await worker.presented(token)
    assert isinstance(principal, Principal)
    assert principal.scopes == READ


async def test_consent_that_is_given_again_wakes_no_token_of_before(
    worker: Worker, store: Store, clock: FixedClock, ended: Callable[[Grant], Awaitable[None]]
) -> None:
    before = await worker.signed()
    assert isinstance(await worker.presented(before), Principal)
    again = replace(GRANT, version=3, valid_from=3)  # 2 was the revocation, of which this process never heard
    await ended(again)
    after = await worker.signed(again)
    other = Worker(store, clock)
    for each in (worker, other):
        assert await each.presented(before) == "the grant was revoked"
        assert isinstance(await each.presented(after), Principal)
    await ended(replace(again, version=4))
    assert await worker.presented(before) == "the grant was revoked"
    assert isinstance(await worker.presented(after), Principal)


async def test_a_token_ends_by_itself_however_lately_it_was_verified(worker: Worker, clock: FixedClock) -> None:
    token = await worker.signed()
    clock.now += LIFE - 1
    assert isinstance(await worker.presented(token), Principal)
    clock.now += 1
    assert isinstance(await worker.presented(token), str)


async def test_a_clock_that_steps_back_has_everything_asked_anew(
    worker: Worker, store: Store, clock: FixedClock
) -> None:
    token = await worker.signed()
    await worker.presented(token)
    count = len(store.queries)
    clock.now -= 30
    assert isinstance(await worker.presented(token), Principal)
    assert len(store.queries) > count


def lacks(worker: Worker, token: str) -> bool:
    """Tell whether nothing is remembered of *token*."""
    return not worker.tokens.holds(sha256(token.encode()).digest())


async def test_a_dropped_key_ends_tokens_that_a_worker_serves_from_memory(
    worker: Worker, store: Store, clock: FixedClock
) -> None:
    other = Worker(store, clock)
    token = await worker.signed()
    for each in (worker, other):
        assert isinstance(await each.presented(token), Principal)
        each.signing.poll()
    await Worker(store, clock).signing.rotate(at_once=True)  # by a process of its own
    for each in (worker, other):
        await until(partial(lacks, each, token))
        assert await each.presented(token) == "wrong signature"
        await each.signing.close()


async def test_an_ordinary_rotation_ends_no_token(worker: Worker, store: Store, clock: FixedClock) -> None:
    token = await worker.signed()
    assert isinstance(await worker.presented(token), Principal)
    worker.signing.poll()
    new = await Worker(store, clock).signing.rotate()
    await until(lambda: worker.signing.verifies(new.kid))
    assert worker.tokens.cached(sha256(token.encode()).digest(), clock()) is not None
    clock.now += PUBLISH_BEFORE_SIGNING_SECONDS + 1
    assert isinstance(await worker.presented(token), Principal)
    await worker.signing.close()


async def test_a_key_that_is_dropped_while_its_token_is_verified_leaves_nothing_in_memory(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await worker.signed()
    changed = worker.watch.changed

    async def rotated_meanwhile(dependencies: Dependencies, version: int) -> Grant | str | None:
        await worker.signing.rotate(at_once=True)
        return await changed(dependencies, version)

    monkeypatch.setattr(worker.watch, "changed", rotated_meanwhile)
    await worker.presented(token)
    assert not worker.tokens.holds(sha256(token.encode()).digest())
    assert await worker.presented(token) == "wrong signature"


async def test_keys_verify_while_the_store_is_away_and_one_line_says_so(
    worker: Worker, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    token = await worker.signed()
    await worker.presented(token)
    store.is_away = True
    worker.signing.poll()
    await until(lambda: "does not answer" in caplog.text)
    digest = sha256(token.encode()).digest()
    asked_at = worker.clock()
    assert worker.tokens.cached(digest, asked_at) is not None
    store.is_away = False
    await until(lambda: "answers again" in caplog.text)
    assert caplog.text.count("The store of signing keys does not answer") == 1
    assert worker.tokens.cached(digest, asked_at) is not None
    await worker.signing.close()


async def test_polling_twice_is_polling_once_and_closing_ends_it(worker: Worker, store: Store) -> None:
    await worker.signing.ensure()
    worker.signing.poll()
    worker.signing.poll()
    await worker.signing.close()
    new = await Worker(store, worker.clock).signing.rotate(at_once=True)
    await asyncio.sleep(0.05)
    assert not worker.signing.verifies(new.kid)
