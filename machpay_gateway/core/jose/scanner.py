"""Verification of the signatures of secret scanning reports.

Signatures are ECDSA with P-256 and SHA-256, as DER in base64. Public keys are PEM. The settings import `leak`, so this
module is separate: it imports cryptography.
"""

import base64
from collections.abc import Mapping

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from machpay_gateway.core.jose.token import MAX_KEYS, VerifyingKey, VerifyingKeys, collect_keys

_ALGORITHM, _CURVE = "ES256", "P-256"
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of the curve (FIPS 186-4, D.1.2.3)


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


def parse_signature(text: str) -> bytes | None:
    """Return the signature that *text* is in base64, or None when no key can have made it."""
    try:
        signature = base64.b64decode(text, validate=True)
        r, s = decode_dss_signature(signature)
    except ValueError:
        return None
    return signature if 0 < r < _ORDER and 0 < s < _ORDER else None


def is_signature_of(report: bytes, signature: bytes, key: VerifyingKey) -> bool:
    """Return whether *key* made the *signature* of *report*."""
    public_key = key.key.public_key if isinstance(key.key, ECKey) else None
    if public_key is None:
        return False
    try:
        public_key.verify(signature, report, ec.ECDSA(SHA256()))
    except InvalidSignature:
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
