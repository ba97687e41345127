from dataclasses import replace
from typing import Any

import pytest

from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.key import KeyRecord, KeyStatus, secret_environment
from machpay_gateway.services.keys import Keys
from tests.clocks import FixedClock
from tests.keyrings import ACME, NOW, Announced


@pytest.mark.parametrize("environment, tier", [("live", "standard"), ("test", "test")])
async def test_a_created_key_is_what_was_asked_for(keys: Keys, environment: str, tier: str) -> None:
    record, secret = await keys.create(
        ACME.id,
        name="  deploy ",
        scopes=["skills:*", "keys:manage"],
        environment=environment,
        allowed_ips=["203.0.113.0/24", "203.0.113.0/24", "::ffff:198.51.100.7"],
        expires_at=NOW + 60,
        metadata={"team": "ops"},
        owner=" customer 17 ",
    )
    assert secret_environment(secret.encode()) == environment
    assert (record.name, record.environment, record.tier, record.version) == ("deploy", environment, tier, 1)
    assert list(record.scopes) == ["keys:manage", "skills:*"]
    assert record.allowed_ips == ("203.0.113.0/24", "198.51.100.7")  # normalised, each once
    assert (record.created_at, record.expires_at, record.last_rotated_at) == (NOW, NOW + 60, None)
    assert (record.metadata, record.owner) == ({"team": "ops"}, "customer 17")
    assert record.masked == f"sk_{environment}_…{secret[-4:]}"
    assert await keys.get(ACME.id, record.id) == record


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"scopes": ["skills:run"]},
            'Scope "skills:run" is not defined; known scopes: keys:manage, skills:execute, skills:list.',
        ),
        ({"scopes": ["*"]}, 'Scope "*" is not defined'),  # a wildcard never crosses a delimiter
        ({"scopes": ["account:*"]}, 'Scope "account:*" is not defined'),  # over nothing known
        ({"scopes": ["skills:list"] * 2}, 'Scope "skills:list" is given twice'),
        ({"scopes": ["skills:list"] * 101}, "101 scopes are too many: use at most 100"),
        ({"name": ""}, 'The name "" has 0 characters: use 1 to 100.'),
        ({"name": " \t "}, "has 0 characters: use 1 to 100."),
        ({"name": "n" * 101}, "has 101 characters: use 1 to 100."),
        ({"name": "a\nb"}, 'The name "a\\u000ab" has characters that cannot be shown'),
        ({"name": "a\ud800"}, "has characters that cannot be shown"),  # no database stores half a character
        ({"owner": ""}, 'The owner "" has 0 characters: use 1 to 200.'),
        ({"owner": "o" * 201}, "has 201 characters: use 1 to 200."),
        ({"owner": "a\x7fb"}, 'The owner "a\\u007fb" has characters that cannot be shown'),
        ({"allowed_ips": ["10.0.0.0/33"]}, "allowed_ips: '10.0.0.0/33' is not a network (prefix is 0–32)."),
        ({"allowed_ips": ["10.0.0.1/8"]}, "write 10.0.0.0/8 for the network, or 10.0.0.1 for the one address"),
        ({"allowed_ips": ["10.0.0.1"] * 1001}, "allowed_ips has 1001 networks: use at most 1000"),
        ({"expires_at": NOW}, "expires_at 2023-11-14T22:13:20Z is past: use a later moment, or none for never."),
        ({"expires_at": -1e18}, "is past"),
        ({"expires_at": float("nan")}, "expires_at nan is not a moment"),
        ({"expires_at": float("inf")}, "expires_at inf is not a moment"),
        ({"metadata": {str(n): "" for n in range(51)}}, "metadata has 51 pairs: use at most 50."),
        ({"metadata": {"k" * 41: ""}}, "use 1 to 40 characters"),
        ({"metadata": {"": ""}}, 'metadata key "": use 1 to 40 characters'),
        ({"metadata": {"k": "v" * 501}}, 'metadata value of "k" has 501 characters: use at most 500.'),
        ({"metadata": {"k": "\ud800"}}, 'metadata value of "k" is not Unicode text'),
    ],
)
async def test_wrong_settings_are_named_with_the_way_out_and_change_nothing(
    keys: Keys, key: KeyRecord, change: dict[str, Any], message: str
) -> None:
    settings: dict[str, Any] = {"name": "deploy", "scopes": [], "environment": "live"}
    with pytest.raises(InputError) as refused_creation:
        await keys.create(ACME.id, **settings | change)
    with pytest.raises(InputError) as refused_update:
        await keys.update(ACME.id, key.id, **change)
    assert message in str(refused_creation.value)
    assert str(refused_update.value) == str(refused_creation.value)
    assert list(await keys.list(None)) == [key]


