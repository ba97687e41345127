"""The tokens that the authorization server issues (RFC 6749 §5.1), and when they expire."""

import datetime as dt
import json
import math
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass, replace

from machpay._credential import is_sendable, masked_repr
from machpay._parsing import ObjectParser, ParseError, optional_text, optional_whole, text
from machpay._response import Response
from machpay._result import Result

_PARTS_OF_A_JWT = 3


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Tokens(Result):
    """An access token, and its refresh token. *expires_in* is in seconds after the response.

    After a refresh, *refresh_token* is the one to store: the new one, or the old one if it remains valid.
    """

    access_token: str
    refresh_token: str | None = None
    token_type: str = "Bearer"  # noqa: S105 - a type of token
    expires_in: int | None = None
    scope: str | None = None

    @property
    def expires_at(self) -> dt.datetime | None:
        """When the access token expires, None if the server did not say."""
        if self.expires_in is None:
            return None
        return dt.datetime.fromtimestamp(self.response.received_at + self.expires_in, dt.UTC)

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes of the access token; empty if the server did not send them."""
        return tuple((self.scope or "").split())

    def with_refresh_token(self, refresh_token: str) -> "Tokens":
        """Return the tokens with *refresh_token*, which remains valid unless they have a new one (RFC 6749 §6)."""
        return self if self.refresh_token else replace(self, refresh_token=refresh_token)

    def __repr__(self) -> str:
        return masked_repr(self, "access_token", "refresh_token")


def tokens_from(members: Mapping[str, object], response: Response) -> Tokens:
    """Return the tokens in *response*."""
    return _tokens(members, response, "Bearer")


def bound_tokens_from(members: Mapping[str, object], response: Response) -> Tokens:
    """Return the tokens in *response* to a request with a DPoP proof."""
    return _tokens(members, response, "DPoP")


def _tokens(members: Mapping[str, object], response: Response, token_type: str) -> Tokens:
    parser = ObjectParser(members)
    return Tokens(
        access_token=parser.required("access_token", _sendable),
        refresh_token=parser.optional("refresh_token", optional_text, None),
        token_type=parser.optional("token_type", lambda value: _of_type(value, token_type), token_type),
        expires_in=parser.optional("expires_in", optional_whole, None),
        scope=parser.optional("scope", optional_text, None),
        extra=parser.rest(),
        response=response,
    )


def expiry_of(access_token: str) -> float | None:
    """Return the expiry of *access_token* in seconds since the epoch, or None if it is not a JWT with one.

    The token is not verified, which is the server's task. The expiry only saves a request that would fail.
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
        raise ParseError("not a token")
    return text(value)


def _of_type(value: object, token_type: str) -> str:
    """Return *value*. RFC 6749 §7.1: a client must not use a token of an unknown type."""
    if text(value).lower() != token_type.lower():
        raise ParseError(f"not {token_type}")
    return text(value)
