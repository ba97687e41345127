"""What the settings of an issuer make of the claims of its tokens, and which claims they refuse."""

from dataclasses import replace
from typing import Any

import pytest

from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.decision.request_limits import request_of
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.jose.claims import Claims, principal_from_claims, validate_claims
from machpay_gateway.core.jose.compact import CompactToken
from machpay_gateway.core.jose.issuer import Issuer
from machpay_gateway.core.keys.key import ACCOUNT, ENTROPY_BYTES, mint_id
from machpay_gateway.core.limits.rate import TIERS, SharedLimits, Tier

NOW = 1_800_000_000.0
ISS, AUD = "https://id.example.com", "https://api.example.com"
GOOD: dict[str, object] = {"iss": ISS, "aud": AUD, "sub": "user-1", "exp": NOW + 300}


def validated(claims: dict[str, object], **settings: Any) -> tuple[Claims | str, Issuer]:  # noqa: ANN401 - of any type
    issuer = Issuer(ISS, audience=AUD, **settings)
    return validate_claims(CompactToken("RS256", None, "at+jwt", GOOD | claims, b"", b""), issuer, NOW), issuer


def principal(claims: dict[str, object], **settings: Any) -> Principal:  # noqa: ANN401 - of any type
    accepted, issuer = validated(claims, **settings)
    assert isinstance(accepted, Claims), accepted
    return principal_from_claims(accepted, issuer, TIERS)


def refusal(claims: dict[str, object], **settings: Any) -> str:  # noqa: ANN401 - of any type
    refused, _ = validated(claims, **settings)
    assert isinstance(refused, str), refused
    return refused


ROLES = {"realm_access": {"roles": ["reader", "admin"]}}


@pytest.mark.parametrize(
    "scopes_claim, claims, scopes",
    [
        ("permissions", {"permissions": ["a:read", "a:write"]}, ["a:read", "a:write"]),
        ("permissions", {"permissions": "a:read a:write"}, ["a:read", "a:write"]),
        ("permissions", {"permissions": ["a:read"], "scope": "b"}, ["a:read"]),  # that claim and no other
        ("permissions", {"scope": "b"}, []),
        ("permissions", {"permissions": []}, []),
        ("permissions", {"permissions": ""}, []),
        ("realm_access.roles", ROLES, ["admin", "reader"]),
        ([["realm_access", "roles"]], ROLES, ["admin", "reader"]),
        ("realm_access.roles", {"realm_access": {}}, []),
        ("realm_access.roles", {"realm_access.roles": ["admin"]}, []),
        ([["realm_access.roles"]], {"realm_access.roles": ["admin"]}, ["admin"]),
        ("https://example.com/roles", {"https://example.com/roles": ["admin"]}, ["admin"]),
        (["https://example.com/roles"], {"https://example.com/roles": ["admin"]}, ["admin"]),
        ([["https://example.com/app", "roles"]], {"https://example.com/app": {"roles": ["admin"]}}, ["admin"]),
        ("cognito:groups", {"cognito:groups": ["admin"]}, ["admin"]),
        (["scope", "permissions"], {"scope": "a b", "permissions": ["c"]}, ["a", "b", "c"]),  # several are added up
        (("scope", "permissions"), {"permissions": ["c"]}, ["c"]),
        (["scp", ["resource_access", "my.api", "roles"]], {"resource_access": {"my.api": {"roles": ["x"]}}}, ["x"]),
        ("scope", {"scope": ["a", "b"]}, ["a", "b"]),  # an array too, once the claim is configured
        ("roles", {"roles": ["*", "keys:*", "a b", 'a"b', "", "ok"]}, ["ok"]),  # a foreign `*` widens nothing
    ],
)
def test_scopes_come_from_the_configured_claims(
    scopes_claim: object, claims: dict[str, object], scopes: list[str]
) -> None:
    assert list(principal(claims, scopes_claim=scopes_claim).scopes) == scopes


