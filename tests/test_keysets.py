import hashlib
import json
import os
from functools import partial
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from machpay_gateway.core.decision.credential import SignedToken
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.jose.issuer import Issuer
from machpay_gateway.core.jose.token import keys_from_jwks
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.keysets import issued
from machpay_gateway.keysets.issued import IssuedTokens
from machpay_gateway.keysets.sources import FileKeySet, key_set_at

NOW = 1_800_000_000.0
READ = partial(keys_from_jwks, algorithms=("RS256",))
ISS, AUD = "https://id.example.com", "https://api.example.com"
OLD, NEW, FOREIGN = (RSAKey.generate_key(2048, {"kid": kid}) for kid in ("old", "new", "foreign"))


def jwks(*keys: RSAKey) -> bytes:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


def token(key: RSAKey = OLD, *, kid: str | None = None, **claims: object) -> SignedToken:
    payload = {"iss": ISS, "aud": AUD, "sub": "user-1", "exp": NOW + 3600, "scope": "skills:list", **claims}
    raw = jwt.encode({"alg": "RS256", "kid": kid or str(key.kid)}, payload, key).encode()
    return SignedToken(raw, hashlib.sha256(raw).digest())


def issuer(jwks_at: object, iss: str = ISS) -> Issuer:
    return Issuer(iss, audience=AUD, jwks=str(jwks_at))


def key_file(path: Path, *keys: RSAKey) -> Path:
    path.write_bytes(jwks(*keys))
    return path


@pytest.fixture
def tokens(tmp_path: Path) -> IssuedTokens:
    return IssuedTokens([issuer(key_file(tmp_path / "jwks.json", OLD))], TIERS)


async def test_a_token_is_known_no_longer_than_it_lasts(tmp_path: Path) -> None:
    tokens = IssuedTokens([issuer(key_file(tmp_path / "jwks.json", OLD))], TIERS)
    ending = token(exp=NOW - 50)
    assert isinstance(await tokens.verify(ending, NOW), Principal)
    assert tokens.cached(ending.digest, NOW + 9) is not None
    assert tokens.cached(ending.digest, NOW + 10) is None


async def test_what_is_remembered_is_bounded_and_the_latest_used_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issued, "VERIFIED_TOKENS", 3)
    tokens = IssuedTokens([issuer(key_file(tmp_path / "jwks.json", OLD))], TIERS)
    first, *others = [token(sub=f"user-{n}") for n in range(5)]
    await tokens.verify(first, NOW)
    for other in others:
        await tokens.verify(other, NOW)
        assert tokens.cached(first.digest, NOW) is not None
    assert [tokens.cached(other.digest, NOW) is not None for other in others] == [False, False, True, True]


@pytest.mark.parametrize(
    "bad, reason",
    [
        (token(iss="https://evil.example"), "iss is not configured"),
        (token(iss=["https://id.example.com"]), "iss is not configured"),
        (token(exp=NOW - 61), "expired"),
        (token(aud="https://other.example.com"), "aud"),
        (token(FOREIGN, kid="old"), "wrong signature"),
        (token(FOREIGN), "no key"),
        (SignedToken(b"a.b.c", b"1"), "base64url"),
        (SignedToken(b"e30.e30." + b"A" * 9000, b"1"), "over 8192"),
    ],
)
async def test_a_bad_token_has_a_reason_and_leaves_nothing_behind(
    tokens: IssuedTokens, bad: SignedToken, reason: str
) -> None:
    refusal = await tokens.verify(bad, NOW)
    assert reason in str(refusal)
    assert tokens.cached(bad.digest, NOW) is None
    assert not tokens._verified  # noqa: SLF001 - that nothing grows shows nowhere else


async def test_an_issuers_keys_speak_for_that_issuer_only(tmp_path: Path) -> None:
    mine, theirs = key_file(tmp_path / "a.json", OLD), key_file(tmp_path / "b.json", FOREIGN)
    tokens = IssuedTokens([issuer(mine), issuer(theirs, "https://b.example")], TIERS)
    assert isinstance(await tokens.verify(token(FOREIGN, iss="https://b.example"), NOW), Principal)
    assert isinstance(await tokens.verify(token(FOREIGN), NOW), str)
    assert await tokens.verify(token(FOREIGN, kid="old"), NOW) == "wrong signature"


def test_an_issuer_is_configured_once(tmp_path: Path) -> None:
    one = issuer(key_file(tmp_path / "jwks.json", OLD))
    with pytest.raises(ConfigurationError, match="twice"):
        IssuedTokens([one, one], TIERS)


async def test_a_changed_file_is_read_within_a_second(tmp_path: Path) -> None:
    path = key_file(tmp_path / "jwks.json", OLD)
    tokens = IssuedTokens([issuer(path)], TIERS)
    assert isinstance(await tokens.verify(token(), NOW), Principal)
    key_file(path, OLD, NEW)
    assert isinstance(await tokens.verify(token(NEW), NOW + 0.9), str)  # looked at less than a second ago
    assert isinstance(await tokens.verify(token(NEW), NOW + 1), Principal)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"keys":[]}', b"<html>", b" " * 600_000, None])
async def test_a_broken_file_never_replaces_good_keys(tmp_path: Path, body: bytes | None) -> None:
    path = key_file(tmp_path / "jwks.json", OLD)
    keys = FileKeySet(str(path), READ)
    held = await keys.keys(NOW)
    if body is None:
        path.unlink()
    else:
        path.write_bytes(body)
    assert await keys.keys(NOW + 2) is held
    key_file(path, NEW)
    os.utime(path, (1, 1))  # a change of any kind, even to an older time
    assert [key.kid for key in (await keys.newest_keys(NOW + 4)).keys] == ["new"]


async def test_keys_that_are_passed_over_are_named_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [OLD.as_dict(private=False), {**NEW.as_dict(private=False), "use": "enc"}]}))
    with caplog.at_level("INFO", "machpay_gateway.keysets.sources"):
        FileKeySet(str(path), READ)
    assert "passed over key 'new': not for signatures (use)" in caplog.text


@pytest.mark.parametrize("body", [b"", b"{}", b'{"keys":[]}', None])
def test_a_file_that_is_broken_at_start_stops_the_process(tmp_path: Path, body: bytes | None) -> None:
    path = tmp_path / "jwks.json"
    if body is not None:
        path.write_bytes(body)
    with pytest.raises(ConfigurationError, match="give a file of keys or an https URL"):
        FileKeySet(str(path), READ)


@pytest.mark.parametrize(
    "url",
    [
        "https://id.example.com/jwks.json?x=1",
        "https://id.example.com",
        "http://127.0.0.1:8080/jwks.json",
        "http://localhost/",
        "http://[::1]:8080/jwks.json",
    ],
)
def test_a_remote_set_is_accepted_without_being_fetched(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(*_: object) -> None:
        raise AssertionError("a key set was fetched at start")

    monkeypatch.setattr("socket.socket.connect", reached)
    key_set_at(url, READ)
