"""Signed tokens where the extra `tokens` is not installed: without its libraries no signature can be verified."""

import logging

from machpay_gateway.core.decision.credential import SignedToken
from machpay_gateway.core.errors import KeysetUnavailable
from machpay_gateway.core.jose.compact import parse_compact
from machpay_gateway.core.jose.session import ISSUER
from machpay_gateway.extras import LIBRARIES, missing_extra
from machpay_gateway.log_throttle import LogThrottle

logger = logging.getLogger(__name__)


class UnverifiedTokens:
    """Refuses tokens of other issuers, of which none is configured, and cannot tell about sessions of keys.

    Another process with the same database may have signed these, so their callers get 503, and the log the command.
    """

    def __init__(self) -> None:
        self._throttle = LogThrottle(logger)

    def cached(self, _digest: bytes, _now: float) -> None:
        """Return None: nothing is cached."""

    def holds(self, _digest: bytes) -> bool:
        """Return False: nothing is cached."""
        return False

    def may_verify(self, token: SignedToken) -> bool:
        """Tell whether *token* claims to be a session of a key."""
        compact = parse_compact(token.token)
        return not isinstance(compact, str) and compact.claims.get("iss") == ISSUER

    async def verify(self, token: SignedToken, _now: float) -> str:
        """Return why *token* is refused. Raises KeysetUnavailable for what claims to be a session of a key."""
        if not self.may_verify(token):
            return "iss is not configured"
        error = missing_extra("tokens", "The session of a key", LIBRARIES["tokens"][0])
        self._throttle.log(logging.WARNING, "A session cannot be verified. %s", error)
        raise KeysetUnavailable("the gateway's own signing keys") from error

    def forget(self, _subject: str) -> None:
        """Do nothing: nothing is cached."""

    async def close(self) -> None:
        """Do nothing: there are no connections."""