@pytest.mark.parametrize(
    "scope_map, claims, scopes",
    [
        ({"admin": "a b", "reader": ["c"]}, {"roles": ["admin"]}, ["a", "b"]),
        ({"admin": "a b", "reader": ["b", "c"]}, {"roles": ["reader", "admin"]}, ["a", "b", "c"]),
        ({"admin": "a"}, {"roles": ["owner", "a"]}, []),  # what the table does not list is dropped, whatever its name
        ({"admin": "a"}, {"roles": "admin other"}, ["a"]),
        ({"API Admin": "a"}, {"roles": ["API Admin"]}, ["a"]),
        ({"admin": "skills:*"}, {"roles": ["admin", "keys:*"]}, ["skills:*"]),  # the settings' own wildcard
        ({"admin": "a"}, {}, []),
        ({}, {"roles": ["admin"]}, []),
    ],
)
def test_a_table_says_which_scopes_a_value_stands_for(
    scope_map: dict[str, object], claims: dict[str, object], scopes: list[str]
) -> None:
    assert list(principal(claims, scopes_claim="roles", scope_map=scope_map).scopes) == scopes


def test_a_table_applies_to_the_usual_claims_too() -> None:
    settings = {"scope_map": {"read:all": "skills:list"}}
    assert list(principal({"scope": "read:all other"}, **settings).scopes) == ["skills:list"]
    assert list(principal({"scp": ["read:all"]}, **settings).scopes) == ["skills:list"]


COGNITO = {"client_id": "client-7", "token_use": "access"}


@pytest.mark.parametrize(
    "settings, claims, reason",
    [
        ({"audience_claim": "client_id"}, {"client_id": AUD}, None),
        ({"audience_claim": "client_id"}, {"client_id": AUD, "aud": "account"}, None),
        ({"audience_claim": "client_id"}, {"client_id": "client-8"}, "client_id names somebody else"),
        ({"audience_claim": "client_id"}, {"aud": AUD}, "claim client_id is missing"),  # never by `aud` as well
        ({"audience_claim": "client_id"}, {"client_id": 7}, "claim client_id is neither a string nor"),
        ({"audience_claim": "client_id"}, {"client_id": {AUD: 1}}, "claim client_id is neither a string nor"),
        ({"audience_claim": "azp"}, {"azp": [AUD, "other"]}, None),
        ({"audience_claim": "ext.client"}, {"ext": {"client": AUD}}, None),
        ({"audience_claim": "ext.client"}, {"ext": AUD}, "claim ext is not an object"),
    ],
)
def test_another_claim_can_stand_for_the_audience(
    settings: dict[str, object], claims: dict[str, object], reason: str | None
) -> None:
    if reason is None:
        assert principal(claims, **settings).id == "user-1"
    else:
        assert reason in refusal(claims, **settings)


@pytest.mark.parametrize(
    "wrong", [7, 7.5, True, None, ["acme"], {"acme": 1}, "", "x" * 256, "a\r\nX-Admin: 1", "a\x00", "a\u2028b"]
)
@pytest.mark.parametrize("setting", ["subject_claim", "account_claim", "owner_claim"])
def test_a_name_is_a_string_or_refused(setting: str, wrong: object) -> None:
    assert "claim org" in refusal({"org": wrong}, **{setting: "org"})
    assert "acme" not in refusal({"org": wrong}, **{setting: "org"})


@pytest.mark.parametrize("setting", ["subject_claim", "account_claim", "owner_claim"])
def test_a_configured_name_must_be_there(setting: str) -> None:
    assert refusal({}, **{setting: "org"}) == "claim org is missing"
    assert refusal({"ext": {}}, **{setting: "ext.org"}) == "claim ext.org is missing"
    assert refusal({"ext": []}, **{setting: "ext.org"}) == "claim ext is not an object"


