"""The gateway's signing keys: which one signs at a moment, and which are still needed for verification.

A key is published before it signs, so that clients that cache the key set have it by then. It stays published until
everything that it signed has expired.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

ALGORITHM = "RS256"  # RFC 9068 §2.1: every resource server supports it; and verification is fastest
PUBLISH_BEFORE_SIGNING_SECONDS = 600.0  # clients may cache the key set for half of that


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A stored key: *public* is its JWK as JSON, *sealed* its private part, encrypted with the secret key."""

    kid: str
    public: bytes
    sealed: bytes = field(repr=False)
    created_at: float
    signs_from: float


def signing_at(keys: Sequence[SigningKey], now: float) -> SigningKey | None:
    """Return the one of *keys* that signs at *now*: the latest whose time has come."""
    ready = [key for key in keys if key.signs_from <= now]
    return max(ready, key=lambda key: (key.signs_from, key.kid), default=None)


def alive_at(keys: Sequence[SigningKey], now: float, life_seconds: float) -> tuple[SigningKey, ...]:
    """Return those of *keys* that have signed, or will sign, something that is valid at or after *now*; newest first.

    What they sign is valid for *life_seconds*.
    """
    newest_first = sorted(keys, key=lambda key: (key.signs_from, key.kid), reverse=True)
    return tuple(
        key
        for at, key in enumerate(newest_first)
        if not at or now < newest_first[at - 1].signs_from + life_seconds  # when its successor took over
    )


def state_at(keys: Sequence[SigningKey], key: SigningKey, now: float) -> str:
    """Return the state of *key*, one of *keys*, at *now*: `next`, `signing` or `verifying`."""
    if key.signs_from > now:
        return "next"
    return "signing" if signing_at(keys, now) == key else "verifying"
