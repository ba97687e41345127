"""Verification of signatures, with keys from JWK Sets that are each bound to an algorithm (RFC 7517, RFC 8725 §3.1).

joserfc does the cryptography. This module decides which keys are usable, and for which algorithm: a token's `alg` can
select a key, but never the way its signature is verified.
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwk import Key, import_key
from joserfc.jws import JWSRegistry

from machpay_gateway.core.jose.compact import CompactToken

MAX_KEYS = 100  # of one set; issuers publish two or three
_MIN_RSA_BITS = 2048  # RFC 7518 §3.3
_MAX_SHOWN_KID = 64
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
# A curve fixes its algorithm; Ed25519 is RFC 9864's name for what EdDSA means with that curve.
_CURVES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("Ed25519", "EdDSA"),
}
# RFC 7518 §3.2: a key of the hash's size or larger must be used.
_MIN_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
# Only these members of a JWK are used: private parts that an issuer published by mistake are never loaded.
_MATERIAL = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "oct": ("k",)}


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key and the algorithms it verifies: one, unless it is an RSA key or a secret without `alg`."""

    kid: str | None
    algorithms: frozenset[str]
    key: Key = field(repr=False)


@dataclass(frozen=True, slots=True)
class VerifyingKeys:
    """An issuer's keys, at least one; *unusable* says why other published keys are not among them."""

    keys: tuple[VerifyingKey, ...]
    unusable: tuple[str, ...] = ()


def keys_from_jwks(document: bytes, algorithms: Iterable[str]) -> VerifyingKeys | str:
    """Return the keys of a JWK Set that fit *algorithms*, or why there are none. Other keys are ignored (§5)."""
    try:
        jwks = orjson.loads(document)
    except ValueError:
        return "not JSON"
    published = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(published, list):
        return 'not a JWK Set: no list of "keys"'
    accepted = frozenset(algorithms)
    results = [_verifying_key(jwk, accepted) for jwk in published[:MAX_KEYS]]
    ignored = [f"keys past the first {MAX_KEYS}"] if len(published) > MAX_KEYS else []
    return collect_keys([*results, *ignored])


def collect_keys(results: Iterable[VerifyingKey | str]) -> VerifyingKeys | str:
    """Return the keys among *results*, with the reasons why others are unusable; without a key, the reasons alone."""
    results = list(results)
    keys = tuple(key for key in results if isinstance(key, VerifyingKey))
    unusable = tuple(reason for reason in results if isinstance(reason, str))
    return VerifyingKeys(keys, unusable) if keys else "; ".join(["no usable key", *unusable[:5]])


def keys_for(token: CompactToken, keys: VerifyingKeys) -> tuple[VerifyingKey, ...]:
    """Return those of *keys* that may have signed *token*: of its `kid` and its algorithm.

    A token without `kid` needs a single fitting key: trying several would let any of them replace any other.
    """
    fitting = tuple(key for key in keys.keys if token.algorithm in key.algorithms)
    if token.kid is None:
        return fitting if len(fitting) == 1 else ()
    return tuple(key for key in fitting if key.kid == token.kid)


def is_signed_by(token: CompactToken, keys: Iterable[VerifyingKey]) -> bool:
    """Tell whether one of *keys* made the signature; each is used with its own algorithms only."""
    return any(
        token.algorithm in key.algorithms
        and JWSRegistry.algorithms[token.algorithm].verify(token.signing_input, token.signature, key.key)
        for key in keys
    )


def key_of_proof(jwk: object, algorithms: Iterable[str]) -> tuple[VerifyingKey, str] | str:
    """Return the public key *jwk* of a proof, and its thumbprint (RFC 7638), or why it is no public key.

    The proof shows that the sender of the token has its key, not who the sender is.
    """
    if not isinstance(jwk, dict) or jwk.get("kty") == "oct":
        return "jwk is not a public key"
    if {"d", "p", "q", "dp", "dq", "qi", "oth", "k"} & jwk.keys():
        return "jwk has private parts"  # RFC 9449 §4.3
    key = _verifying_key(jwk, frozenset(algorithms))
    return key if isinstance(key, str) else (key, key.key.thumbprint())


def _verifying_key(jwk: object, accepted: frozenset[str]) -> VerifyingKey | str:
    if not isinstance(jwk, dict):
        return "a key that is not an object"
    kid = jwk.get("kid")
    name = f"key {kid[:_MAX_SHOWN_KID]!r}" if isinstance(kid, str) else "key without kid"
    if misuse := _misuse(jwk):
        return f"{name}: {misuse}"
    try:
        if algorithms := _strong_enough(jwk, _possible_algorithms(jwk) & accepted):
            return VerifyingKey(kid, algorithms, _import_key(jwk))
    except (JoseError, UnsupportedAlgorithm, ValueError, TypeError, KeyError) as exc:
        return f"{name}: not a sound key ({type(exc).__name__})"
    return (
        f"{name}: by kty, crv, alg and size it fits none of {', '.join(sorted(accepted))} "
        f"(RSA needs {_MIN_RSA_BITS} bits, a secret as many as its hash)"
    )


def _misuse(jwk: Mapping[str, object]) -> str | None:
    """Return why the key is not for verification, by its `use` and `key_ops` (RFC 7517 §4.2, §4.3)."""
    if not isinstance(jwk.get("kid"), str | None):
        return "kid is not a string"
    if "use" in jwk and jwk["use"] != "sig":
        return "not for signatures (use)"
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return "not for verifying (key_ops)"
    return None


def _possible_algorithms(jwk: Mapping[str, object]) -> frozenset[str]:
    """Return the algorithms that the key's type and curve allow, or only its `alg` if it has one."""
    kty, crv = jwk.get("kty"), jwk.get("crv")
    possible: tuple[str, ...] = ()
    if kty == "RSA":
        possible = _RSA
    elif kty == "oct":
        possible = tuple(_MIN_SECRET_BYTES)
    elif isinstance(kty, str) and isinstance(crv, str):
        possible = _CURVES.get((kty, crv), ())
    return frozenset(name for name in possible if jwk.get("alg", name) == name)


def _strong_enough(jwk: Mapping[str, object], algorithms: frozenset[str]) -> frozenset[str]:
    """Return those of *algorithms* that the key is long enough for."""
    if jwk.get("kty") == "RSA":
        bits = int.from_bytes(_decode_member(jwk.get("n")), "big").bit_length()
        return algorithms if bits >= _MIN_RSA_BITS else frozenset()
    if jwk.get("kty") == "oct":
        length = len(_decode_member(jwk.get("k")))
        return frozenset(name for name in algorithms if length >= _MIN_SECRET_BYTES[name])
    return algorithms


def _import_key(jwk: Mapping[str, object]) -> Key:
    kty = _text(jwk["kty"])
    return import_key({"kty": kty, **{name: _text(jwk[name]) for name in _MATERIAL[kty]}})


def _decode_member(member: object) -> bytes:
    text = _text(member)
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _text(member: object) -> str:
    if not isinstance(member, str):
        raise TypeError("key material is text")
    return member
