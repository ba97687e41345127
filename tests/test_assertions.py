"""Assertions as an upstream sees them: signed by us, about one caller, for a short while."""

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc import jwt
from joserfc.jwk import KeySet

from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.jose.assertion import AssertionSettings
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.keysets.assertions import SignedAssertions
from tests.proxy.harness import Upstream, fields_of, proxied, request

NOW = 1_700_000_000.0
KEYS: dict[str, Callable[[], rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey]] = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


def key_file(folder: Path, kind: str = "Ed25519") -> str:
    path = folder / "key.pem"
    path.write_bytes(KEYS[kind]().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(path)


def principal(identity: str = "key_1") -> Principal:
    return Principal(
        kind="api_key",
        id=identity,
        name="test",
        account_id="acct_1",
        subject=identity,
        environment="live",
        tier="standard",
        limits=TIERS["standard"],
        scopes=Scopes(frozenset({"skills:list", "skills:execute"})),
    )


@pytest.mark.parametrize("kind", KEYS)
def test_an_assertion_is_verified_by_our_key_set(tmp_path: Path, kind: str) -> None:
    assertions = SignedAssertions(
        AssertionSettings(key_file(tmp_path, kind), "https://gateway.test", "https://api.test")
    )
    keys = KeySet.import_key_set(orjson.loads(assertions.jwks))
    token = jwt.decode(assertions.token_for(principal(), NOW).decode(), keys, algorithms=[kind])
    assert token.header["typ"] == "machpay-assertion+jwt"
    assert token.claims == {
        "iss": "https://gateway.test",
        "aud": "https://api.test",
        "sub": "key_1",
        "account": "acct_1",
        "iat": NOW,
        "exp": NOW + 60,
        "scope": "skills:execute skills:list",
        "environment": "live",
        "tier": "standard",
        "kind": "api_key",
    }
    assert b'"d"' not in assertions.jwks  # the private part


def test_an_assertion_is_used_again_until_half_of_its_life_is_over(tmp_path: Path) -> None:
    assertions = SignedAssertions(AssertionSettings(key_file(tmp_path, "ES256"), "issuer", "audience"))
    caller = principal()
    first = assertions.token_for(caller, NOW)
    assert assertions.token_for(caller, NOW + 29.9) == first
    assert assertions.token_for(principal("key_2"), NOW) != first
    assert assertions.token_for(caller, NOW + 30.0) != first
    assert assertions.token_for(caller, NOW - 3600) != first  # a clock that was set back


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "cannot be read"),
        (b"no key", "is not a PEM file"),
        (
            ed25519.Ed25519PrivateKey.generate()
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "no private key",
        ),
        (
            ec.generate_private_key(ec.SECP256K1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "use P-256",
        ),
        (
            rsa.generate_private_key(65537, 1024).private_bytes(  # noqa: S505 - which is the point
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            ),
            "2048 bits",
        ),
    ],
    ids=["absent", "no PEM", "public", "another curve", "short"],
)
@pytest.mark.filterwarnings("ignore:Key size")  # joserfc says so too
def test_a_key_that_cannot_sign_is_told(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        SignedAssertions(AssertionSettings(str(path), "issuer", "audience"))


async def test_an_upstream_gets_an_assertion_about_the_caller_and_none_about_nobody(tmp_path: Path) -> None:
    assertion = AssertionSettings(key_file(tmp_path), "https://gateway.test", "https://api.test")
    async with Upstream() as upstream, proxied(upstream, assertion=assertion) as rig, rig.client() as client:
        await client.send(request("GET", "/v1/x", "X-MachPay-Assertion: forged", secret=await rig.secret()))
        await client.answer()
        await client.send(request("GET", "/public/x", "X-MachPay-Assertion: forged"))
        await client.answer()
        named, nobody = (fields_of(head) for head in upstream.heads)
        assert rig.gateway.assertions is not None
        keys = KeySet.import_key_set(orjson.loads(rig.gateway.assertions.jwks))
        (token,) = named["x-machpay-assertion"]
        assert jwt.decode(token, keys, algorithms=["Ed25519"]).claims["sub"] == named["x-machpay-key-id"][0]
        assert "x-machpay-assertion" not in nobody
