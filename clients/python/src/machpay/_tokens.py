"""Tokens, as the authorization server issues them (RFC 6749 §5.1), and when they end."""

import json
import math
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass, replace

from machpay._credential import is_sendable, shown
from machpay._reading import Members, Unreadable, optional_text, optional_whole, text
from machpay._received import Received
from machpay._response import Response

_PARTS_OF_A_JWT = 3


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Tokens(Received):
    """An access token, and what comes with it. *expires_in* is in seconds from when it was received.

    After a refresh *refresh_token* is the one to keep: the new one, or the old one where that goes on being valid.
    """

    access_token: str
    refresh_token: str | None = None
    token_type: str = "Bearer"  # noqa: S105 - a kind of token, and none
    expires_in: int | None = None
    scope: str | None = None

    @property
    def scopes(self) -> tuple[str, ...]:
        """What the access token may do; empty when the server did not say."""
        return tuple((self.scope or "").split())

    def following(self, refresh_token: str) -> "Tokens":
        """Return these, received for *refresh_token*, which goes on being valid where no other came (RFC 6749 §6)."""
        return self if self.refresh_token else replace(self, refresh_token=refresh_token)

    def __repr__(self) -> str:
        return shown(self, "access_token", "refresh_token")


def tokens_from(members: Mapping[str, object], response: Response) -> Tokens:
    """Return the tokens in *response*."""
    of = Members(members)
    return Tokens(
        access_token=of.required("access_token", _sendable),
        refresh_token=of.optional("refresh_token", optional_text, None),
        token_type=of.optional("token_type", _bearer, "Bearer"),
        expires_in=of.optional("expires_in", optional_whole, None),
        scope=of.optional("scope", optional_text, None),
        extra=of.rest(),
        response=response,
    )


def end_of(access_token: str) -> float | None:
    """Return when *access_token* ends, in seconds since the epoch; None unless it is a JWT that tells.

    Nothing is verified: whoever accepts the token does that, and here it only saves a request in vain.
    """
    parts = access_token.split(".")
    if len(parts) != _PARTS_OF_A_JWT:
        return None
    try:
        claims = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    end = claims.get("exp") if isinstance(claims, dict) else None
    if isinstance(end, bool) or not isinstance(end, int | float):
        return None
    return float(end) if 0 < end < 10**12 and math.isfinite(end) else None


def _sendable(value: object) -> str:
    if not is_sendable(text(value)):
        raise Unreadable("not a token")
    return text(value)


def _bearer(value: object) -> str:
    """Return *value*. RFC 6749 §7.1: a token of a type that one does not understand must not be used."""
    if text(value).lower() != "bearer":
        raise Unreadable("not Bearer")
    return text(value)