async def test_what_is_just_within_the_limits_is_accepted(keys: Keys) -> None:
    record, _ = await keys.create(
        ACME.id,
        name="ü" * 100,
        scopes=[],
        environment="test",
        allowed_ips=[f"10.0.{n // 250}.{n % 250}" for n in range(1000)],
        metadata={"k" * 40: "v" * 500} | {str(n): "" for n in range(49)},
        owner="ü" * 200,
    )
    assert record.owner == "ü" * 200
    assert (len(record.name), len(record.allowed_ips), len(record.metadata)) == (100, 1000, 50)


@pytest.mark.parametrize("environment", ["Live", "", "staging"])
async def test_an_unknown_environment_is_refused(keys: Keys, environment: str) -> None:
    with pytest.raises(InputError, match="use live or test"):
        await keys.create(ACME.id, name="deploy", scopes=[], environment=environment)


async def test_a_key_of_an_unknown_account_is_refused(keys: Keys) -> None:
    with pytest.raises(InputError, match="acct_unknown"):
        await keys.create("acct_unknown", name="deploy", scopes=[], environment="live")


async def test_an_update_changes_what_is_given_and_nothing_else(keys: Keys, clock: FixedClock) -> None:
    before, _ = await keys.create(
        ACME.id, name="deploy", scopes=["skills:list"], environment="live", expires_at=NOW + 60, metadata={"a": "b"}
    )
    clock.now += 1
    assert await keys.update(ACME.id, before.id, name="other") == replace(before, name="other", version=2)
    assert await keys.update(ACME.id, before.id, expires_at=None) == replace(
        before, name="other", version=3, expires_at=None
    )
    assert await keys.update(ACME.id, before.id, allowed_ips=[], metadata={}) == replace(
        before, name="other", version=4, expires_at=None, metadata={}
    )
    owned = await keys.update(ACME.id, before.id, owner="customer 17")
    assert owned == replace(before, name="other", version=5, expires_at=None, metadata={}, owner="customer 17")
    assert await keys.update(ACME.id, before.id, owner=None) == replace(owned, version=6, owner=None)


@pytest.mark.parametrize("environment, accounts", [("live", "standard"), ("test", "test")])
async def test_a_key_gets_a_tier_of_its_own_and_its_accounts_back(
    keys: Keys, announced: Announced, environment: str, accounts: str
) -> None:
    before, _ = await keys.create(ACME.id, name="deploy", scopes=[], environment=environment)
    own = await keys.update(ACME.id, before.id, own_tier="enterprise")
    assert own == replace(before, version=2, tier="enterprise", own_tier="enterprise", account_tier=accounts)
    assert await keys.get(ACME.id, before.id) == own
    assert await keys.update(ACME.id, before.id, own_tier=None) == replace(before, version=3, tier=accounts)
    assert announced == [(before.id, 2, ACME.id), (before.id, 3, ACME.id)]


@pytest.mark.parametrize("tier", ["gold", "", "Enterprise"])
async def test_a_tier_that_is_not_configured_is_refused_with_the_known_ones(
    keys: Keys, key: KeyRecord, tier: str
) -> None:
    with pytest.raises(InputError) as refused:
        await keys.update(ACME.id, key.id, own_tier=tier)
    assert str(refused.value) == f'Tier "{tier}" is not configured; known tiers: test, standard, enterprise.'
    assert await keys.get(ACME.id, key.id) == key


async def test_an_update_to_what_is_already_so_is_no_change(keys: Keys, key: KeyRecord, announced: Announced) -> None:
    assert await keys.update(ACME.id, key.id) == key
    assert await keys.update(ACME.id, key.id, name="deploy", scopes=["skills:list"], metadata={}) == key
    assert announced == []


async def test_an_expired_key_can_be_given_a_later_end(keys: Keys, key: KeyRecord, clock: FixedClock) -> None:
    await keys.update(ACME.id, key.id, expires_at=NOW + 60)
    clock.now = NOW + 61
    revived = await keys.update(ACME.id, key.id, expires_at=NOW + 120)
    assert revived is not None
    assert revived.status(clock.now) is KeyStatus.ACTIVE


@pytest.mark.parametrize("field", ["name", "owner", "metadata", "allowed_ips"])
async def test_a_secret_is_never_stored_by_mistake_nor_repeated(keys: Keys, field: str) -> None:
    _, secret = await keys.create(ACME.id, name="first", scopes=["skills:list"], environment="live")
    values: dict[str, Any] = {"name": secret, "owner": secret, "metadata": {"key": secret}, "allowed_ips": [secret]}
    settings: dict[str, Any] = {"name": "second"} | {field: values[field]}
    with pytest.raises(InputError, match=r"holds a secret|is not a network") as refused:
        await keys.create(ACME.id, scopes=["skills:list"], environment="live", **settings)
    assert secret[12:] not in str(refused.value)
