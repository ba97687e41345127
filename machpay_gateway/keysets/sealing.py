"""Encryption of the private keys in a database that others may read: AES-256-GCM, with a key that is not in it."""

from os import urandom

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from machpay_gateway.core.errors import ConfigurationError

_NONCE_BYTES, _KEY_BYTES = 12, 32
_INFO = b"machpay signing key"


class SealedByAnotherKey(ConfigurationError):
    """What is sealed cannot be opened with this secret key."""


def seal(content: bytes, secret_key: bytes, name: str) -> bytes:
    """Return *content*, encrypted with *secret_key* and bound to *name*."""
    nonce = urandom(_NONCE_BYTES)
    return nonce + _cipher(secret_key).encrypt(nonce, content, name.encode())


def unseal(sealed: bytes, secret_key: bytes, name: str) -> bytes:
    """Return what `seal` encrypted. Raises SealedByAnotherKey for another *secret_key* or *name*, or a changed seal."""
    try:
        return _cipher(secret_key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode())
    except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
        raise SealedByAnotherKey(
            f"The signing key {name} was sealed by another secret key: give the one of then (MACHPAY_SECRET_KEY), or "
            "replace it by `machpay-gateway signing-keys rotate --now`, which ends all tokens"
        ) from None


def _cipher(secret_key: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), _KEY_BYTES, salt=None, info=_INFO).derive(secret_key))
