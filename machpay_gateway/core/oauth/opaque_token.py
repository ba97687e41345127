"""Opaque tokens: authorization codes, refresh tokens, client secrets and session cookies.

Each has a prefix for its kind, the tag of the brand, 32 random base62 characters (190 bits, RFC 6749 §10.10) and a
CRC-32 in 6 more. The checksum refuses junk without a query to the database, and secret scanners can find leaked tokens.
Only digests are stored.
"""

import hmac
import re
from enum import StrEnum
from hashlib import sha256

from machpay_gateway.core.brand import MACHPAY
from machpay_gateway.core.keys.key import base62, checksum

_BODY_LENGTH, _CHECKSUM_LENGTH, _ENTROPY_BYTES = 32, 6, 32


class OpaqueTokenKind(StrEnum):
    """The kinds of tokens, each by its prefix."""

    CODE = "ac"
    REFRESH_TOKEN = "rt"  # noqa: S105 - a prefix
    CLIENT_SECRET = "cs"  # noqa: S105 - a prefix
    BROWSER = "bs"


_SHAPE = re.compile(r"([a-z]{2})_[a-z][a-z0-9]{0,15}_[0-9A-Za-z]{38}", re.ASCII)


def mint(kind: OpaqueTokenKind, entropy: bytes, tag: str = MACHPAY.tag) -> str:
    """Return a new token of *kind* with the *tag* of a brand from *entropy*, 32 random bytes."""
    if len(entropy) != _ENTROPY_BYTES:
        raise ValueError(f"{_ENTROPY_BYTES} bytes of entropy are needed, not {len(entropy)}")
    body = f"{kind}_{tag}_" + base62(int.from_bytes(entropy, "big"), _BODY_LENGTH)
    return body + checksum(body.encode()).decode()


def digest_of(kind: OpaqueTokenKind, presented: str) -> bytes | None:
    """Return the SHA-256 digest that *presented* is stored under; None when it is no well-formed token of *kind*."""
    match = _SHAPE.fullmatch(presented)
    if match is None or match[1] != kind:
        return None
    sound = checksum(presented[:-_CHECKSUM_LENGTH].encode()).decode() == presented[-_CHECKSUM_LENGTH:]
    return sha256(presented.encode()).digest() if sound else None


def successor(presented: str, seed: bytes) -> str:
    """Return the refresh token that follows the *presented* one, whose row has this *seed*.

    A client that lost the response to a refresh gets the same token again, although it is stored nowhere: it is derived
    from the old token, which only the client has, and the seed, which only the database has.
    """
    _, tag, _ = presented.split("_")
    return mint(OpaqueTokenKind.REFRESH_TOKEN, hmac.digest(seed, presented.encode(), "sha256"), tag)
