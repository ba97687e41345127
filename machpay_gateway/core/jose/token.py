"""Verifying keys and signatures: JWK sets into keys that are each bound to their algorithm (RFC 7517, RFC 8725 §3.1).

The library does the mathematics. What it is handed is decided here: which keys can be used at all, and for which one
algorithm, so that a token's `alg` never chooses how its signature is checked, only whether a key fits.
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
# Only these are taken from a JWK: private parts that an issuer published by mistake are never loaded.
_MATERIAL = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "oct": ("k",)}


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key and what it may verify: one algorithm, unless an RSA key or a secret names none itself."""

    kid: str | None
    algorithms: frozenset[str]
    key: Key = field(repr=False)


@dataclass(frozen=True, slots=True)
class VerifyingKeys:
    """An issuer's keys, at least one, and in *unusable* why others that it published are not among them."""

    keys: tuple[VerifyingKey, ...]
    unusable: tuple[str, ...] = ()


def keys_from_jwks(document: bytes, algorithms: Iterable[str]) -> VerifyingKeys | str:
    """Return the keys of a JWK Set that fit *algorithms*, or why there are none. Other keys are passed over (§5)."""
    try:
        jwks = orjson.loads(document)
    except ValueError:
        return "not JSON"
    published = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(published, list):
        return 'not a JWK Set: no list of "keys"'
    accepted = frozenset(algorithms)
    found = [_verifying_key(jwk, accepted) for jwk in published[:MAX_KEYS]]
    passed_over = [f"keys past the first {MAX_KEYS}"] if len(published) > MAX_KEYS else []
    return collect_keys([*found, *passed_over])


def collect_keys(found: Iterable[VerifyingKey | str]) -> VerifyingKeys | str:
    """Return the keys among what was *found*, beside the reasons why others are none; only reasons are no set."""
    known = list(found)
    keys = tuple(key for key in known if isinstance(key, VerifyingKey))
    unusable = tuple(reason for reason in known if isinstance(reason, str))
    return VerifyingKeys(keys, unusable) if keys else "; ".join(["no usable key", *unusable[:5]])


def keys_for(token: CompactToken, keys: VerifyingKeys) -> tuple[VerifyingKey, ...]:
    """Return those of *keys* that may have signed *token*: of its `kid` and its algorithm.

    A token without `kid` is only taken where one key alone fits: trying them all would let any key stand for any other.
    """
    fitting = tuple(key for key in keys.keys if token.algorithm in key.algorithms)
    if token.kid is None:
        return fitting if len(fitting) == 1 else ()
    return tuple(key for key in fitting if key.kid == token.kid)


def is_signed_by(token: CompactToken, keys: Iterable[VerifyingKey]) -> bool:
    """Return whether one of *keys* made the signature; each checks with its own algorithm, never with another."""
    return any(
        token.algorithm in key.algorithms
        and JWSRegistry.algorithms[token.algorithm].verify(token.signing_input, token.signature, key.key)
        for key in keys
    )


def key_of_proof(jwk: object, algorithms: Iterable[str]) -> tuple[VerifyingKey, str] | str:
    """Return the public key *jwk*, which a proof brings with it, and its thumbprint (RFC 7638); or why it is none.

    What such a key proves is that whoever has the token has the key too, and nothing of who that is.
    """
    if not isinstance(jwk, dict) or jwk.get("kty") == "oct":
        return "jwk is not a public key"
    if {"d", "p", "q", "dp", "dq", "qi", "oth", "k"} & jwk.keys():
        return "jwk has private parts"  # RFC 9449 §4.3
    found = _verifying_key(jwk, frozenset(algorithms))
    return found if isinstance(found, str) else (found, found.key.thumbprint())


def _verifying_key(jwk: object, accepted: frozenset[str]) -> VerifyingKey | str:
    if not isinstance(jwk, dict):
        return "a key that is not an object"
    kid = jwk.get("kid")
    shown = f"key {kid[:_MAX_SHOWN_KID]!r}" if isinstance(kid, str) else "key without kid"
    if misuse := _misuse(jwk):
        return f"{shown}: {misuse}"
    try:
        if algorithms := _strong_enough(jwk, _bound_algorithms(jwk) & accepted):
            return VerifyingKey(kid, algorithms, _imported(jwk))
    except (JoseError, UnsupportedAlgorithm, ValueError, TypeError, KeyError) as exc:
        return f"{shown}: not a sound key ({type(exc).__name__})"
    return (
        f"{shown}: by kty, crv, alg and size it fits none of {', '.join(sorted(accepted))} "
        f"(RSA needs {_MIN_RSA_BITS} bits, a secret as many as its hash)"
    )


def _misuse(jwk: Mapping[str, object]) -> str | None:
    """Return why the key is not one to look for: RFC 7517 §4.2 and §4.3 let it say what it is to be used for."""
    if not isinstance(jwk.get("kid"), str | None):
        return "kid is not a string"
    if "use" in jwk and jwk["use"] != "sig":
        return "not for signatures (use)"
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return "not for verifying (key_ops)"
    return None


def _bound_algorithms(jwk: Mapping[str, object]) -> frozenset[str]:
    """Return what the key may verify: what its type and curve allow, narrowed to its `alg` when it names one."""
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
        bits = int.from_bytes(_decoded(jwk.get("n")), "big").bit_length()
        return algorithms if bits >= _MIN_RSA_BITS else frozenset()
    if jwk.get("kty") == "oct":
        length = len(_decoded(jwk.get("k")))
        return frozenset(name for name in algorithms if length >= _MIN_SECRET_BYTES[name])
    return algorithms


def _imported(jwk: Mapping[str, object]) -> Key:
    kty = _text(jwk["kty"])
    return import_key({"kty": kty, **{name: _text(jwk[name]) for name in _MATERIAL[kty]}})


def _decoded(member: object) -> bytes:
    text = _text(member)
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _text(member: object) -> str:
    if not isinstance(member, str):
        raise TypeError("key material is text")
    return member
