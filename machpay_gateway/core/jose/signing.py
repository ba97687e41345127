"""The keys that we sign by: which of them signs at a moment, and which are still needed to verify.

A key is published before it signs, so that whoever keeps our key set for a while has it by then; and stays published
until nothing that it signed is alive.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

ALGORITHM = "RS256"  # RFC 9068 §2.1: every resource server can verify it; and it verifies fastest
PUBLISH_BEFORE_SIGNING_SECONDS = 600.0  # from being published to signing; the key set may be kept for half of that


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key as it is kept: *public* is its JWK as JSON, *sealed* its private part, which only the secret key opens."""

    kid: str
    public: bytes
    sealed: bytes = field(repr=False)
    created_at: float
    signs_from: float


def signing_at(keys: Sequence[SigningKey], now: float) -> SigningKey | None:
    """Return the one of *keys* that signs at *now*: the latest that may."""
    ready = [key for key in keys if key.signs_from <= now]
    return max(ready, key=lambda key: (key.signs_from, key.kid), default=None)


def alive_at(keys: Sequence[SigningKey], now: float, life_seconds: float) -> tuple[SigningKey, ...]:
    """Return those of *keys* that may have signed something that is alive at *now*, or will; the newest first.

    What they sign lives for *life_seconds*.
    """
    newest_first = sorted(keys, key=lambda key: (key.signs_from, key.kid), reverse=True)
    return tuple(
        key
        for at, key in enumerate(newest_first)
        if not at or now < newest_first[at - 1].signs_from + life_seconds  # when the one after it took over
    )


def state_at(keys: Sequence[SigningKey], key: SigningKey, now: float) -> str:
    """Return what *key*, one of *keys*, is for at *now*: `next`, `signing` or `verifying`."""
    if key.signs_from > now:
        return "next"
    return "signing" if signing_at(keys, now) == key else "verifying"
