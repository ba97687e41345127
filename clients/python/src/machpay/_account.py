"""The account and the identity of the caller. Further members are in `.extra`."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from machpay._parsing import ObjectParser, items, mapping, moment, optional_text, optional_whole, texts
from machpay._response import Response
from machpay._result import Result
from machpay._types import CredentialKind, Environment


@dataclass(frozen=True, slots=True, kw_only=True)
class Account(Result):
    """The account that the credential belongs to. Its members are up to the API: all but the id are in `.extra`, too.

    *balance* is in units of *currency* as the API defines them.
    """

    id: str | None = None
    name: str | None = None
    currency: str | None = None
    balance: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TierLimits:
    """The limits of the caller's tier."""

    rate: str | None = None
    requests: int | None = None
    window_seconds: int | None = None
    concurrency: int | None = None
    extra: Mapping[str, object] = field(default_factory=dict, repr=False, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemainingLimits:
    """What is left of the limits after this request."""

    requests: int | None = None
    reset_seconds: int | None = None
    concurrency: int | None = None
    extra: Mapping[str, object] = field(default_factory=dict, repr=False, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity(Result):
    """The caller as the server identifies it. *policies* are the limits that it counts against, as mappings.

    What follows *scopes* is in `.extra`, too, as the server sends it.
    """

    id: str | None = None
    name: str | None = None
    environment: Environment | None = None
    tier: str | None = None
    scopes: tuple[str, ...] = ()
    kind: CredentialKind | None = None
    account_id: str | None = None
    expires_at: dt.datetime | None = None
    limits: TierLimits | None = None
    remaining: RemainingLimits | None = None
    policies: tuple[Mapping[str, object], ...] = field(default=(), hash=False)


def account_from(members: Mapping[str, object], response: Response) -> Account:
    """Return the account in *response*."""
    parser = ObjectParser(members)
    account_id = parser.optional("id", optional_text, None)
    name, currency, balance = (members.get(each) for each in ("name", "currency", "balance"))
    return Account(
        id=account_id,
        name=name if isinstance(name, str) else None,
        currency=currency if isinstance(currency, str) else None,
        balance=balance if isinstance(balance, int | float) and not isinstance(balance, bool) else None,
        extra=parser.rest(),
        response=response,
    )


def identity_from(members: Mapping[str, object], response: Response) -> Identity:
    """Return the identity in *response*."""
    parser = ObjectParser(members)
    parser.optional("object", optional_text, None)
    return Identity(
        id=parser.optional("id", optional_text, None),
        name=parser.optional("name", optional_text, None),
        environment=cast("Environment | None", parser.optional("environment", optional_text, None)),
        tier=parser.optional("tier", optional_text, None),
        scopes=parser.optional("scopes", texts, ()),
        extra=parser.rest(),
        kind=cast("CredentialKind | None", parser.optional("kind", optional_text, None)),
        account_id=parser.optional("account_id", optional_text, None),
        expires_at=parser.optional("expires_at", moment, None),
        limits=parser.optional("limits", _limits, None),
        remaining=parser.optional("remaining", _remaining, None),
        policies=parser.optional("policies", _policies, ()),
        response=response,
    )


def _limits(value: object) -> TierLimits | None:
    parser = ObjectParser(mapping(value))
    return TierLimits(
        rate=parser.optional("rate", optional_text, None),
        requests=parser.optional("requests", optional_whole, None),
        window_seconds=parser.optional("window_seconds", optional_whole, None),
        concurrency=parser.optional("concurrency", optional_whole, None),
        extra=parser.rest(),
    )


def _remaining(value: object) -> RemainingLimits | None:
    parser = ObjectParser(mapping(value))
    return RemainingLimits(
        requests=parser.optional("requests", optional_whole, None),
        reset_seconds=parser.optional("reset_seconds", optional_whole, None),
        concurrency=parser.optional("concurrency", optional_whole, None),
        extra=parser.rest(),
    )


def _policies(value: object) -> tuple[Mapping[str, object], ...]:
    return tuple(mapping(item) for item in items(value))
