"""API keys, as returned by the API."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from machpay._credential import masked_repr
from machpay._parsing import ObjectParser, ParseError, flag, items, mapping, moment, optional_text, text, texts
from machpay._response import Response
from machpay._result import Result
from machpay._types import Environment, KeyStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySecret:
    """One of a key's secrets, without anything that authenticates."""

    masked: str = ""
    current: bool = False
    created_at: dt.datetime | None = None
    expires_at: dt.datetime | None = None
    last_used_at: dt.datetime | None = None
    extra: Mapping[str, object] = field(default_factory=dict, repr=False, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Key(Result):
    """An API key. Only a key that was just created or rotated has its *secret*.

    *etag* is for `update(if_match=…)`. Keys in a page have none. *own_tier* is the tier that an operator gave this key;
    None: *tier* is that of its account.
    """

    id: str
    name: str = ""
    owner: str | None = None
    account_id: str | None = None
    environment: Environment | None = None
    tier: str | None = None
    own_tier: str | None = None
    tier_configured: bool = True
    scopes: tuple[str, ...] = ()
    allowed_ips: tuple[str, ...] = ()
    status: KeyStatus | None = None
    masked: str | None = None
    created_at: dt.datetime | None = None
    last_used_at: dt.datetime | None = None
    expires_at: dt.datetime | None = None
    last_rotated_at: dt.datetime | None = None
    rotation_due: bool = False
    metadata: Mapping[str, object] = field(default_factory=dict, hash=False)
    secrets: tuple[KeySecret, ...] = ()
    secret: str | None = None
    etag: str | None = None

    def __repr__(self) -> str:
        return masked_repr(self, "secret")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class IssuedKey(Key):
    """A key that was just created or rotated. Store its *secret* now: it is shown only once."""

    secret: str


def issued_key_from(members: Mapping[str, object], response: Response) -> IssuedKey:
    """Return the key in *response*, with its new secret."""
    key = key_from(members, response)
    if key.secret is None:
        raise ParseError("secret is missing")
    return IssuedKey(**{name: getattr(key, name) for name in Key.__dataclass_fields__})


def key_from(members: Mapping[str, object], response: Response) -> Key:
    """Return the key in *response*."""
    return _key(members, response, etag=response.headers.get("etag"))


def listed_key_from(members: Mapping[str, object], response: Response) -> Key:
    """Return one of the keys in *response*, without an ETag, which would be that of the list."""
    return _key(members, response, etag=None)


def _key(members: Mapping[str, object], response: Response, *, etag: str | None) -> Key:
    parser = ObjectParser(members)
    parser.optional("object", text, "key")
    return Key(
        id=parser.required("id", text),
        name=parser.optional("name", text, ""),
        owner=parser.optional("owner", optional_text, None),
        account_id=parser.optional("account_id", optional_text, None),
        environment=cast("Environment | None", parser.optional("environment", optional_text, None)),
        tier=parser.optional("tier", optional_text, None),
        own_tier=parser.optional("own_tier", optional_text, None),
        tier_configured=parser.optional("tier_configured", flag, default=True),
        scopes=parser.optional("scopes", texts, ()),
        allowed_ips=parser.optional("allowed_ips", texts, ()),
        status=cast("KeyStatus | None", parser.optional("status", optional_text, None)),
        masked=parser.optional("masked", optional_text, None),
        created_at=parser.optional("created_at", moment, None),
        last_used_at=parser.optional("last_used_at", moment, None),
        expires_at=parser.optional("expires_at", moment, None),
        last_rotated_at=parser.optional("last_rotated_at", moment, None),
        rotation_due=parser.optional("rotation_due", flag, default=False),
        metadata=parser.optional("metadata", mapping, {}),
        secrets=parser.optional("secrets", _secrets, ()),
        secret=parser.optional("secret", optional_text, None),
        etag=etag,
        extra=parser.rest(),
        response=response,
    )


def _secrets(value: object) -> tuple[KeySecret, ...]:
    return tuple(_secret(mapping(item)) for item in items(value))


def _secret(members: Mapping[str, object]) -> KeySecret:
    parser = ObjectParser(members)
    return KeySecret(
        masked=parser.optional("masked", text, ""),
        current=parser.optional("current", flag, default=False),
        created_at=parser.optional("created_at", moment, None),
        expires_at=parser.optional("expires_at", moment, None),
        last_used_at=parser.optional("last_used_at", moment, None),
        extra=parser.rest(),
    )
