"""A cache of verified tokens: verifying a signature costs more than everything else in a decision."""

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
    """At most *size* principals by their token's digest, each for *seconds* and not past the token's expiry."""

    def __init__(self, *, seconds: float, size: int) -> None:
        self._seconds = seconds
        self._size = size
        self._tokens: OrderedDict[bytes, _Verified] = OrderedDict()

    def cached(self, digest: bytes, now: float) -> Principal | None:
        """Return the principal of the token if it is cached and valid at *now*."""
        verified = self._tokens.get(digest)
        # The lower bound covers a clock that was set back: `until` would be far in the future then.
        if verified is None or not verified.since <= now < verified.until:
            return None
        self._tokens.move_to_end(digest)
        return verified.principal

    def holds(self, digest: bytes) -> bool:
        """Tell whether the token is cached, valid or not."""
        return digest in self._tokens

    def remember(self, digest: bytes, principal: Principal, now: float, *, kid: str | None = None) -> None:
        """Cache *principal* from *now* on for the token, which the key *kid* has signed."""
        until = now + self._seconds
        if principal.expires_at is not None:
            until = min(until, principal.expires_at)
        self._tokens[digest] = _Verified(principal, now, until, kid)
        self._tokens.move_to_end(digest)
        if len(self._tokens) > self._size:
            self._tokens.popitem(last=False)

    def forget(self, digest: bytes) -> None:
        """Remove the token."""
        self._tokens.pop(digest, None)

    def forget_signed_by(self, kids: Collection[str]) -> None:
        """Remove the tokens that one of the keys *kids* has signed."""
        for digest in [digest for digest, verified in self._tokens.items() if verified.kid in kids]:
            del self._tokens[digest]

    def __len__(self) -> int:
        return len(self._tokens)
