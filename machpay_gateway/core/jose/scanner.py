"""Verification of the signatures of secret scanning reports.

Signatures are ECDSA with P-256 and SHA-256, as DER in base64. Public keys are PEM. The settings import `leak`, so this
module is separate: it imports cryptography.
"""

import base64
from collections.abc import Mapping

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from machpay_gateway.core.jose.token import MAX_KEYS, VerifyingKey, VerifyingKeys, collect_keys

_ALGORITHM, _CURVE = "ES256", "P-256"


def parse_scanner_keys(document: bytes) -> VerifyingKeys | str:
    """Return the public keys in a scanner's *document*, or the reason why it has none.

    The document is `{"public_keys": [{"key_identifier": …, "key": …}]}`, each key in PEM.
    """
    try:
        published = orjson.loads(document)["public_keys"]
        keys = [_parse_key(item) for item in published[:MAX_KEYS]]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return 'not a list of "public_keys"'
    return collect_keys(keys)


def verify_signature(report: bytes, signature: str, key: VerifyingKey) -> bool:
    """Return whether *signature* (base64) is a valid signature of *report* by *key*."""
    public_key = key.key.public_key if isinstance(key.key, ECKey) else None
    if public_key is None:
        return False
    try:
        public_key.verify(base64.b64decode(signature, validate=True), report, ec.ECDSA(SHA256()))
    except (ValueError, InvalidSignature):
        return False
    return True


def _parse_key(item: Mapping[str, object]) -> VerifyingKey | str:
    kid, pem = item["key_identifier"], item["key"]
    if not isinstance(kid, str) or not isinstance(pem, str):
        return "a key that is not a string"
    try:
        key = ECKey.import_key(pem)
    except (JoseError, ValueError, TypeError) as exc:
        return f"an invalid key ({type(exc).__name__})"
    return VerifyingKey(kid, frozenset({_ALGORITHM}), key) if key.curve_name == _CURVE else f"a key not on {_CURVE}"
