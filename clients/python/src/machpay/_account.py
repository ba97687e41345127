"""The account, and who is calling. Their further members are in `.extra`."""

from collections.abc import Mapping
from dataclasses import dataclass

from machpay._reading import Members, optional_text, texts
from machpay._received import Received
from machpay._response import Response


@dataclass(frozen=True, slots=True, kw_only=True)
class Account(Received):
    """The account that the credential belongs to."""

    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity(Received):
    """Whom the server takes the caller for."""

    id: str | None = None
    name: str | None = None
    environment: str | None = None
    tier: str | None = None
    scopes: tuple[str, ...] = ()


def account_from(members: Mapping[str, object], response: Response) -> Account:
    """Return the account that *response* tells of."""
    of = Members(members)
    return Account(id=of.optional("id", optional_text, None), extra=of.rest(), response=response)


def identity_from(members: Mapping[str, object], response: Response) -> Identity:
    """Return the identity that *response* tells of."""
    of = Members(members)
    return Identity(
        id=of.optional("id", optional_text, None),
        name=of.optional("name", optional_text, None),
        environment=of.optional("environment", optional_text, None),
        tier=of.optional("tier", optional_text, None),
        scopes=of.optional("scopes", texts, ()),
        extra=of.rest(),
        response=response,
    )
