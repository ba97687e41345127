from dataclasses import replace

import pytest

from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.key import KeyRecord, SecretRecord
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.services.accounts import Accounts
from machpay_gateway.stores.sql import SqlStore
from tests.clocks import FixedClock
from tests.keyrings import NOW, Announced, counted_entropy, logged, noting


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def announced() -> Announced:
    return []


@pytest.fixture
def store() -> SqlStore:
    return SqlStore("memory://")


@pytest.fixture
def accounts(store: SqlStore, clock: FixedClock, announced: Announced) -> Accounts:
    return Accounts(
        store,
        tiers=["test", "standard", "enterprise"],
        clock=clock,
        entropy=counted_entropy(),
        invalidate=noting(announced),
    )


async def test_a_created_account_is_found_by_id_and_name(accounts: Accounts) -> None:
    account = await accounts.create("  Acme GmbH ", "standard")
    assert account == Account(account.id, "Acme GmbH", "standard", NOW)
    assert account.id.startswith("acct_")
    assert await accounts.find(account.id) == account
    assert await accounts.find("Acme GmbH") == account


@pytest.mark.parametrize("absent", ["Globex", "acct_unknown", "", "a\0b", "\ud800"])
async def test_an_account_that_is_not_there_is_none(accounts: Accounts, absent: str) -> None:
    await accounts.create("Acme", "standard")
    assert await accounts.find(absent) is None
    assert await accounts.set_tier(absent, "enterprise") is None


async def test_accounts_are_listed_oldest_first(accounts: Accounts, clock: FixedClock) -> None:
    first = await accounts.create("Zeta", "standard")
    clock.now += 1
    second = await accounts.create("Alpha", "standard")
    assert list(await accounts.list()) == [first, second]


@pytest.mark.parametrize(
    "name, tier, message",
    [
        ("Acme", "gold", 'Tier "gold" is not configured; known tiers: test, standard, enterprise.'),
        ("", "standard", 'The name "" has 0 characters: use 1 to 100.'),
        ("n" * 101, "standard", "has 101 characters: use 1 to 100."),
        ("a\x1b[2J", "standard", "has characters that cannot be shown"),  # a terminal would act on it
        ("acct_1", "standard", "looks like an account's id"),  # or one account could pass for another
        ("Taken", "standard", 'An account named "Taken" exists already: choose another name.'),
        (" Taken ", "standard", "exists already"),  # blanks do not make another name
    ],
)
async def test_an_account_that_cannot_be_made_is_refused_with_the_way_out(
    accounts: Accounts, name: str, tier: str, message: str
) -> None:
    taken = await accounts.create("Taken", "standard")
    with pytest.raises(InputError) as refusal:
        await accounts.create(name, tier)
    assert message in str(refusal.value)
    assert list(await accounts.list()) == [taken]


@pytest.mark.parametrize("by_name", [False, True])
async def test_a_tier_change_announces_the_account_however_many_keys_it_has(
    accounts: Accounts, store: SqlStore, announced: Announced, *, by_name: bool
) -> None:
    acme, globex = await accounts.create("Acme", "standard"), await accounts.create("Globex", "standard")
    for key_id, account in [("key_1", acme), ("key_2", acme), ("key_3", globex)]:
        secrets = (SecretRecord(key_id.encode(), "…", NOW),)
        await store.add_key(KeyRecord(key_id, account.id, "deploy", "live", "", Scopes(), (), NOW, secrets), logged())
    changed = await accounts.set_tier(acme.name if by_name else acme.id, "enterprise")
    assert changed == replace(acme, tier="enterprise")
    assert announced == [(acme.id, (await store.audit_head()).sequence, acme.id)]
    assert await accounts.find("Globex") == globex


async def test_a_tier_that_is_not_configured_changes_nothing(accounts: Accounts, announced: Announced) -> None:
    acme = await accounts.create("Acme", "standard")
    with pytest.raises(InputError, match="known tiers: test, standard, enterprise"):
        await accounts.set_tier(acme.id, "gold")
    assert await accounts.find(acme.id) == acme
    assert announced == []


async def test_of_two_tier_changes_at_once_each_tells_the_log_what_it_found(
    store: SqlStore, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await accounts.create("Acme", "standard")
    read = store.account

    async def overtaken(id_or_name: str) -> Account | None:
        record = await read(id_or_name)
        monkeypatch.undo()
        await accounts.set_tier(account.id, "test")
        return record

    monkeypatch.setattr(store, "account", overtaken)
    assert await accounts.set_tier(account.id, "enterprise") == replace(account, tier="enterprise")
    changes = [(row.before, row.after) for row in await store.audit_rows(1)]
    assert changes == [('{"tier":"standard"}', '{"tier":"test"}'), ('{"tier":"test"}', '{"tier":"enterprise"}')]
