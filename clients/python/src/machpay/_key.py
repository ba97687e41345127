"""API keys, as the API tells of them."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

from machpay._credential import shown
from machpay._reading import Members, flag, items, mapping, moment, optional_text, text, texts
from machpay._received import Received
from machpay._response import Response


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySecret:
    """One of a key's secrets, which can be told apart and not used."""

    masked: str = ""
    current: bool = False
    created_at: dt.datetime | None = None
    expires_at: dt.datetime | None = None
    last_used_at: dt.datetime | None = None
    extra: Mapping[str, object] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Key(Received):
    """An API key. *secret* is there only when it has just been created or rotated: store it then, or never.

    *etag* is what `update(if_match=…)` takes; a key out of a page has none.
    """

    id: str
    name: str = ""
    account_id: str | None = None
    environment: str | None = None
    tier: str | None = None
    scopes: tuple[str, ...] = ()
    allowed_ips: tuple[str, ...] = ()
    status: str | None = None
    masked: str | None = None
    created_at: dt.datetime | None = None
    last_used_at: dt.datetime | None = None
    expires_at: dt.datetime | None = None
    last_rotated_at: dt.datetime | None = None
    rotation_due: bool = False
    metadata: Mapping[str, object] = field(default_factory=dict)
    secrets: tuple[KeySecret, ...] = ()
    secret: str | None = None
    etag: str | None = None

    def __repr__(self) -> str:
        return shown(self, "secret")


def key_from(members: Mapping[str, object], response: Response) -> Key:
    """Return the key that is the whole of *response*."""
    return _key(members, response, etag=response.headers.get("etag"))


def listed_key_from(members: Mapping[str, object], response: Response) -> Key:
    """Return one of the keys in *response*, whose ETag would be the list's."""
    return _key(members, response, etag=None)


def _key(members: Mapping[str, object], response: Response, *, etag: str | None) -> Key:
    of = Members(members)
    of.optional("object", text, "key")
    return Key(
        id=of.required("id", text),
        name=of.optional("name", text, ""),
        account_id=of.optional("account_id", optional_text, None),
        environment=of.optional("environment", optional_text, None),
        tier=of.optional("tier", optional_text, None),
        scopes=of.optional("scopes", texts, ()),
        allowed_ips=of.optional("allowed_ips", texts, ()),
        status=of.optional("status", optional_text, None),
        masked=of.optional("masked", optional_text, None),
        created_at=of.optional("created_at", moment, None),
        last_used_at=of.optional("last_used_at", moment, None),
        expires_at=of.optional("expires_at", moment, None),
        last_rotated_at=of.optional("last_rotated_at", moment, None),
        rotation_due=of.optional("rotation_due", flag, default=False),
        metadata=of.optional("metadata", mapping, {}),
        secrets=of.optional("secrets", _secrets, ()),
        secret=of.optional("secret", optional_text, None),
        etag=etag,
        extra=of.rest(),
        response=response,
    )


def _secrets(value: object) -> tuple[KeySecret, ...]:
    return tuple(_secret(mapping(item)) for item in items(value))


def _secret(members: Mapping[str, object]) -> KeySecret:
    of = Members(members)
    return KeySecret(
        masked=of.optional("masked", text, ""),
        current=of.optional("current", flag, default=False),
        created_at=of.optional("created_at", moment, None),
        expires_at=of.optional("expires_at", moment, None),
        last_used_at=of.optional("last_used_at", moment, None),
        extra=of.rest(),
    )
