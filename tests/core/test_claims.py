from dataclasses import replace

import pytest

from machpay_gateway.core.jose.claims import (
    LEEWAY_SECONDS,
    Claims,
    principal_from_claims,
    quota_subject,
    validate_claims,
)
from machpay_gateway.core.jose.compact import CompactToken, media_type
from machpay_gateway.core.jose.issuer import Issuer
from machpay_gateway.core.limits.rate import TIERS

NOW = 1_800_000_000.0
ISSUER = Issuer("https://id.example.com", audience="https://api.example.com", jwks="jwks.json")
GOOD: dict[str, object] = {
    "iss": "https://id.example.com",
    "aud": "https://api.example.com",
    "sub": "user-1",
    "exp": NOW + 300,
}


def token(claims: dict[str, object], *, algorithm: str = "RS256", typ: str = "at+jwt") -> CompactToken:
    return CompactToken(algorithm, None, media_type(typ), claims, b"", b"")


def accepted(claims: dict[str, object], issuer: Issuer = ISSUER) -> Claims | str:
    return validate_claims(token(claims), issuer, NOW)


def refusal(result: object) -> str:
    """Return the reason of a refusal; a parsed result, whose repr may contain the same words, is a failure."""
    assert isinstance(result, str), result
    return result


def test_valid_claims_are_parsed() -> None:
    claims = accepted({**GOOD, "scope": "skills:execute skills:list", "client_id": "app"})
    assert isinstance(claims, Claims)
    assert (claims.mapped.subject, claims.exp) == ("user-1", NOW + 300)
    assert list(claims.mapped.scopes) == ["skills:execute", "skills:list"]
    assert claims.all["client_id"] == "app"


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"iss": "https://id.example.com/"}, "iss"),  # compared as strings, RFC 7519 §4.1.1
        ({"iss": "https://ID.example.com"}, "iss"),
        ({"iss": ["https://id.example.com"]}, "iss"),
        ({"iss": None}, "iss"),
        ({"aud": "https://other.example.com"}, "somebody else"),
        ({"aud": "https://api.example.com.evil.example"}, "somebody else"),
        ({"aud": []}, "somebody else"),
        ({"aud": ["a", "b"]}, "somebody else"),
        ({"aud": None}, "aud is neither"),
        ({"aud": {"https://api.example.com": 1}}, "aud is neither"),
        ({"aud": ["https://api.example.com", 1]}, "aud is neither"),
        ({"aud": [["https://api.example.com"]]}, "aud is neither"),
        ({"exp": str(NOW + 300)}, "exp"),
        ({"exp": True}, "exp"),  # a bool is an int to Python
        ({"exp": None}, "exp"),
        ({"exp": [NOW + 300]}, "exp"),
        ({"exp": -1}, "exp"),
        ({"exp": (NOW + 300) * 1000}, "exp"),  # milliseconds
        ({"exp": 1e300}, "exp"),
        ({"nbf": str(NOW)}, "nbf"),
        ({"nbf": True}, "nbf"),
        ({"nbf": None}, "nbf"),
        ({"iat": "now"}, "iat"),
        ({"iat": False}, "iat"),
        ({"sub": ""}, "sub"),
        ({"sub": 17}, "sub"),
        ({"sub": None}, "sub"),
        ({"sub": "x" * 256}, "sub"),
        ({"sub": "a\r\nX-Admin: 1"}, "sub"),  # would be a header of its own
        ({"sub": "a\x00"}, "sub"),
        ({"sub": "a\u2028b"}, "sub"),
        ({"scope": ["skills:execute"]}, "scope"),
        ({"scope": None}, "scope"),
        ({"scope": 1, "scp": "skills:execute"}, "scope"),
        ({"scp": 1}, "scp"),
        ({"scp": {"skills:execute": True}}, "scp"),
        ({"scp": ["skills:execute", 1]}, "scp"),
        ({"cnf": {"jkt": "x"}}, "cnf"),  # a bound token is no bearer token
        ({"cnf": None}, "cnf"),
    ],
)
def test_invalid_claims_are_refused(change: dict[str, object], reason: str) -> None:
    assert reason in refusal(accepted({**GOOD, **change}))


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "exp"])
def test_missing_claims_are_refused(name: str) -> None:
    assert name in refusal(accepted({key: value for key, value in GOOD.items() if key != name}))


@pytest.mark.parametrize(
    "change",
    [
        {"aud": ["https://other.example.com", "https://api.example.com"]},
        {"aud": ["https://api.example.com"]},
        {"exp": NOW + 0.5},
        {"exp": int(NOW)},
        {"sub": "CN=Ann Ünal, O=Example"},
        {"sub": "x" * 255},
        {"nbf": 0, "iat": 0},
    ],
)
def test_unusual_valid_claims_are_accepted(change: dict[str, object]) -> None:
    assert isinstance(accepted({**GOOD, **change}), Claims)


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"exp": NOW - 59}, None),
        ({"exp": NOW - 59.999}, None),
        ({"exp": NOW - 60}, "expired"),  # exp is the moment on which it is no longer accepted
        ({"exp": NOW - 61}, "expired"),
        ({"nbf": NOW + 60}, None),
        ({"nbf": NOW + 60.001}, "not valid yet"),
        ({"nbf": NOW + 61}, "not valid yet"),
        ({"iat": NOW + 60}, None),
        ({"iat": NOW + 61}, "future"),
        ({"iat": NOW - 10**8}, None),  # how old is too old is for exp to say
    ],
)
def test_dates_have_a_minute_of_leeway(change: dict[str, object], reason: str | None) -> None:
    claims = accepted({**GOOD, **change})
    assert isinstance(claims, Claims) if reason is None else reason in refusal(claims)