@pytest.mark.parametrize("wrong", [7, True, None, {"admin": True}, ["admin", 1], [["admin"]], [None]])
@pytest.mark.parametrize(
    "settings",
    [{"scopes_claim": "roles"}, {"tier_claim": "roles", "tier_map": {}}, {"scopes_claim": ["scope", "roles"]}],
)
def test_scopes_and_tiers_of_another_type_are_refused(settings: dict[str, object], wrong: object) -> None:
    assert refusal({"roles": wrong}, **settings) == "claim roles is neither a string nor a list of strings"


def test_the_caller_the_account_and_the_owner_come_from_claims() -> None:
    settings = {"subject_claim": "email", "account_claim": ["https://example.com/org"], "owner_claim": "ext.team"}
    claims = {"email": "ada@example.com", "https://example.com/org": "acme", "ext": {"team": "core"}, "sub": 17}
    caller = principal(claims, **settings)
    assert (caller.id, caller.name, caller.account_id, caller.owner) == (
        "ada@example.com",
        "ada@example.com",
        "acme",
        "core",
    )
    assert caller.subject == principal({"sub": "ada@example.com"}).subject
    assert caller.subject != principal({"sub": "other"}).subject


def test_an_issuer_cannot_name_an_account_of_the_gateway() -> None:
    own = mint_id(ACCOUNT, bytes(ENTROPY_BYTES))
    for name in (own, f" {own}", f"{own} "):
        assert "account ids" in refusal({"org": name}, account_claim="org")
    assert principal({"org": own}, owner_claim="org").owner == own
    assert principal({"org": "acct_1"}, account_claim="org").account_id == "acct_1"


@pytest.mark.parametrize(
    "tier_map, value, tier",
    [
        ({"gold": "enterprise", "free": "test"}, "gold", "enterprise"),
        ({"gold": "enterprise", "free": "test"}, ["other", "free"], "test"),
        ({"gold": "enterprise", "free": "test"}, ["free", "gold"], "enterprise"),  # the first of the table
        ({"gold": "enterprise"}, "enterprise", "standard"),  # the name of a tier is none of the table's values
        ({"gold": "enterprise"}, "Gold", "standard"),
        ({"gold": "enterprise"}, "gold free", "standard"),  # a string is one value
        ({"gold": "enterprise"}, "", "standard"),
        ({"gold": "enterprise"}, [], "standard"),
        ({}, "enterprise", "standard"),
    ],
)
def test_a_claim_selects_a_tier_of_the_table_or_none(tier_map: dict[str, str], value: object, tier: str) -> None:
    caller = principal({"plan": value}, tier_claim="plan", tier_map=tier_map)
    assert (caller.tier, caller.account_tier, caller.limits) == (tier, tier, TIERS[tier])


def test_without_its_claim_a_caller_has_the_issuers_tier() -> None:
    assert principal({}, tier_claim="plan", tier_map={"gold": "enterprise"}, tier="test").tier == "test"
    assert principal({"tier": "enterprise", "plan": "enterprise"}, tier="test").tier == "test"


