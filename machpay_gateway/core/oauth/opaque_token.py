"""Opaque strings: codes, refresh tokens, client secrets and what a browser is known by.

Each is a prefix that says what it is, 32 base62 characters of randomness (190 bits, RFC 6749 §10.10) and 6 of CRC-32:
so junk is refused without a question to the database, and scanners can find what leaked. Only digests are stored.
"""

import hmac
import re
from enum import StrEnum
from hashlib import sha256

from machpay_gateway.core.keys.key import base62, checksum

_BODY_LENGTH, _CHECKSUM_LENGTH, _ENTROPY_BYTES = 32, 6, 32


class OpaqueTokenKind(StrEnum):
    """What a string is, by its prefix."""

    CODE = "ac_mp1_"
    REFRESH_TOKEN = "rt_mp1_"  # noqa: S105 - a prefix
    CLIENT_SECRET = "cs_mp1_"  # noqa: S105 - a prefix
    BROWSER = "bs_mp1_"


_SHAPE = re.compile(r"([a-z]{2}_mp1_)[0-9A-Za-z]{38}", re.ASCII)


def mint(kind: OpaqueTokenKind, entropy: bytes) -> str:
    """Return a new string of *kind* from *entropy*, 32 bytes of the system's randomness."""
    if len(entropy) != _ENTROPY_BYTES:
        raise ValueError(f"{_ENTROPY_BYTES} bytes of entropy are needed, not {len(entropy)}")
    body = kind + base62(int.from_bytes(entropy, "big"), _BODY_LENGTH)
    return body + checksum(body.encode()).decode()


def digest_of(kind: OpaqueTokenKind, presented: str) -> bytes | None:
    """Return the SHA-256 digest that *presented* is stored under; None when it is nothing of *kind*."""
    match = _SHAPE.fullmatch(presented)
    if match is None or match[1] != kind:
        return None
    sound = checksum(presented[:-_CHECKSUM_LENGTH].encode()).decode() == presented[-_CHECKSUM_LENGTH:]
    return sha256(presented.encode()).digest() if sound else None


def successor(presented: str, seed: bytes) -> str:
    """Return the refresh token that comes after the *presented* one, whose row holds *seed*.

    Whoever lost the answer to a refresh is told the same token again, and it is stored nowhere: it takes the old
    token, which only its owner has, and the seed, which only the database has.
    """
    return mint(OpaqueTokenKind.REFRESH_TOKEN, hmac.digest(seed, presented.encode(), "sha256"))