@pytest.mark.parametrize(
    "types, typ, is_accepted",
    [
        (("at+jwt", "JWT"), "JWT", True),
        (("at+jwt", "JWT"), "at+jwt", True),
        (("at+jwt",), "application/AT+JWT", True),
        (("application/at+jwt",), "at+jwt", True),
        (("at+jwt",), "JWT", False),  # so an ID token is no access token
        (("at+jwt", "JWT"), "logout+jwt", False),
        (("at+jwt", "JWT"), "dpop+jwt", False),
    ],
)
def test_a_token_of_another_type_is_refused(types: tuple[str, ...], typ: str, *, is_accepted: bool) -> None:
    claims = validate_claims(token(GOOD, typ=typ), replace(ISSUER, types=types), NOW)
    assert isinstance(claims, Claims) is is_accepted
    assert is_accepted or "typ" in refusal(claims)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "HS256", "RS384", "rs256", "RS256 ", ""])
def test_only_the_issuers_algorithms_are_accepted(algorithm: str) -> None:
    assert "alg" in refusal(validate_claims(token(GOOD, algorithm=algorithm), ISSUER, NOW))


@pytest.mark.parametrize(
    "claims, scopes",
    [
        ({}, []),
        ({"scope": ""}, []),
        ({"scope": "a  b a"}, ["a", "b"]),
        ({"scp": "a b"}, ["a", "b"]),
        ({"scp": ["a", "b"]}, ["a", "b"]),
        ({"scp": ["a b"]}, []),  # a name has no space
        ({"scope": "a", "scp": "b"}, ["a"]),  # RFC 9068's name wins, they are not added up
        ({"scope": "a\tb"}, []),  # RFC 6749 §3.3: only spaces part them
        ({"scope": 'a"b a\\b a|b é ok'}, ["ok"]),
        ({"scope": "x" * 129 + " ok"}, ["ok"]),
        ({"scope": "* keys:* skills:* a:*:b *:a ok"}, ["ok"]),  # a foreign `*` widens nothing
    ],
)
def test_scopes_are_those_of_the_token_and_never_more(claims: dict[str, object], scopes: list[str]) -> None:
    accepted_ones = accepted({**GOOD, **claims})
    assert isinstance(accepted_ones, Claims)
    assert list(accepted_ones.mapped.scopes) == scopes
    assert "keys:manage" not in accepted_ones.mapped.scopes


def test_the_principal_has_the_tier_and_environment_of_its_issuer() -> None:
    issuer = replace(ISSUER, tier="enterprise", environment="test")
    claims = accepted({**GOOD, "scope": "skills:list", "tier": "other", "environment": "live"}, issuer)
    assert isinstance(claims, Claims)
    principal = principal_from_claims(claims, issuer, TIERS)
    assert (principal.account_tier, principal.owner) == (principal.tier, None)
    assert (principal.kind, principal.id, principal.name) == ("jwt", "user-1", "user-1")
    assert (principal.tier, principal.environment, principal.limits) == ("enterprise", "test", TIERS["enterprise"])
    assert principal.expires_at == NOW + 300 + LEEWAY_SECONDS
    assert principal.account_id is None
    assert principal.claims["tier"] == "other"
    with pytest.raises(TypeError):
        principal.claims["sub"] = "somebody"  # type: ignore[index]  # the point of the test


def test_subjects_of_different_callers_differ() -> None:
    pairs = [
        ("a", "bc"),
        ("ab", "c"),
        ("abc", ""),
        ("", "abc"),
        ("a", "b:c"),
        ("a:b", "c"),
        ("a", "\x00bc"),
        ("a\x00", "bc"),
        ("a", "BC"),
        ("a", "key_0123456789012345678901"),
    ]
    subjects = {quota_subject(iss, sub) for iss, sub in pairs}
    assert len(subjects) == len(pairs)
    assert {len(subject) for subject in subjects} == {len("jwt:") + 64}
    assert len(quota_subject("i" * 8000, "s" * 8000)) == len("jwt:") + 64


def test_refusals_reveal_nothing_of_the_token() -> None:
    secret = "sentinel-value"
    for name in (*GOOD, "nbf", "iat", "scope", "scp", "cnf"):
        for value in (secret, [secret], {secret: secret}):
            refusal = accepted({**GOOD, name: value})
            assert isinstance(refusal, Claims) or secret not in refusal
