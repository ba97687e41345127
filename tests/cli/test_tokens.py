"""`tokens explain`: the caller of a token by the settings, or the reason of its refusal, which callers do not get."""

import json
import time
from pathlib import Path

import pytest
from joserfc.jwk import RSAKey

from tests.cli.conftest import Invoke
from tests.issuers import IssuerServer, jwks

ISSUER = "https://id.example.com"
SETTINGS = f"""\
[[issuers]]
issuer = "{ISSUER}"
audience = "api"
jwks = "jwks.json"
scopes_claim = "roles"
scope_map = {{ admin = "a:write a:read" }}
account_claim = "org"
require = {{ env = "prod" }}
"""
CLAIMS = {"iss": ISSUER, "aud": "api", "sub": "user-1", "org": "acme", "roles": ["admin", "x"], "env": "prod"}


@pytest.fixture(scope="module")
def issuer() -> IssuerServer:
    return IssuerServer()  # only its key


@pytest.fixture(autouse=True)
def _settings(empty_folder: Path, issuer: IssuerServer) -> None:
    (empty_folder / "machpay.toml").write_text(SETTINGS, encoding="utf-8")
    (empty_folder / "jwks.json").write_bytes(jwks(issuer.key))


def token(issuer: IssuerServer, key: RSAKey | None = None, **changes: object) -> str:
    return issuer.sign({"exp": int(time.time()) + 300, **CLAIMS, **changes}, key=key)


def test_the_caller_of_a_token_is_shown(invoke_bare: Invoke, issuer: IssuerServer) -> None:
    result = invoke_bare("tokens", "explain", stdin=f"Bearer {token(issuer)}\n")

    assert result.exit_code == 0
    lines = [line.split(maxsplit=1) for line in result.stdout.splitlines()]
    assert [line for line in lines if line[0] != "expires_at"] == [
        ["accepted", "yes"],
        ["issuer", ISSUER],
        ["id", "user-1"],
        ["account_id", "acme"],
        ["owner", "none"],
        ["environment", "live"],
        ["tier", "standard"],
        ["scopes", "a:read a:write"],
    ]
    Path("token.txt").write_text(token(issuer), encoding="utf-8")
    document = json.loads(invoke_bare("tokens", "explain", "token.txt", "--json").stdout)
    assert document | {"object": "token_explanation", "accepted": True, "reason": None} == document
    assert (document["account_id"], document["scopes"]) == ("acme", ["a:read", "a:write"])


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"env": "dev"}, "claim env has no value that require lists"),
        ({"org": 5}, "claim org is not a string"),
        ({"aud": "other"}, "aud names somebody else"),
        ({"exp": 1}, "expired"),
        ({"iss": "https://other.example.com"}, "iss is not configured"),
        ({"key": RSAKey.generate_key(2048, {"kid": "k1"})}, "wrong signature"),
    ],
)
def test_the_reason_of_a_refusal_is_shown(
    invoke_bare: Invoke, issuer: IssuerServer, changes: dict[str, object], reason: str
) -> None:
    presented = token(issuer, **changes)  # type: ignore[arg-type]  # the key is one

    result = invoke_bare("tokens", "explain", stdin=presented)

    assert result.exit_code == 1
    assert result.stdout.splitlines()[0].split(maxsplit=1) == ["refused", reason]
    document = json.loads(invoke_bare("tokens", "explain", "--json", stdin=presented).stdout)
    assert document == {
        "object": "token_explanation",
        "accepted": False,
        "reason": reason,
        "issuer": changes.get("iss", ISSUER),
    }


def test_text_that_is_no_token_is_refused(invoke_bare: Invoke) -> None:
    result = invoke_bare("tokens", "explain", stdin="hello")
    assert (result.exit_code, result.stdout.split(maxsplit=1)[0]) == (1, "refused")
    assert "There is no token" in invoke_bare("tokens", "explain", stdin=" \n").stderr
