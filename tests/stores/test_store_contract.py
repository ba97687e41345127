"""One suite for every store: what `core.ports` promises, whatever is underneath."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.audit import AuditHead, Change
from machpay_gateway.core.keys.key import KeyRecord, KeyStatus, SecretRecord, StatusAt
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.stores.sql import SqlStore
from tests.keyrings import logged

pytestmark = pytest.mark.parametrize(
    "unopened_store", ["memory", "sqlite", "sqlite-in-memory", "postgresql"], indirect=True
)

ACME = Account("acct_acme", "Acme", "standard", 100.0)
GLOBEX = Account("acct_globex", "Globex", "enterprise", 50.0)


@pytest.fixture
async def store(unopened_store: SqlStore) -> AsyncIterator[SqlStore]:
    store = unopened_store
    await store.open()
    assert await store.add_account(ACME, logged())
    assert await store.add_account(GLOBEX, logged())
    yield store
    await store.close()


def digest(number: int) -> bytes:
    return bytes([number]) * 32


def key(number: int, *, account: Account = ACME, environment: str = "live", created_at: float = 1000.0) -> KeyRecord:
    return KeyRecord(
        id=f"key_{number:03}",
        account_id=account.id,
        name=f"key {number}",
        environment=environment,
        tier=account.tier if environment == "live" else "test",
        account_tier=account.tier if environment == "live" else "test",
        scopes=Scopes(frozenset({"skills:list"})),
        allowed_ips=(),
        created_at=created_at,
        secrets=(SecretRecord(digest(number), "sk_live_…0001", created_at),),
    )


FULL = replace(
    key(1),
    name="Prüfschlüssel 🔑",
    scopes=Scopes(frozenset({"skills:*", "account:read"})),
    allowed_ips=("203.0.113.0/24", "2001:db8::/32"),
    secrets=(
        SecretRecord(digest(1), "sk_live_…curr", 1500.25),
        SecretRecord(digest(2), "sk_live_…prev", 1000.5, expires_at=2000.75),
    ),
    version=3,
    expires_at=9000.125,
    revoked_at=8000.5,
    last_rotated_at=1500.25,
    owner="Kundin 17 🔑",
    own_tier="pro",
    tier="pro",
    metadata={"team": 'ops "quoted"', "nul": "\0", "snow": "☃"},
)


async def test_a_key_comes_back_as_it_was_stored(store: SqlStore) -> None:
    await store.add_key(FULL, logged())
    assert await store.key(ACME.id, FULL.id) == FULL


async def test_a_key_is_found_by_each_of_its_secrets_whatever_its_status(store: SqlStore) -> None:
    await store.add_key(FULL, logged())
    assert await store.find_by_digest(digest(1)) == FULL
    assert await store.find_by_digest(digest(2)) == FULL
    assert await store.find_by_digest(digest(3)) is None


async def test_a_key_is_seen_by_its_account_and_by_operators_only(store: SqlStore) -> None:
    await store.add_key(key(1), logged())
    assert await store.key(ACME.id, "key_001") == key(1)
    assert await store.key(None, "key_001") == key(1)
    assert await store.key(GLOBEX.id, "key_001") is None
    assert await store.key(None, "key_002") is None


async def test_the_tier_is_the_accounts_for_live_keys_and_test_for_test_keys(store: SqlStore) -> None:
    await store.add_key(replace(key(1), tier="a tier of the caller's choice"), logged())
    await store.add_key(replace(key(2, environment="test"), tier="enterprise"), logged())
    await store.set_tier(ACME, "enterprise", logged(2000.0))
    tiers = {record.id: record.tier for record in await store.keys(ACME.id)}
    assert tiers == {"key_001": "enterprise", "key_002": "test"}
    by_digest = await store.find_by_digest(digest(1))
    assert by_digest is not None
    assert by_digest.tier == "enterprise"


@pytest.mark.parametrize("environment, accounts", [("live", "enterprise"), ("test", "test")])
async def test_a_tier_of_its_own_takes_the_place_of_the_accounts(
    store: SqlStore, environment: str, accounts: str
) -> None:
    await store.add_key(key(1, environment=environment), logged())
    own = replace(key(1, environment=environment), version=2).with_own_tier("partner")
    assert await store.replace_key(own, logged())
    assert await store.set_tier(ACME, "enterprise", tier_change()) is not None
    found = await store.find_by_digest(digest(1))
    assert found is not None
    assert (found.tier, found.own_tier, found.account_tier) == ("partner", "partner", accounts)
    assert await store.replace_key(replace(found, version=3).with_own_tier(None), logged())
    found = await store.key(ACME.id, "key_001")
    assert found is not None
    assert (found.tier, found.own_tier, found.account_tier) == (accounts, None, accounts)


@pytest.mark.parametrize(
    "account_id, selection, expected",
    [
        (ACME.id, {}, [5, 3, 2, 1]),  # newest first; equal moments by id, so that pages do not shift
        (None, {}, [5, 4, 3, 2, 1]),  # an operator sees everybody's
        (ACME.id, {"limit": 2}, [5, 3]),
        (ACME.id, {"after": "key_003", "limit": 2}, [2, 1]),  # the mark's moment is shared with key 2
        (ACME.id, {"after": "key_001"}, []),
        (ACME.id, {"environment": "test"}, [2]),
        (ACME.id, {"environment": "test", "after": "key_005"}, [2]),  # a mark need not pass the filter itself
        (GLOBEX.id, {"after": "key_005"}, []),  # another account's key is no mark: it would tell when it was made
        (ACME.id, {"after": "key_unknown"}, []),
        ("acct_unknown", {}, []),
    ],
)
async def test_keys_come_newest_first_in_pages(
    store: SqlStore, account_id: str | None, selection: dict[str, Any], expected: list[int]
) -> None:
    await store.add_key(key(1, created_at=1000.0), logged())
    await store.add_key(key(3, created_at=2000.0), logged())
    await store.add_key(key(2, created_at=2000.0, environment="test"), logged())
    await store.add_key(key(5, created_at=4000.0), logged())
    await store.add_key(key(4, created_at=3000.0, account=GLOBEX), logged())
    page = await store.keys(account_id, **selection)
    assert [record.id for record in page] == [f"key_{number:03}" for number in expected]


@pytest.mark.parametrize(
    "status, selection, expected",
    [
        (KeyStatus.ACTIVE, {}, [6, 1]),
        (KeyStatus.EXPIRED, {}, [3, 2]),  # the moment of expiry is past it
        (KeyStatus.REVOKED, {}, [5, 4]),  # which outweighs that it also expired
        (KeyStatus.ACTIVE, {"limit": 1}, [6]),
        (KeyStatus.ACTIVE, {"after": "key_003", "limit": 1}, [1]),  # a page is full of keys with the status
        (KeyStatus.EXPIRED, {"environment": "test"}, []),
    ],
)
async def test_a_page_of_one_status_has_the_keys_that_are_so_at_the_moment(
    store: SqlStore, status: KeyStatus, selection: dict[str, Any], expected: list[int]
) -> None:
    states: list[dict[str, Any]] = [
        {},
        {"expires_at": 5000.0},
        {"expires_at": 4000.0},
        {"expires_at": 4000.0, "revoked_at": 4500.0},
        {"revoked_at": 4500.0},
        {"expires_at": 5000.5},
    ]
    for number, state in enumerate(states, start=1):
        await store.add_key(replace(key(number, created_at=1000.0 + number), **state), logged())
    page = await store.keys(ACME.id, status=StatusAt(status, 5000.0), **selection)
    assert [record.id for record in page] == [f"key_{number:03}" for number in expected]


async def test_a_page_counts_keys_and_not_their_secrets(store: SqlStore) -> None:
    await store.add_key(FULL, logged())
    await store.add_key(key(3, created_at=500.0), logged())
    page = await store.keys(ACME.id, limit=2)
    assert [len(record.secrets) for record in page] == [2, 1]


async def test_a_replaced_key_answers_to_its_new_secrets_only(store: SqlStore) -> None:
    await store.add_key(key(1), logged())
    rotated = replace(FULL, version=2, secrets=(SecretRecord(digest(7), "sk_live_…0007", 1500.0),))
    assert await store.replace_key(rotated, logged(1500.0))
    assert await store.key(ACME.id, "key_001") == rotated
    assert await store.find_by_digest(digest(7)) == rotated
    assert await store.find_by_digest(digest(1)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},  # the stored one
        {"version": 3},  # of a later one than is stored
        {"version": 2, "account_id": GLOBEX.id},
        {"version": 2, "id": "key_unknown"},
    ],
)
async def test_a_key_is_replaced_over_the_version_before_only(store: SqlStore, change: dict[str, Any]) -> None:
    await store.add_key(key(1), logged())
    secrets = (SecretRecord(digest(7), "sk_live_…0007", 1500.0),)
    wanted = replace(key(1), name="changed", secrets=secrets, **change)
    assert not await store.replace_key(wanted, logged(1500.0))
    assert await store.key(None, "key_001") == key(1)
    assert await store.find_by_digest(digest(7)) is None


async def test_of_many_changes_at_once_to_one_version_one_is_stored(store: SqlStore) -> None:
    await store.add_key(key(1), logged())
    wanted = [replace(key(1), version=2, name=f"name {number}") for number in range(10)]
    stored = await asyncio.gather(*(store.replace_key(record, logged(1500.0)) for record in wanted))
    assert stored.count(True) == 1
    assert await store.key(None, "key_001") == wanted[stored.index(True)]


@pytest.mark.parametrize(
    "change",
    [
        {"id": "key_001", "account_id": ACME.id},  # the id is taken
        {"secrets": key(1).secrets},  # the secret is another key's
        {"account_id": "acct_unknown"},
    ],
)
async def test_a_key_that_does_not_fit_is_refused_and_leaves_nothing(store: SqlStore, change: dict[str, Any]) -> None:
    await store.add_key(key(1), logged())
    with pytest.raises(InputError, match="key_0"):
        await store.add_key(replace(key(2), **change), logged())
    assert list(await store.keys(None)) == [key(1)]
    assert await store.find_by_digest(digest(2)) is None


async def test_a_change_to_another_keys_secret_is_refused_and_changes_nothing(store: SqlStore) -> None:
    await store.add_key(key(1), logged())
    await store.add_key(key(2), logged())
    with pytest.raises(InputError, match="key_002"):
        await store.replace_key(replace(key(2), version=2, name="changed", secrets=key(1).secrets), logged(1500.0))
    assert await store.key(None, "key_002") == key(2)
    assert await store.find_by_digest(digest(2)) == key(2)


def tier_change(account: Account = ACME) -> Change:
    return replace(logged(2000.0), object_id=account.id, action="account.set_tier")


def changed(object_id: str, action: str = "key.update") -> Change:
    return replace(logged(), object_id=object_id, action=action)


async def test_changes_follow_one_another_whatever_the_clocks_that_stamped_them(store: SqlStore) -> None:
    start = await store.changes_after(None)
    assert (start.ids, start.is_last, start.is_continuous) == ((), True, True)
    assert await store.changes_after(start.after) == start
    await store.add_key(key(1), changed("key_001"))
    await store.add_key(key(2), replace(changed("key_002"), at=-1e9))
    page = await store.changes_after(start.after)
    assert (list(page.ids), page.is_last, page.is_continuous) == (["key_001", "key_002"], True, True)
    assert page.after == await store.audit_head()
    assert await store.changes_after(page.after) == page._replace(ids=())


async def test_many_changes_come_in_pages_and_too_many_not_at_all(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machpay_gateway.stores.sql.audit._CHANGES", 2)
    monkeypatch.setattr("machpay_gateway.stores.sql.audit._MOST_BEHIND", 5)
    start = (await store.changes_after(None)).after
    for number in range(1, 6):
        await store.add_key(key(number), changed(f"key_{number}"))
    place, pages = start, []
    for _ in range(3):
        page = await store.changes_after(place)
        place = page.after
        pages.append((list(page.ids), page.is_last))
    assert pages == [(["key_1", "key_2"], False), (["key_3", "key_4"], False), (["key_5"], True)]
    await store.add_key(key(6), changed("key_6"))
    page = await store.changes_after(start)
    assert (list(page.ids), page.is_continuous, page.after) == ([], False, await store.audit_head())


async def test_changes_do_not_follow_a_place_in_another_history(store: SqlStore) -> None:
    await store.add_key(key(1), changed("key_001"))
    place = (await store.changes_after(None)).after
    await store.add_key(key(2), changed("key_002"))
    later = (await store.changes_after(None)).after
    for lost in (AuditHead(place.sequence, bytes(32)), AuditHead(later.sequence, bytes(32)), AuditHead(99, bytes(32))):
        page = await store.changes_after(lost)
        assert (list(page.ids), page.is_continuous, page.after) == ([], False, later)


async def test_the_version_of_an_account_is_read_with_its_keys(store: SqlStore) -> None:
    await store.add_key(key(1), logged())
    await store.add_key(key(3, account=GLOBEX), logged())
    before = await store.find_by_ids(["key_001", "key_003"])
    place = (await store.changes_after(None)).after
    raised = await store.set_tier(ACME, "enterprise", tier_change())
    assert raised == [(ACME.id, place.sequence + 1, ACME.id)]
    assert list((await store.changes_after(place)).ids) == [ACME.id]
    found = {record.id: record for record in await store.find_by_digests([digest(1), digest(3), digest(99)])}
    assert set(found) == {"key_001", "key_003"}
    assert (found["key_001"].tier, found["key_001"].version) == ("enterprise", 1)
    assert found["key_001"].account_version == place.sequence + 1
    versions = {record.id: record.account_version for record in before}
    assert versions["key_001"] < found["key_001"].account_version
    assert versions["key_003"] == found["key_003"].account_version


@pytest.mark.parametrize("count", [1, 2, 10, 11, 100])
async def test_keys_are_found_many_at_once(store: SqlStore, count: int) -> None:
    for number in range(1, 12):
        await store.add_key(key(number), logged())
    numbers = [number % 12 + 1 for number in range(count)]  # with repetitions, and one that does not exist
    ids = {f"key_{number:03}" for number in numbers} - {"key_012"}
    assert {record.id for record in await store.find_by_digests([digest(number) for number in numbers])} == ids
    assert {record.id for record in await store.find_by_ids([f"key_{number:03}" for number in numbers])} == ids


async def test_an_account_is_found_by_id_and_by_name(store: SqlStore) -> None:
    assert await store.account(ACME.id) == ACME
    assert await store.account("Acme") == ACME
    assert await store.account("acme") is None
    assert list(await store.accounts()) == [GLOBEX, ACME]  # oldest first


async def test_an_id_wins_over_another_accounts_equal_name(store: SqlStore) -> None:
    await store.add_account(Account("acct_other", ACME.id, "standard", 1.0), logged())
    assert await store.account(ACME.id) == ACME


async def test_a_name_is_given_to_one_account_only(store: SqlStore) -> None:
    wanted = [Account(f"acct_{number}", "Initech", "standard", 1.0) for number in range(5)]
    added = await asyncio.gather(*(store.add_account(account, logged()) for account in wanted))
    assert added.count(True) == 1
    assert await store.account("Initech") == wanted[added.index(True)]


async def test_a_tier_change_writes_no_key_and_no_other_account(store: SqlStore) -> None:
    await store.add_key(key(1), logged())
    await store.add_key(key(3, account=GLOBEX), logged())
    assert await store.set_tier(ACME, "enterprise", tier_change()) is not None
    assert await store.account(ACME.id) == replace(ACME, tier="enterprise")
    assert await store.key(None, "key_003") == key(3, account=GLOBEX)
    assert await store.replace_key(replace(key(1), version=2), logged(1600.0))


@pytest.mark.parametrize("account", [replace(ACME, id="acct_unknown"), replace(ACME, tier="another since")])
async def test_a_tier_change_of_an_account_that_is_not_so_any_more_changes_nothing(
    store: SqlStore, account: Account
) -> None:
    head = await store.audit_head()
    assert await store.set_tier(account, "enterprise", logged(2000.0)) is None
    assert list(await store.accounts()) == [GLOBEX, ACME]
    assert await store.audit_head() == head


async def test_opening_twice_keeps_what_is_stored(store: SqlStore) -> None:
    await store.add_key(key(1), logged())
    await store.open()
    assert await store.key(None, "key_001") == key(1)


@pytest.mark.parametrize(
    "text, matches",
    [
        ("deploy", ["key_003", "key_001"]),  # a part of a name, whatever its case
        ("DEPLOY B", ["key_003"]),
        ("key_002", ["key_002"]),
        ("key_00", []),  # an id is meant whole
        ("b2c3", ["key_002"]),  # how the secret ends
        ("50%", ["key_002"]),  # no sign means anything
        ("%", ["key_002"]),
        ("_", []),
        ("sk_live", []),
    ],
)
async def test_keys_are_found_by_name_id_and_how_their_secret_ends(
    store: SqlStore, text: str, matches: list[str]
) -> None:
    names = {1: "Deploy A", 2: "50% off", 3: "old deploy b"}
    for number, name in names.items():
        secret = SecretRecord(
            digest(number), f"sk_live_…a{number}b{number}" if number != 2 else "sk_live_…b2c3", 1000.0
        )
        await store.add_key(replace(key(number), name=name, secrets=(secret,)), logged())
    await store.add_key(replace(key(9, account=GLOBEX), name="deploy"), logged())
    assert [record.id for record in await store.keys(ACME.id, search=text)] == matches
    assert [record.id for record in await store.keys(ACME.id, search=text, limit=1)] == matches[:1]