@pytest.mark.parametrize(
    "require, claims, reason",
    [
        ({"repository": "acme/api"}, {"repository": "acme/api"}, None),
        ({"repository": "acme/api"}, {"repository": ["x", "acme/api"]}, None),  # an array contains it
        ({"repository": "acme/api"}, {"repository": "acme/api2"}, "has no value"),
        ({"repository": "acme/api"}, {"repository": "ACME/API"}, "has no value"),
        ({"repository": "acme/api"}, {"repository": "acme/api x"}, "has no value"),
        ({"repository": "acme/api"}, {"repository": {"acme/api": "acme/api"}}, "has no value"),
        ({"repository": "acme/api"}, {"repository": [["acme/api"]]}, "has no value"),
        ({"repository": "acme/api"}, {"repository": []}, "has no value"),
        ({"repository": "acme/api"}, {"repository": None}, "has no value"),
        ({"repository": "acme/api"}, {}, "repository is missing"),
        ({"ref": ["refs/heads/main", "refs/heads/next"]}, {"ref": "refs/heads/next"}, None),
        ({"ref": ["refs/heads/main", "refs/heads/next"]}, {"ref": "refs/heads/other"}, "has no value"),
        ({"a": "1", "b": "2"}, {"a": "1", "b": "2"}, None),
        ({"a": "1", "b": "2"}, {"a": "1"}, "b is missing"),  # all of them
        ({"a": "1", "b": "2"}, {"a": "1", "b": "1"}, "claim b has no value"),
        ({"email_verified": True}, {"email_verified": True}, None),
        ({"email_verified": True}, {"email_verified": False}, "has no value"),
        ({"email_verified": True}, {"email_verified": 1}, "has no value"),  # 1 equals True in Python
        ({"email_verified": True}, {"email_verified": "true"}, "has no value"),
        ({"email_verified": [True, "true"]}, {"email_verified": "true"}, None),
        ({"admin": False}, {"admin": 0}, "has no value"),
        ({"n": "1"}, {"n": 1}, "has no value"),
        ({"kubernetes.io": {"namespace": "prod"}}, {"kubernetes.io": {"namespace": "prod"}}, None),
        ({"kubernetes.io": {"namespace": "prod"}}, {"kubernetes.io": {"namespace": "dev"}}, "has no value"),
        ({"kubernetes.io": {"namespace": "prod"}}, {"kubernetes.io": "prod"}, "kubernetes.io is not an object"),
        ({"realm_access.roles": "admin"}, ROLES, None),
        ({"realm_access": {"roles": "admin"}}, ROLES, None),
        ({"realm_access.roles": "owner"}, ROLES, "has no value"),
        ({"https://example.com/org": "acme"}, {"https://example.com/org": "acme"}, None),
    ],
)
def test_conditions_on_claims(require: dict[str, object], claims: dict[str, object], reason: str | None) -> None:
    if reason is None:
        assert principal(claims, require=require).id == "user-1"
    else:
        assert reason in refusal(claims, require=require)


