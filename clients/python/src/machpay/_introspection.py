"""What the authorization server says of a token (RFC 7662 §2.2)."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from machpay._parsing import ObjectParser, flag, items, number, optional_text, text
from machpay._response import Response
from machpay._result import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Introspection(Result):
    """A token. If it is not *active*, nothing else is known."""

    active: bool
    scope: str | None = None
    client_id: str | None = None
    username: str | None = None
    token_type: str | None = None
    subject: str | None = None
    issuer: str | None = None
    audience: tuple[str, ...] = ()
    issued_at: dt.datetime | None = None
    expires_at: dt.datetime | None = None

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes of the token."""
        return tuple((self.scope or "").split())


def introspection_from(members: Mapping[str, object], response: Response) -> Introspection:
    """Return what *response* says of a token."""
    parser = ObjectParser(members)
    return Introspection(
        active=parser.required("active", flag),
        scope=parser.optional("scope", optional_text, None),
        client_id=parser.optional("client_id", optional_text, None),
        username=parser.optional("username", optional_text, None),
        token_type=parser.optional("token_type", optional_text, None),
        subject=parser.optional("sub", optional_text, None),
        issuer=parser.optional("iss", optional_text, None),
        audience=parser.optional("aud", _audience, ()),
        issued_at=parser.optional("iat", _moment, None),
        expires_at=parser.optional("exp", _moment, None),
        extra=parser.rest(),
        response=response,
    )


def _audience(value: object) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(text(item) for item in items(value))


def _moment(value: object) -> dt.datetime | None:
    return dt.datetime.fromtimestamp(number(value) or 0.0, dt.UTC)
