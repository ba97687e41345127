"""Tokens whose signature was good lately: looking at it again would cost more than all else that a decision does."""

from collections import OrderedDict
from collections.abc import Collection
from typing import NamedTuple

from machpay_gateway.core.decision.principal import Principal


class _Verified(NamedTuple):
    principal: Principal
    since: float
    until: float
    kid: str | None


class VerifiedTokens:
    """At most *size* tokens by their digest, each for *seconds* and no longer than it works."""

    def __init__(self, *, seconds: float, size: int) -> None:
        self._seconds = seconds
        self._size = size
        self._tokens: OrderedDict[bytes, _Verified] = OrderedDict()

    def cached(self, digest: bytes, now: float) -> Principal | None:
        """Return who presents the token, if that is known at *now*."""
        verified = self._tokens.get(digest)
        # The lower bound is for a clock that was set back: "until" would be far away then.
        if verified is None or not verified.since <= now < verified.until:
            return None
        self._tokens.move_to_end(digest)
        return verified.principal

    def holds(self, digest: bytes) -> bool:
        """Tell whether the token was good lately, whether it is known now or not."""
        return digest in self._tokens

    def remember(self, digest: bytes, principal: Principal, now: float, *, kid: str | None = None) -> None:
        """Know *principal* by the token, which the key *kid* has signed, from *now* on."""
        until = min(principal.expires_at or now, now + self._seconds)
        self._tokens[digest] = _Verified(principal, now, until, kid)
        self._tokens.move_to_end(digest)
        if len(self._tokens) > self._size:
            self._tokens.popitem(last=False)

    def forget(self, digest: bytes) -> None:
        """Know the token no more."""
        self._tokens.pop(digest, None)

    def forget_signed_by(self, kids: Collection[str]) -> None:
        """Know no more what was remembered as signed by one of *kids*."""
        for digest in [digest for digest, verified in self._tokens.items() if verified.kid in kids]:
            del self._tokens[digest]

    def __len__(self) -> int:
        return len(self._tokens)