def test_the_reason_of_a_refusal_holds_no_value_of_the_token() -> None:
    settings = dict.fromkeys(("audience_claim", "subject_claim", "scopes_claim", "account_claim"), "x")
    for value in ("sentinel", ["sentinel"], {"sentinel": "sentinel"}, [["sentinel"]]):
        refused, _ = validated({"x": value}, **settings, tier_claim="x", tier_map={}, require={"x": "other"})
        assert "sentinel" not in str(refused)


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"audience_claim": ""}, "audience_claim '' is not a claim: use a name, a path such as"),
        ({"subject_claim": 5}, "subject_claim 5 is not a claim"),
        ({"account_claim": "a..b"}, r"account_claim 'a\.\.b' is not a claim"),
        ({"owner_claim": ["a", ""]}, r"owner_claim \['a', ''\] is not a claim"),
        ({"owner_claim": []}, r"owner_claim \[\] is not a claim"),
        ({"tier_claim": {"a": "b"}}, "tier_claim {'a': 'b'} is not a claim"),
        ({"scopes_claim": []}, r"scopes_claim \[\] is neither a claim nor a list of claims"),
        ({"scopes_claim": 5}, "scopes_claim 5 is neither a claim nor a list of claims"),
        ({"scopes_claim": ["a", 5]}, "scopes_claim 5 is not a claim"),
        ({"scopes_claim": [["a", 5]]}, r"scopes_claim \['a', 5\] is not a claim"),
        ({"scope_map": "admin"}, "scope_map is a table of values and scopes"),
        ({"scope_map": {"admin": "sk*"}}, r"scope_map\.admin: 'sk\*': a `\*` may only stand"),
        ({"scope_map": {"admin": []}}, r"scope_map\.admin: \[\] is neither a scope nor a list"),
        ({"scope_map": {"admin": ""}}, r"scope_map\.admin: '' is neither a scope nor a list"),
        ({"scope_map": {"admin": ["a b"]}}, r"scope_map\.admin: 'a b' is not a scope name"),
        ({"scope_map": {"admin": [5]}}, r"scope_map\.admin: 5 is not a scope"),
        ({"scope_map": {"admin": True}}, r"scope_map\.admin: True is neither a scope nor a list"),
        ({"scope_map": {"": "a"}}, "scope_map: '' is not a value of a claim"),
        ({"tier_map": {"gold": "enterprise"}}, "tier_map needs tier_claim"),
        ({"tier_claim": "plan"}, "tier_claim needs tier_map, a table of its values, as in { gold = 'enterprise' }"),
        ({"tier_claim": "plan", "tier_map": ["gold"]}, "tier_map is a table of values and tiers"),
        ({"tier_claim": "plan", "tier_map": {"gold": 5}}, r"tier_map\.gold: 5 is not the name of a tier"),
        ({"require": "acme"}, "require is a table of claims and their values"),
        ({"require": {}}, "require is a table of claims and their values"),
        ({"require": {"a": {}}}, "require is a table of claims and their values"),
        ({"require": {"a": []}}, r"require\.a: \[\] is neither a string, true or false"),
        ({"require": {"a": 5}}, r"require\.a: 5 is neither a string, true or false"),
        ({"require": {"a": {"b": None}}}, r"require\.a\.b: None is neither a string, true or false"),
        ({"require": {"a": ["x", 5]}}, r"require\.a: \['x', 5\] is neither"),
        ({"require": {"": "x"}}, "require '' is not a claim"),
        ({"ca_file": "ca.pem", "jwks": "jwks.json"}, "ca_file 'ca.pem' is the path of a PEM file, for keys that"),
        ({"ca_file": 5}, "ca_file 5 is the path of a PEM file"),
    ],
)
def test_a_wrong_setting_is_named_with_the_way_out(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^Issuer 'https://id.example.com': {reason}"):
        Issuer(ISS, audience=AUD, **settings)  # type: ignore[arg-type]  # wrong types are what is tried


SHARED = Tier("10/minute", 5, account=SharedLimits("50/minute"), owner=SharedLimits("20/minute"))


def subjects(claims: dict[str, object], iss: str = ISS, **settings: Any) -> tuple[str, ...]:  # noqa: ANN401 - of any type
    """Return what a caller's limits by account and by owner are counted against, and where these are stored."""
    issuer = replace(Issuer(ISS, audience=AUD, **settings), issuer=iss)
    token = CompactToken("RS256", None, "at+jwt", GOOD | claims | {"iss": iss}, b"", b"")
    accepted = validate_claims(token, issuer, NOW)
    assert isinstance(accepted, Claims), accepted
    request = request_of(principal_from_claims(accepted, issuer, {"standard": SHARED}), None, None)
    return (*request.others, request.group)


def test_limits_by_account_and_owner_are_counted_within_the_issuer() -> None:
    both = {"account_claim": "org", "owner_claim": "team"}
    first = subjects({"org": "acme", "team": "core"}, **both)
    assert len(first) == 3
    assert subjects({"org": "acme", "team": "core", "sub": "user-2"}, **both) == first  # shared by its callers
    account, owner, group = subjects({"org": "acme", "team": "web"}, **both)
    assert (account, group) == (first[0], first[2])
    assert owner != first[1]
    for different in (
        subjects({"org": "acme", "team": "core"}, "https://id2.example.com", **both),
        subjects({"org": "other", "team": "core"}, **both),
    ):
        assert set(different).isdisjoint(first)
    by_owner = subjects({"team": "acme"}, owner_claim="team")
    assert set(by_owner).isdisjoint(first)
    assert subjects({"team": "acme", "sub": "user-2"}, owner_claim="team") == by_owner
    assert set(subjects({})).isdisjoint(subjects({"sub": "user-2"}))  # without both, each caller for itself
