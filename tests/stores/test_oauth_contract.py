"""One suite for every database: what `core.oauth.ports` promises of users, clients and grants."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from machpay_gateway.core.accounts.user import User
from machpay_gateway.core.errors import DuplicateRequest, InputError
from machpay_gateway.core.keys.key import SecretRecord
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.grant import Grant
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.stores.sql import SqlStore
from tests.keyrings import logged
from tests.stores.oauth_records import ACME, BOTH, GLOBEX, NOW, READ, client, code, digest, family, grant, sign_in, user

pytestmark = pytest.mark.parametrize("unopened_store", ["sqlite", "sqlite-in-memory", "postgresql"], indirect=True)

ADA, BOB = user(1), user(2)
APP, OTHER = client(1), client(2)


@pytest.fixture
async def store(unopened_store: SqlStore) -> AsyncIterator[SqlStore]:
    await unopened_store.open()
    assert await unopened_store.add_account(ACME, logged())
    assert await unopened_store.add_account(GLOBEX, logged())
    yield unopened_store
    await unopened_store.close()


@pytest.fixture
async def oauth(store: SqlStore) -> SqlStore:
    """Hold two users and two clients."""
    for each in (ADA, BOB):
        assert await store.add_user(each, logged())
    for one in (APP, OTHER):
        await store.add_client(one, logged())
    return store


async def logged_so_far(store: SqlStore) -> int:
    return (await store.audit_head()).sequence


async def listed(oauth: SqlStore, account_id: str | None, **selection: Any) -> Sequence[Grant]:  # noqa: ANN401 - as asked
    every: dict[str, Any] = {"client_id": None, "environment": None, "after": None, "limit": 9}
    return await oauth.grants(account_id, **(every | selection))


async def test_a_user_comes_back_by_id_and_by_e_mail_to_the_own_account(oauth: SqlStore) -> None:
    hidden = user(3, account_id=GLOBEX.id, password="a hash", disabled_at=NOW)
    assert await oauth.add_user(hidden, logged())
    for name in (hidden.id, hidden.email):
        assert await oauth.user(None, name) == await oauth.user(GLOBEX.id, name) == hidden
        assert await oauth.user(ACME.id, name) is None
    assert await oauth.user(None, "nobody@example.org") is None
    assert await oauth.users(ACME.id) == [ADA, BOB]
    assert await oauth.users(None) == [ADA, BOB, hidden]


async def test_an_e_mail_is_one_users_only(store: SqlStore, oauth: SqlStore) -> None:
    before = await logged_so_far(store)
    assert not await oauth.add_user(replace(BOB, id="user_9", account_id=GLOBEX.id), logged())
    assert await logged_so_far(store) == before
    at_once = [user(9, id=f"user_{number}") for number in range(10, 20)]
    assert sum(await asyncio.gather(*(oauth.add_user(each, logged()) for each in at_once))) == 1


async def test_what_belongs_to_no_account_is_refused_and_not_logged(store: SqlStore, oauth: SqlStore) -> None:
    before = await logged_so_far(store)
    with pytest.raises(InputError, match="acct_unknown"):
        await oauth.add_user(user(9, account_id="acct_unknown"), logged())
    with pytest.raises(InputError, match="acct_unknown"):
        await oauth.add_client(client(9, account_id="acct_unknown"), logged())
    with pytest.raises(InputError, match="secret is taken"):
        await oauth.add_client(client(9, secrets=APP.secrets), logged())
    with pytest.raises(InputError, match="app_unknown"):
        await oauth.put_grant(grant(1, client(9, id="app_unknown"), ADA), logged())
    with pytest.raises(InputError, match="user_9"):
        await oauth.put_grant(grant(1, APP, user(9)), logged())
    assert await logged_so_far(store) == before
    assert await oauth.client(None, "app_009") is None


async def test_a_changed_user_is_signed_out_everywhere_and_nobody_else_is(oauth: SqlStore) -> None:
    for number, of in enumerate((ADA, ADA, BOB)):
        assert await oauth.add_sign_in(sign_in(number, of.id), of)
    assert await oauth.put_grant(grant(1, APP, ADA), logged())
    assert await oauth.put_grant(grant(2, APP, BOB), logged())
    changed = replace(ADA, password="another hash")
    assert await oauth.replace_user(ADA, changed, logged()) == [("grant_1", 2, ACME.id)]
    assert await oauth.user(None, ADA.id) == changed
    assert [await who(oauth, number) for number in range(3)] == [None, None, BOB]
    assert await oauth.replace_user(user(9), user(9), logged()) is None
    theirs = replace(changed, account_id=GLOBEX.id)
    assert await oauth.replace_user(theirs, theirs, logged()) is None


async def test_where_a_user_is_signed_in_is_told_newest_first_while_it_lasts(oauth: SqlStore) -> None:
    ended = replace(sign_in(0, ADA.id), expires_at=NOW)
    later = replace(sign_in(2, ADA.id), created_at=NOW + 1, address="2001:db8::1")
    for each in (ended, sign_in(1, ADA.id), later, sign_in(3, BOB.id)):
        assert await oauth.add_sign_in(each, BOB if each.user_id == BOB.id else ADA)
    assert list(await oauth.sign_ins(ADA.id, NOW)) == [later, sign_in(1, ADA.id)]
    assert list(await oauth.sign_ins("user_nobody", NOW)) == []


@pytest.mark.parametrize("change", [{"password": "other"}, {"disabled_at": NOW}, {"role": "admin"}], ids=str)
async def test_nobody_is_signed_in_as_who_they_were_before_a_change(oauth: SqlStore, change: dict[str, Any]) -> None:
    assert await oauth.replace_user(ADA, replace(ADA, **change), logged()) == []
    assert not await oauth.add_sign_in(sign_in(1, ADA.id), ADA)
    assert list(await oauth.sign_ins(ADA.id, NOW)) == []


async def test_whoever_is_asked_for_is_named_by_e_mail_within_the_account(oauth: SqlStore) -> None:
    ids = [ADA.id, BOB.id, "user_nobody"]
    assert await oauth.emails(ADA.account_id, [ADA.id, "user_nobody"]) == {ADA.id: ADA.email}
    of_account = {each.id: each.email for each in (ADA, BOB) if each.account_id == GLOBEX.id}
    assert await oauth.emails(GLOBEX.id, ids) == of_account
    assert await oauth.emails(ADA.account_id, []) == {}


async def test_a_role_is_changed_as_it_was_known(oauth: SqlStore) -> None:
    admin = replace(ADA, role="admin")
    assert await oauth.replace_user(ADA, admin, logged()) == []
    assert await oauth.user(None, ADA.id) == admin
    assert await oauth.replace_user(ADA, replace(ADA, password="x"), logged()) is None


async def test_a_user_is_changed_as_long_as_it_is_as_it_was_known_and_by_one_of_many(
    store: SqlStore, oauth: SqlStore
) -> None:
    before = await logged_so_far(store)
    wanted = [replace(ADA, password=f"hash {number}") for number in range(8)]
    answers = await asyncio.gather(*(oauth.replace_user(ADA, each, logged()) for each in wanted))
    (winner,) = [each for each, raised in zip(wanted, answers, strict=True) if raised is not None]
    assert await oauth.user(None, ADA.id) == winner
    assert await logged_so_far(store) == before + 1
    out = replace(winner, disabled_at=NOW)
    assert await oauth.replace_user(winner, out, logged()) == []
    assert await oauth.replace_user(winner, ADA, logged()) is None  # who was shut out meanwhile stays shut out
    assert await oauth.user(None, ADA.id) == out


async def test_a_sign_in_lasts_until_its_end_or_its_users(oauth: SqlStore) -> None:
    assert await oauth.add_sign_in(sign_in(1, ADA.id), ADA)
    assert await oauth.session(digest(1), NOW + 99) == (ADA, sign_in(1, ADA.id))
    assert await who(oauth, 1, NOW + 100) is None
    assert await oauth.add_sign_in(sign_in(2, BOB.id, created_at=NOW + 100, expires_at=NOW + 200), BOB)
    assert await who(oauth, 1) is None  # dropped, as it had ended
    await oauth.delete_sign_in(digest(2), logged())
    assert await who(oauth, 2, NOW + 150) is None


async def test_when_a_sign_in_was_seen_and_confirmed_is_kept(oauth: SqlStore) -> None:
    assert await oauth.add_sign_in(sign_in(1, ADA.id), ADA)
    seen = replace(sign_in(1, ADA.id), seen_at=NOW + 5.5, confirmed_at=NOW + 6.25)
    await oauth.update_sign_in(seen)
    assert await oauth.session(digest(1), NOW + 7) == (ADA, seen)
    assert list(await oauth.sign_ins(ADA.id, NOW + 7)) == [seen]
    await oauth.delete_sign_in(digest(1), logged())
    await oauth.update_sign_in(seen)
    assert await who(oauth, 1) is None


@pytest.mark.parametrize(
    "change, is_kept",
    [({"password": "other"}, False), ({"disabled_at": NOW}, False), ({"role": "admin"}, True)],
    ids=str,
)
async def test_address_blocks_are_familiar_for_90_days_of_the_same_password(
    oauth: SqlStore, change: dict[str, Any], *, is_kept: bool
) -> None:
    day = 86_400
    assert await oauth.add_sign_in(sign_in(1, ADA.id), ADA, block="a")
    assert await oauth.add_sign_in(sign_in(2, ADA.id, created_at=NOW + 80 * day), ADA, block="b")
    assert await oauth.is_familiar_block(ADA.id, "a", NOW)
    assert not await oauth.is_familiar_block(ADA.id, "a", NOW + 1)
    assert not await oauth.is_familiar_block(BOB.id, "a", NOW)
    assert await oauth.add_sign_in(sign_in(3, ADA.id, created_at=NOW + 91 * day), ADA, block="b")
    assert not await oauth.is_familiar_block(ADA.id, "a", 0.0)  # forgotten
    assert await oauth.is_familiar_block(ADA.id, "b", NOW + 91 * day)
    await oauth.replace_user(ADA, replace(ADA, **change), logged())
    assert await oauth.is_familiar_block(ADA.id, "b", 0.0) == is_kept


async def test_a_sign_in_leaves_the_address_blocks_of_other_users(oauth: SqlStore) -> None:
    later = NOW + 91 * 86_400
    assert await oauth.add_sign_in(sign_in(1, BOB.id), BOB, block="a")
    assert await oauth.add_sign_in(sign_in(2, ADA.id, created_at=later), ADA, block="a")
    assert await oauth.is_familiar_block(BOB.id, "a", 0.0)


async def test_what_changed_nothing_is_noted_in_the_audit_log(oauth: SqlStore, store: SqlStore) -> None:
    before = await store.audit_head()
    await oauth.add_audit_entry(logged())
    assert await oauth.add_sign_in(sign_in(1, ADA.id), ADA, logged())
    await oauth.delete_other_sign_ins(ADA.id, b"", logged())
    await oauth.delete_sign_in(digest(1), logged())
    assert (await store.audit_head()).sequence == before.sequence + 4


async def test_all_other_sign_ins_of_a_user_end_and_no_other_users(oauth: SqlStore) -> None:
    for number, of in enumerate((ADA, ADA, ADA, BOB)):
        assert await oauth.add_sign_in(sign_in(number, of.id), of)
    await oauth.delete_other_sign_ins(ADA.id, digest(1), logged())
    assert [await who(oauth, number) for number in range(4)] == [None, ADA, None, BOB]


async def who(oauth: SqlStore, number: int, now: float = NOW) -> User | None:
    """Return who is signed in by the cookie of that *number*."""
    session = await oauth.session(digest(number), now)
    return None if session is None else session[0]


async def test_a_client_comes_back_as_it_was_stored_to_its_account(oauth: SqlStore) -> None:
    old = SecretRecord(digest(30), "cs_mp1_…0002", NOW - 5.5, expires_at=NOW + 60.25)
    full = client(
        3, account=GLOBEX, name='A "quoted" app 🔑', environment="test", redirect_uris=("com.example.app:/cb", "https://a/"),
        scopes=READ, requires_pkce=False, binds_tokens=True, version=7,
        secrets=(SecretRecord(digest(31), "cs_mp1_…0003", NOW + 0.5), old),
    )  # fmt: skip
    public = client(4, is_public=True, secrets=(), grant_types=("authorization_code",))
    for each in (full, public):
        await oauth.add_client(each, logged())
        assert await oauth.client(None, each.id) == await oauth.client(each.account_id, each.id) == each
    assert await oauth.client(ACME.id, full.id) is None
    assert await oauth.client(None, "app_unknown") is None


async def test_clients_are_listed_newest_first_in_pages_without_those_that_were_deleted(oauth: SqlStore) -> None:
    two_secrets = (SecretRecord(digest(41), "…", NOW), SecretRecord(digest(42), "…", NOW))
    newest = client(3, created_at=NOW + 1, secrets=two_secrets)
    gone, theirs = client(4, deleted_at=NOW, secrets=()), client(5, account=GLOBEX, environment="test")
    for each in (newest, gone, theirs):
        await oauth.add_client(each, logged())
    for account_id, environment, after, limit, expected in (
        (ACME.id, None, None, 9, [newest, OTHER, APP]),
        (None, None, None, 9, [newest, theirs, OTHER, APP]),
        (None, None, None, 2, [newest, theirs]),
        (None, None, theirs.id, 9, [OTHER, APP]),
        (None, None, "app_unknown", 9, []),
        (None, "live", None, 9, [newest, OTHER, APP]),
        (None, "test", None, 9, [theirs]),
        (ACME.id, "test", None, 9, []),
    ):
        assert expected == await oauth.clients(account_id, environment=environment, after=after, limit=limit)
    assert await oauth.client(None, gone.id) == gone


async def test_a_client_is_changed_over_the_version_before_and_by_one_of_many(store: SqlStore, oauth: SqlStore) -> None:
    assert await oauth.put_grant(grant(1, APP, ADA), logged())
    assert await oauth.put_grant(grant(2, OTHER, ADA), logged())
    before = await logged_so_far(store)
    wanted = [
        replace(APP, name=f"Name {n}", version=2, secrets=(SecretRecord(digest(50 + n), "…", NOW),)) for n in range(8)
    ]
    answers = await asyncio.gather(*(oauth.replace_client(each, logged()) for each in wanted))
    (winner,) = [each for each, raised in zip(wanted, answers, strict=True) if raised is not None]
    assert answers[wanted.index(winner)] == [("grant_1", 2, ACME.id)]
    assert await oauth.client(None, APP.id) == winner
    assert await logged_so_far(store) == before + 1
    assert await oauth.replace_client(replace(winner, version=2), logged()) is None
    assert await oauth.replace_client(replace(winner, version=3, account_id=GLOBEX.id), logged()) is None


async def test_a_client_is_added_once_under_one_name_however_many_try(store: SqlStore, oauth: SqlStore) -> None:
    before = await logged_so_far(store)
    once, secrets = digest(99), [(SecretRecord(digest(60 + n), "…", NOW),) for n in range(8)]
    tried = [oauth.add_client(client(60 + n, secrets=secrets[n]), logged(), once) for n in range(8)]
    outcomes = await asyncio.gather(*tried, return_exceptions=True)
    assert sorted(type(each).__name__ for each in outcomes) == ["DuplicateRequest"] * 7 + ["NoneType"]
    assert len(await oauth.clients(ACME.id, environment=None, after=None, limit=99)) == 3
    assert await logged_so_far(store) == before + 1
    await oauth.add_client(client(70, secrets=(SecretRecord(digest(70), "…", NOW),)), logged(), digest(98))


async def test_a_client_that_cannot_be_added_leaves_its_name_to_the_next(oauth: SqlStore) -> None:
    with pytest.raises(InputError, match="secret is taken"):
        await oauth.add_client(client(9, secrets=APP.secrets), logged(), digest(99))
    await oauth.add_client(client(9, secrets=(SecretRecord(digest(9), "…", NOW),)), logged(), digest(99))


async def test_a_client_is_changed_once_under_one_name(store: SqlStore, oauth: SqlStore) -> None:
    before = await logged_so_far(store)
    renamed = replace(APP, name="renamed", version=2)
    assert await oauth.replace_client(replace(renamed, version=9), logged(), digest(99)) is None
    assert await oauth.replace_client(renamed, logged(), digest(99)) == []
    with pytest.raises(DuplicateRequest):
        await oauth.replace_client(replace(renamed, name="again", version=3), logged(), digest(99))
    assert await oauth.client(None, APP.id) == renamed
    assert await logged_so_far(store) == before + 1


async def test_a_client_and_a_holder_have_one_grant_however_many_give_it_at_once(oauth: SqlStore) -> None:
    for holder in (ADA, BOB, None):
        same = [grant(n, APP, holder, id=f"grant_{holder and holder.id}_{n}") for n in range(8)]
        given = await asyncio.gather(*(oauth.put_grant(each, logged()) for each in same))
        assert sum(given) == 1
        stored_grant = await oauth.grant_of(APP.id, holder.id if holder else APP.id, NOW)
        assert stored_grant == same[given.index(True)]
    assert len(await listed(oauth, None)) == 3


async def test_a_grant_is_written_over_the_version_before(oauth: SqlStore) -> None:
    first = grant(1, APP, ADA, scopes=READ)
    assert await oauth.put_grant(first, logged())
    wanted = replace(first, scopes=BOTH, version=2)
    assert sum(await asyncio.gather(*(oauth.put_grant(wanted, logged()) for _ in range(8)))) == 1
    assert await oauth.grant("grant_1", NOW) == wanted
    assert not await oauth.put_grant(replace(wanted, version=4), logged())
    assert await oauth.grant("grant_unknown", NOW) is None


async def test_a_grant_is_worth_what_its_client_account_and_user_are_worth(store: SqlStore, oauth: SqlStore) -> None:
    assert await oauth.put_grant(grant(1, APP, ADA), logged())

    async def current() -> Grant:
        grant = await oauth.grant("grant_1", NOW)
        assert grant is not None
        return grant

    assert await oauth.replace_client(replace(APP, scopes=READ, version=2), logged()) is not None
    assert ("grant_1", 3, ACME.id) in (await store.set_tier(ACME, "enterprise", logged()) or ())
    assert len(await store.set_tier(GLOBEX, "standard", logged()) or ()) == 1  # the account itself
    assert await current() == grant(1, APP, ADA, scopes=READ, tier="enterprise", account_tier="enterprise", version=3)
    assert await oauth.replace_user(ADA, replace(ADA, disabled_at=NOW), logged()) == [("grant_1", 4, ACME.id)]
    assert not (await current()).is_alive
    assert await oauth.replace_user(replace(ADA, disabled_at=NOW), ADA, logged()) == [("grant_1", 5, ACME.id)]
    assert (await current()).is_alive
    deleted = replace(APP, version=3, deleted_at=NOW, secrets=())
    assert await oauth.replace_client(deleted, logged()) == [("grant_1", 6, ACME.id)]
    assert not (await current()).is_alive


async def test_a_grant_has_the_tiers_of_its_clients_account_and_of_its_users(store: SqlStore, oauth: SqlStore) -> None:
    theirs = grant(1, APP, BOB, account_id=GLOBEX.id, account_tier=GLOBEX.tier)
    assert theirs.tier != theirs.account_tier
    assert await oauth.put_grant(theirs, logged())
    assert await oauth.grant("grant_1", NOW) == theirs
    assert ("grant_1", 2, GLOBEX.id) in (await store.set_tier(GLOBEX, "partner", logged()) or ())
    assert await oauth.grant("grant_1", NOW) == replace(theirs, account_tier="partner", version=2)
    assert ("grant_1", 3, GLOBEX.id) in (await store.set_tier(ACME, "basic", logged()) or ())
    assert await oauth.grant("grant_1", NOW) == replace(theirs, account_tier="partner", tier="basic", version=3)


async def test_grants_of_an_account_are_listed_newest_first(oauth: SqlStore) -> None:
    of = client(3, account=GLOBEX, environment="test")
    await oauth.add_client(of, logged())
    mine, own, theirs = grant(1, APP, ADA), grant(2, OTHER, None), grant(3, of, BOB)
    for each in (mine, own, theirs):
        assert await oauth.put_grant(each, logged())
    assert await listed(oauth, None) == [theirs, own, mine]
    assert await listed(oauth, ACME.id) == [own, mine]
    assert await listed(oauth, None, client_id=APP.id) == [mine]
    assert await listed(oauth, GLOBEX.id, client_id=APP.id) == []
    assert await listed(oauth, None, environment="test") == [theirs]
    assert await listed(oauth, ACME.id, environment="test") == []
    assert await listed(oauth, None, limit=1) == [theirs]
    assert await listed(oauth, None, after=theirs.id, limit=1) == [own]
    assert await listed(oauth, None, after=own.id) == [mine]
    assert await listed(oauth, None, after="grant_unknown") == []


async def test_a_change_of_an_accounts_tier_concerns_its_clients_too(store: SqlStore, oauth: SqlStore) -> None:
    place = (await oauth.changes_after(None)).after
    change = replace(logged(), object_id=ACME.id, action="account.set_tier")
    assert await store.set_tier(ACME, "enterprise", change) is not None
    assert set((await oauth.changes_after(place)).ids) == {ACME.id, APP.id, OTHER.id}


async def test_a_grant_is_revoked_once_and_in_its_account(store: SqlStore, oauth: SqlStore) -> None:
    assert await oauth.put_grant(grant(1, APP, ADA), logged())
    before = await logged_so_far(store)
    assert await oauth.revoke_grant(GLOBEX.id, "grant_1", logged()) is None
    assert await oauth.revoke_grant(None, "grant_unknown", logged()) is None
    at_once = await asyncio.gather(*(oauth.revoke_grant(ACME.id, "grant_1", logged()) for _ in range(8)))
    assert sorted(at_once, key=str) == [("grant_1", 2, ACME.id), *[None] * 7]
    assert await logged_so_far(store) == before + 1


async def test_a_revoked_grant_comes_back_without_what_came_of_it_before(oauth: SqlStore) -> None:
    first = grant(1, APP, ADA)
    assert await oauth.put_grant(first, logged(NOW))
    for number in (1, 2):
        await oauth.add_code(code(number, first))
    assert await oauth.revoke_grant(None, "grant_1", logged(NOW))
    # What was under way meanwhile, and came too late to be ended with the grant.
    assert await oauth.use_code(digest(1), NOW, family(1, first), None)
    again = replace(first, scopes=READ, version=3, valid_from=3)
    assert await oauth.put_grant(again, logged(NOW + 1))
    stored_grant = await oauth.grant("grant_1", NOW + 1)
    assert stored_grant == replace(again, ended_families=frozenset({"family_1"}))
    assert await oauth.code(digest(2)) is None
    assert not await oauth.use_code(digest(2), NOW, family(2, first), None)
    extended = replace(again, scopes=Scopes(BOTH.names), version=4)
    await oauth.add_code(code(3, again))
    assert await oauth.put_grant(extended, logged(NOW + 2))
    assert await oauth.code(digest(3)) is not None  # more was consented to, and nothing revoked


def itself(number: int, **settings: Any) -> OAuthClient:  # noqa: ANN401 - any of its fields
    """Return a client that registered itself."""
    given: dict[str, Any] = {"is_self_registered": True, "grant_types": ("authorization_code", "refresh_token")}
    return client(number, **(given | settings))


async def test_a_client_stays_one_that_registered_itself(oauth: SqlStore) -> None:
    one = itself(3)
    assert await oauth.register_client(one, 1, logged())
    assert await oauth.client(None, one.id) == one
    changed = replace(one, name="Renamed", is_self_registered=False, version=2)
    assert await oauth.replace_client(changed, logged()) is not None
    assert await oauth.client(None, one.id) == replace(changed, is_self_registered=True)


async def test_no_more_clients_register_themselves_than_may_however_many_do_at_once(
    store: SqlStore, oauth: SqlStore
) -> None:
    before = await logged_so_far(store)
    stored = await asyncio.gather(*(oauth.register_client(itself(10 + number), 7, logged()) for number in range(30)))
    assert sum(stored) == 7
    assert await logged_so_far(store) == before + 7
    page = await oauth.clients(None, environment=None, after=None, limit=99)
    assert len([one for one in page if one.is_self_registered]) == 7
    ended = replace(next(one for one in page if one.is_self_registered), deleted_at=NOW, secrets=(), version=2)
    await oauth.replace_client(ended, logged())
    assert await oauth.register_client(itself(90), 7, logged())  # a deleted one leaves its place to another
    with pytest.raises(InputError, match="acct_unknown"):
        await oauth.register_client(itself(91, account_id="acct_unknown"), 99, logged())


async def test_unused_clients_are_removed_once_with_their_secrets(store: SqlStore, oauth: SqlStore) -> None:
    old, older, used = itself(3, created_at=NOW + 2), itself(4, created_at=NOW + 1), itself(5)
    for one in (old, older, used, itself(6, created_at=NOW + 3)):
        assert await oauth.register_client(one, 9, logged())
    assert await oauth.put_grant(grant(1, used, ADA), logged())
    assert await oauth.put_grant(grant(3, old, None), logged())  # of its own: no user allowed it
    assert await oauth.unused_clients(NOW + 2, 9) == [older, old]
    assert await oauth.unused_clients(NOW + 2, 1) == [older]
    before = await logged_so_far(store)
    assert not await oauth.remove_clients([old.id, used.id], logged())  # a user allowed one of them meanwhile
    assert not await oauth.remove_clients([old.id, APP.id], logged())  # and this one did not register itself
    assert await logged_so_far(store) == before
    removed = await asyncio.gather(*(oauth.remove_clients([older.id, old.id], logged()) for _ in range(4)))
    assert sorted(removed) == [False, False, False, True]
    assert await logged_so_far(store) == before + 1
    assert [await oauth.client(None, one.id) for one in (old, older)] == [None, None]
    assert await oauth.client(None, used.id) == used
    with pytest.raises(InputError):
        await oauth.put_grant(grant(2, old, BOB), logged())
    assert await oauth.register_client(itself(7, secrets=old.secrets), 9, logged())  # whose secret is gone too
