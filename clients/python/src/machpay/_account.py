"""The account and the identity of the caller. Further members are in `.extra`."""

from collections.abc import Mapping
from dataclasses import dataclass

from machpay._parsing import ObjectParser, optional_text, texts
from machpay._response import Response
from machpay._result import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Account(Result):
    """The account that the credential belongs to."""

    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity(Result):
    """The caller as the server identifies it."""

    id: str | None = None
    name: str | None = None
    environment: str | None = None
    tier: str | None = None
    scopes: tuple[str, ...] = ()


def account_from(members: Mapping[str, object], response: Response) -> Account:
    """Return the account in *response*."""
    parser = ObjectParser(members)
    return Account(id=parser.optional("id", optional_text, None), extra=parser.rest(), response=response)


def identity_from(members: Mapping[str, object], response: Response) -> Identity:
    """Return the identity in *response*."""
    parser = ObjectParser(members)
    return Identity(
        id=parser.optional("id", optional_text, None),
        name=parser.optional("name", optional_text, None),
        environment=parser.optional("environment", optional_text, None),
        tier=parser.optional("tier", optional_text, None),
        scopes=parser.optional("scopes", texts, ()),
        extra=parser.rest(),
        response=response,
    )
