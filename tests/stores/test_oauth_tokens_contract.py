"""One suite for every database: what `core.oauth.ports` promises of codes, families and refresh tokens."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from machpay_gateway.core.oauth.grant import StoredRefreshToken
from machpay_gateway.stores.sql import SqlStore
from tests.keyrings import logged
from tests.stores.oauth_records import ACME, BOTH, NOW, READ, client, code, digest, family, grant, token, user

pytestmark = pytest.mark.parametrize("unopened_store", ["sqlite", "sqlite-in-memory", "postgresql"], indirect=True)

APP, ADA, SEED = client(1), user(1), b"s" * 32
GRANT = grant(1, APP, ADA)
DAY = 86_400
TIMES = 10


@pytest.fixture
async def store(unopened_store: SqlStore) -> AsyncIterator[SqlStore]:
    await unopened_store.open()
    assert await unopened_store.add_account(ACME, logged())
    yield unopened_store
    await unopened_store.close()


@pytest.fixture
async def oauth(store: SqlStore) -> SqlStore:
    """Hold a grant."""
    assert await store.add_user(ADA, logged())
    await store.add_client(APP, logged())
    assert await store.put_grant(GRANT, logged())
    return store


async def begin(oauth: SqlStore, number: int) -> None:
    """Use a code, of which a family with one refresh token comes, all of that *number*."""
    await oauth.add_code(code(number, GRANT))
    made = family(number, GRANT)
    assert await oauth.use_code(digest(number), NOW, made, token(number, made))


@pytest.mark.parametrize("changes", [{}, {"challenge": None, "has_redirect": False, "scopes": BOTH, "resources": ()}])
async def test_a_code_comes_back_as_it_was_stored_also_after_its_use(
    oauth: SqlStore, changes: dict[str, object]
) -> None:
    stored = code(1, GRANT, **changes)
    await oauth.add_code(stored)
    assert await oauth.code(digest(1)) == stored
    assert await oauth.code(digest(2)) is None
    assert await oauth.use_code(digest(1), NOW + 5.25, family(1, GRANT), None)
    assert await oauth.code(digest(1)) == replace(stored, used_at=NOW + 5.25)


async def test_a_code_is_used_once_however_many_use_it_at_once_and_nothing_comes_of_the_others(oauth: SqlStore) -> None:
    await oauth.add_code(code(1, GRANT))
    families = [family(number, GRANT) for number in range(TIMES)]
    uses = [oauth.use_code(digest(1), NOW, each, token(10 + n, each)) for n, each in enumerate(families)]
    done = await asyncio.gather(*uses)
    assert sum(done) == 1
    assert [await oauth.refresh_token(digest(10 + n)) is not None for n in range(TIMES)] == done
    assert [await oauth.revoke_family(each.id, logged()) is not None for each in families] == done
    assert not await oauth.use_code(digest(99), NOW, family(99, GRANT), None)


async def test_codes_are_known_for_a_day_after_their_end(oauth: SqlStore) -> None:
    await oauth.add_code(code(1, GRANT))
    await oauth.add_code(code(2, GRANT, created_at=NOW + 60 + DAY))
    assert await oauth.code(digest(1)) is not None
    await oauth.add_code(code(3, GRANT, created_at=NOW + 60 + DAY + 0.5))
    assert await oauth.code(digest(1)) is None


async def test_a_refresh_token_is_held_with_all_that_it_depends_on(oauth: SqlStore) -> None:
    await begin(oauth, 1)
    made = family(1, GRANT)
    assert await oauth.refresh_token(digest(1)) == StoredRefreshToken(token(1, made), made, GRANT)
    assert await oauth.refresh_token(digest(2)) is None
    bound = family(2, GRANT, key="k" * 43, scopes=BOTH, resources=("https://a", "https://b"))
    await oauth.add_code(code(2, GRANT))
    assert await oauth.use_code(digest(2), NOW, bound, token(2, bound))
    assert await oauth.refresh_token(digest(2)) == StoredRefreshToken(token(2, bound), bound, GRANT)


async def test_what_is_held_follows_the_grant(oauth: SqlStore) -> None:
    await begin(oauth, 1)
    assert await oauth.replace_client(replace(APP, scopes=READ, version=2), logged()) is not None
    held = await oauth.refresh_token(digest(1))
    assert held is not None
    assert held.grant == replace(GRANT, scopes=READ, version=2)
    assert await oauth.revoke_grant(None, GRANT.id, logged(NOW + 7)) is not None
    held = await oauth.refresh_token(digest(1))
    assert held is not None
    assert (held.grant.is_alive, held.family.ended_at) == (False, NOW + 7)


async def test_a_refresh_token_is_used_once_however_many_use_it_at_once(oauth: SqlStore) -> None:
    await begin(oauth, 1)
    made = family(1, GRANT)
    following = [replace(token(10 + n, made), created_at=NOW + 1.5) for n in range(TIMES)]
    seeds = [bytes([n]) * 32 for n in range(TIMES)]
    uses = [oauth.use_refresh_token(digest(1), seed, each) for seed, each in zip(seeds, following, strict=True)]
    done = await asyncio.gather(*uses)
    assert sum(done) == 1
    assert [await oauth.refresh_token(each.digest) is not None for each in following] == done
    held = await oauth.refresh_token(digest(1))
    assert held is not None
    assert (held.token.used_at, held.token.seed, held.next_used_at) == (NOW + 1.5, seeds[done.index(True)], None)
    (successor,) = [each for each, is_it in zip(following, done, strict=True) if is_it]
    after_it = replace(token(40, made), created_at=NOW + 2.5)
    assert await oauth.use_refresh_token(successor.digest, SEED, after_it)
    assert not await oauth.use_refresh_token(digest(99), SEED, token(41, made))
    held = await oauth.refresh_token(digest(1))
    assert held is not None
    assert held.next_used_at == NOW + 2.5


async def test_nothing_comes_of_a_refresh_token_whose_family_has_ended(oauth: SqlStore) -> None:
    for number in (1, 2):
        await begin(oauth, number)
    assert await oauth.revoke_family("family_1", logged()) == (GRANT.id, 2, GRANT.account_id)
    assert not await oauth.use_refresh_token(digest(1), SEED, token(11, family(1, GRANT)))
    assert await oauth.refresh_token(digest(11)) is None
    assert await oauth.use_refresh_token(digest(2), SEED, token(12, family(2, GRANT)))


async def test_a_refresh_and_its_familys_end_at_once_leave_no_token_that_works(oauth: SqlStore) -> None:
    for number in range(1, 6):
        await begin(oauth, number)
        of = family(number, GRANT)
        use = oauth.use_refresh_token(digest(number), SEED, token(100 + number, of))
        await asyncio.gather(use, oauth.revoke_family(of.id, logged()))
        held = await oauth.refresh_token(digest(100 + number))
        assert held is None or held.family.ended_at is not None
        assert not await oauth.use_refresh_token(digest(100 + number), SEED, token(200 + number, of))


async def test_a_use_and_a_consent_given_again_at_once_leave_nothing_that_works(oauth: SqlStore) -> None:
    for number in range(1, 6):
        version = 2 * number
        before = replace(GRANT, version=version - 1)
        await oauth.add_code(code(number, before))
        assert await oauth.revoke_grant(None, GRANT.id, logged(NOW)) == (GRANT.id, version, GRANT.account_id)
        of = family(number, before)
        again = replace(GRANT, version=version + 1, valid_from=version + 1)
        await asyncio.gather(
            oauth.use_code(digest(number), NOW, of, token(number, of)), oauth.put_grant(again, logged(NOW))
        )
        held = await oauth.refresh_token(digest(number))
        assert held is None or held.family.ended_at is not None
        assert not await oauth.use_code(digest(number), NOW, family(100 + number, before), None)


async def test_a_family_ends_once_and_raises_its_grant(store: SqlStore, oauth: SqlStore) -> None:
    await begin(oauth, 1)
    before = (await store.audit_head()).sequence
    at_once = await asyncio.gather(*(oauth.revoke_family("family_1", logged(NOW + 3)) for _ in range(TIMES)))
    assert sorted(at_once, key=str) == [(GRANT.id, 2, GRANT.account_id), *[None] * (TIMES - 1)]
    assert (await store.audit_head()).sequence == before + 1
    assert await oauth.revoke_family("family_unknown", logged()) is None


async def test_ended_families_are_told_for_longer_than_their_tokens_live(oauth: SqlStore) -> None:
    for number in (1, 2):
        await begin(oauth, number)
    await oauth.revoke_family("family_1", logged(NOW))
    for later, ended in ((0, {"family_1"}), (DAY + 600, {"family_1"}), (DAY + 601, set())):
        stored_grant = await oauth.grant(GRANT.id, NOW + later)
        assert stored_grant is not None
        assert stored_grant.ended_families == ended
        assert stored_grant == await oauth.grant_of(APP.id, ADA.id, NOW + later)


async def test_what_ended_long_ago_is_dropped_when_the_next_begins(oauth: SqlStore) -> None:
    await begin(oauth, 1)
    until = family(1, GRANT).expires_at
    for number, created_at in ((2, until + DAY + 600), (3, until + DAY + 601)):
        assert await oauth.refresh_token(digest(1)) is not None
        await oauth.add_code(code(number, GRANT, created_at=created_at, expires_at=created_at + 60))
        assert await oauth.use_code(digest(number), created_at, family(number, GRANT, created_at=created_at), None)
    assert await oauth.refresh_token(digest(1)) is None
    assert await oauth.revoke_family("family_1", logged()) is None
