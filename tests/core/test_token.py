import json
import random
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.util import urlsafe_b64decode, urlsafe_b64encode

from machpay_gateway.core.jose.compact import CompactToken, parse_compact
from machpay_gateway.core.jose.issuer import ASYMMETRIC, SYMMETRIC
from machpay_gateway.core.jose.token import MAX_KEYS, VerifyingKeys, is_signed_by, keys_for, keys_from_jwks

ALL = ASYMMETRIC + SYMMETRIC
COOKBOOK = Path(__file__).parents[2] / "../shared/conformance/jose"

RSA, OTHER_RSA = RSAKey.generate_key(), RSAKey.generate_key()
EC = {crv: ECKey.generate_key(crv) for crv in ("P-256", "P-384", "P-521", "secp256k1")}
ED25519 = OKPKey.generate_key("Ed25519")
SECRET = OctKey.generate_key(512)


def jwk(key: Key, **members: object) -> dict[str, object]:
    # A secret has no public part; older versions of joserfc leave it out without `private`.
    return {**key.as_dict(private=key.key_type == "oct"), **members}


def jwks(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


def key_set(*keys: object, algorithms: tuple[str, ...] = ALL) -> VerifyingKeys:
    loaded = keys_from_jwks(jwks(*keys), algorithms)
    assert isinstance(loaded, VerifyingKeys), loaded
    return loaded


def signed(key: Key, algorithm: str, **header: object) -> bytes:
    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    registry.max_header_length = 4000
    protected = {"alg": algorithm, **header}
    model = jws.JWSRegistry.algorithms[algorithm]  # not `serialize_compact`, which warns of EdDSA
    signing_input = b".".join(urlsafe_b64encode(part) for part in (json.dumps(protected).encode(), b'{"sub":"a"}'))
    return signing_input + b"." + urlsafe_b64encode(model.sign(signing_input, key))


def is_good(token: bytes, keys: VerifyingKeys) -> bool:
    parsed = parse_compact(token)
    return isinstance(parsed, CompactToken) and is_signed_by(parsed, keys_for(parsed, keys))


def refusal(result: object) -> str:
    """Return the reason of a refusal; a parsed result, whose repr may contain the same words, is a failure."""
    assert isinstance(result, str), result
    return result


@pytest.mark.parametrize(
    "key, algorithm, others",
    [
        *[(RSA, name, [n for n in ALL if n != name]) for name in ("RS256", "RS384", "RS512", "PS256", "PS512")],
        (EC["P-256"], "ES256", ["ES384", "RS256", "HS256"]),
        (EC["P-384"], "ES384", ["ES256", "ES512"]),
        (EC["P-521"], "ES512", ["ES256", "ES384"]),
        (ED25519, "Ed25519", ["EdDSA", "ES256"]),
        (ED25519, "EdDSA", ["Ed25519"]),
        (SECRET, "HS256", ["HS384", "HS512", "RS256"]),
        (SECRET, "HS512", ["HS256"]),
    ],
)
def test_a_key_verifies_its_own_algorithm_and_no_other(key: Key, algorithm: str, others: list[str]) -> None:
    token = signed(key, algorithm)
    assert is_good(token, key_set(jwk(key)))
    assert is_good(token, key_set(jwk(key, alg=algorithm)))
    for other in others:
        loaded = keys_from_jwks(jwks(jwk(key, alg=other)), ALL)
        assert isinstance(loaded, str) or not is_good(token, loaded), other
    assert isinstance(keys_from_jwks(jwks(jwk(key)), ("ES256K",)), str)


def test_an_rsa_key_without_alg_verifies_what_the_issuer_lists_and_no_more() -> None:
    keys = key_set(jwk(RSA), algorithms=("RS256", "PS384"))
    assert keys.keys[0].algorithms == {"RS256", "PS384"}
    assert is_good(signed(RSA, "RS256"), keys)
    assert is_good(signed(RSA, "PS384"), keys)
    assert not is_good(signed(RSA, "RS512"), keys)


@pytest.mark.parametrize(
    "key, reason",
    [
        (jwk(RSA, use="enc"), "use"),
        (jwk(RSA, use=["sig"]), "use"),
        (jwk(RSA, key_ops=["encrypt"]), "key_ops"),
        (jwk(RSA, key_ops=[]), "key_ops"),
        (jwk(RSA, key_ops="verify"), "key_ops"),
        (jwk(RSA, alg="RSA-OAEP"), "fits none"),
        (jwk(RSA, alg="none"), "fits none"),
        (jwk(RSA, alg="ES256"), "fits none"),
        (jwk(RSA, alg=None), "fits none"),
        (jwk(RSA, kid=7), "kid"),
        (jwk(RSA, kid=["x"]), "kid"),
        ({"kty": "RSA", "e": "AQAB", "n": urlsafe_b64encode(b"\xff" * 255).decode()}, "2048"),
        ({"kty": "RSA", "e": "AQAB", "n": urlsafe_b64encode(b"\x00" + b"\xff" * 255).decode()}, "2048"),
        ({"kty": "RSA", "e": "AQAB", "n": 65537}, "not a sound key"),
        ({"kty": "RSA", "e": "AQAB"}, "not a sound key"),
        (jwk(RSA, e="Ag"), "not a sound key"),  # an even exponent
        (jwk(RSA, e="AQ"), "not a sound key"),  # an exponent of one: every message is its own signature
        ({"kty": "oct", "k": urlsafe_b64encode(b"k" * 31).decode()}, "secret"),
        ({"kty": "oct", "k": ""}, "secret"),
        ({"kty": "oct", "k": urlsafe_b64encode(RSA.as_pem()).decode()}, "not a sound key"),  # public is no secret
        (jwk(EC["secp256k1"]), "fits none"),
        (jwk(EC["P-256"], crv="P-384"), "not a sound key"),
        (jwk(EC["P-256"], y=EC["P-256"].as_dict()["x"]), "not a sound key"),  # not on the curve
        (jwk(OKPKey.generate_key("X25519")), "fits none"),
        (jwk(OKPKey.generate_key("Ed448")), "fits none"),
        (jwk(ED25519, x="AAAA"), "not a sound key"),
        ({"kty": "none"}, "fits none"),
        ({"kty": ["RSA"]}, "fits none"),
        ({}, "fits none"),
        ("RSA", "not an object"),
        (None, "not an object"),
    ],
)
def test_an_unusable_key_is_ignored_with_a_reason(key: object, reason: str) -> None:
    assert reason in refusal(keys_from_jwks(jwks(key), ALL))
    beside = key_set(key, jwk(EC["P-256"]))  # RFC 7517 §5: the others still count
    assert len(beside.keys) == 1
    assert reason in beside.unusable[0]


@pytest.mark.parametrize("length, algorithms", [(32, ["HS256"]), (48, ["HS256", "HS384"]), (64, [*SYMMETRIC])])
def test_a_secret_is_as_long_as_its_hash(length: int, algorithms: list[str]) -> None:
    assert sorted(key_set(jwk(OctKey.generate_key(length * 8))).keys[0].algorithms) == algorithms


@pytest.mark.parametrize(
    "document",
    [b"", b"{}", b"[]", b"null", b'{"keys":{}}', b'{"keys":[]}', b"<html></html>", b"\xff", b'{"keys":' + b"[" * 5000],
)
def test_a_document_that_is_no_key_set_has_a_reason_and_no_keys(document: bytes) -> None:
    assert isinstance(keys_from_jwks(document, ALL), str)


def test_private_parts_that_an_issuer_published_are_not_loaded() -> None:
    for key in (RSA, EC["P-256"], ED25519):
        loaded = key_set(key.as_dict(private=True)).keys[0]
        assert not loaded.key.is_private


def test_the_number_of_keys_is_bounded() -> None:
    keys = key_set(*[jwk(ED25519, kid=str(n)) for n in range(MAX_KEYS + 50)])
    assert len(keys.keys) == MAX_KEYS
    assert "past the first" in keys.unusable[-1]


def test_keys_are_chosen_by_kid() -> None:
    keys = key_set(jwk(RSA, kid="1"), jwk(OTHER_RSA, kid="2"))
    assert is_good(signed(RSA, "RS256", kid="1"), keys)
    assert not is_good(signed(RSA, "RS256", kid="2"), keys)
    assert not is_good(signed(RSA, "RS256", kid="3"), keys)


def test_a_token_without_kid_is_taken_only_where_one_key_fits() -> None:
    assert is_good(signed(RSA, "RS256"), key_set(jwk(RSA, kid="1"), jwk(EC["P-256"], kid="2")))
    assert not is_good(signed(RSA, "RS256"), key_set(jwk(RSA, kid="1"), jwk(OTHER_RSA, kid="2")))
    assert is_good(signed(RSA, "RS256"), key_set(jwk(RSA, alg="RS256"), jwk(OTHER_RSA, alg="PS256")))


def test_keys_that_share_a_kid_are_tried_where_the_algorithm_fits() -> None:
    keys = key_set(jwk(OTHER_RSA, kid="1"), jwk(EC["P-256"], kid="1"), jwk(RSA, kid="1"))
    assert is_good(signed(RSA, "RS256", kid="1"), keys)
    assert is_good(signed(EC["P-256"], "ES256", kid="1"), keys)
    assert not is_good(signed(EC["P-384"], "ES384", kid="1"), keys)


@pytest.mark.parametrize(
    "kid", ["../../etc/passwd", "/dev/null", "' OR 1=1 --", "http://evil.example/jwks", "", "\x00"]
)
def test_a_kid_is_only_compared(kid: str) -> None:
    assert not is_good(signed(RSA, "RS256", kid=kid), key_set(jwk(RSA, kid="1")))
    assert is_good(signed(RSA, "RS256", kid=kid), key_set(jwk(RSA, kid=kid)))


@pytest.mark.parametrize(
    "secret",
    [RSA.as_pem(), RSA.as_der(), json.dumps(jwk(RSA)).encode(), RSA.as_pem().strip()],
    ids=["PEM", "DER", "JWK", "stripped PEM"],
)
def test_a_public_key_is_never_a_secret(secret: bytes) -> None:
    key = OctKey(secret, secret)  # made directly: the library's own import already refuses most of these
    assert not is_good(signed(key, "HS256", kid="1"), key_set(jwk(RSA, kid="1")))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE"])
@pytest.mark.parametrize("signature", [b"", b"c2ln"])
def test_an_unsigned_token_is_refused(algorithm: str, signature: bytes) -> None:
    header = urlsafe_b64encode(json.dumps({"alg": algorithm}).encode())
    assert not is_good(b".".join([header, b"e30", signature]), key_set(jwk(RSA)))


def test_a_key_in_the_token_is_ignored() -> None:
    header = {"jwk": jwk(OTHER_RSA), "jku": "https://evil.example/jwks", "x5c": ["MIIB"], "x5u": "https://evil.example"}
    assert not is_good(signed(OTHER_RSA, "RS256", **header), key_set(jwk(RSA)))
    assert is_good(signed(RSA, "RS256", **header), key_set(jwk(RSA)))  # what is not read does no harm


@pytest.mark.parametrize(
    "key, algorithm", [(RSA, "RS256"), (RSA, "PS256"), (EC["P-256"], "ES256"), (ED25519, "Ed25519")]
)
def test_malformed_signatures_are_refused_without_an_exception(key: Key, algorithm: str) -> None:
    keys = key_set(jwk(key))
    body, _, signature = signed(key, algorithm).rpartition(b".")
    raw = urlsafe_b64decode(signature)
    size = len(raw)
    forms = [raw[:-1], raw + b"\0", b"\0" + raw, b"\0" * size, b"\xff" * size, raw[: size // 2], raw * 2, b"\x30" + raw]
    for form in forms:
        assert not is_good(body + b"." + urlsafe_b64encode(form), keys)


@pytest.mark.parametrize("key, algorithm", [(RSA, "RS256"), (ED25519, "Ed25519"), (SECRET, "HS256")])
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(data=st.data())
def test_a_token_with_a_changed_character_is_refused(key: Key, algorithm: str, data: st.DataObject) -> None:
    keys, token = key_set(jwk(key)), signed(key, algorithm)
    at = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.integers(0, 255).filter(lambda code: code != token[at]))
    assert not is_good(token[:at] + bytes([character]) + token[at + 1 :], keys)


def test_a_refused_signature_costs_little_time() -> None:
    keys = key_set(*[jwk(OTHER_RSA, kid="1") for _ in range(5)])
    padding = "".join(random.Random(1).choices("abc", k=3000))  # noqa: S311 - filler
    token = signed(RSA, "RS256", kid="1", pad=padding)
    times = []
    for _ in range(5):  # the best of five: the machine has other work
        start = time.perf_counter()
        assert not is_good(token, keys)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.005


@pytest.mark.skipif(not COOKBOOK.is_dir(), reason="the JOSE cookbook is not beside the repository")
@pytest.mark.parametrize(
    "name, algorithm",
    [
        ("jws/4_1.rsa_v15_signature.json", "RS256"),
        ("jws/4_2.rsa-pss_signature.json", "PS384"),
        ("jws/4_3.ecdsa_signature.json", "ES512"),
        ("jws/4_4.hmac-sha2_integrity_protection.json", "HS256"),
        ("curve25519/jws.json", "EdDSA"),
    ],
)
def test_the_cookbooks_signatures_are_verified(name: str, algorithm: str) -> None:
    example = json.loads((COOKBOOK / name).read_text())
    keys = key_set(example["input"]["key"], algorithms=(algorithm,))
    signing_input, _, signature = example["output"]["compact"].encode().rpartition(b".")
    header = json.loads(urlsafe_b64decode(signing_input.partition(b".")[0]))
    # Taken apart here: the cookbook signs prose, which is no JWT's claims.
    token = CompactToken(header["alg"], header.get("kid"), "jwt", {}, signing_input, urlsafe_b64decode(signature))
    assert header["alg"] == algorithm
    assert is_signed_by(token, keys_for(token, keys))
    changed = CompactToken(token.algorithm, token.kid, "jwt", {}, signing_input + b"A", token.signature)
    assert not is_signed_by(changed, keys_for(changed, keys))
