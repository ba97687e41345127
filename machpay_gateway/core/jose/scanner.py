"""Signatures of secret scanners' reports: ECDSA on P-256 with SHA-256, in DER and base64, with keys in PEM.

Separate from `leak`, which the settings import: this module loads cryptography.
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


def scanner_keys(document: bytes) -> VerifyingKeys | str:
    """Return the keys in a scanner's *document*, or why there are none.

    The document is `{"public_keys": [{"key_identifier": …, "key": …}]}`, each key in PEM.
    """
    try:
        published = orjson.loads(document)["public_keys"]
        keys = [_key(item) for item in published[:MAX_KEYS]]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return 'not a list of "public_keys"'
    return collect_keys(keys)


def is_signed(report: bytes, signature: str, key: VerifyingKey) -> bool:
    """Tell whether *signature*, base64 of DER, is *key*'s signature of the *report* as received."""
    public_key = key.key.public_key if isinstance(key.key, ECKey) else None
    if public_key is None:
        return False
    try:
        public_key.verify(base64.b64decode(signature, validate=True), report, ec.ECDSA(SHA256()))
    except (ValueError, InvalidSignature):
        return False
    return True


def _key(item: Mapping[str, object]) -> VerifyingKey | str:
    kid, pem = item["key_identifier"], item["key"]
    if not isinstance(kid, str) or not isinstance(pem, str):
        return "a key that is not text"
    try:
        key = ECKey.import_key(pem)
    except (JoseError, ValueError, TypeError) as exc:
        return f"a key that is not sound ({type(exc).__name__})"
    return VerifyingKey(kid, frozenset({_ALGORITHM}), key) if key.curve_name == _CURVE else f"a key not on {_CURVE}"
