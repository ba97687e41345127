"""OAuth clients, as returned by the API."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from machpay._credential import masked_repr
from machpay._parsing import ObjectParser, flag, items, mapping, moment, optional_text, text, texts
from machpay._response import Response
from machpay._result import Result
from machpay._types import Environment, GrantType


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSecret:
    """One of an OAuth client's secrets, without anything that authenticates."""

    masked: str = ""
    current: bool = False
    created_at: dt.datetime | None = None
    expires_at: dt.datetime | None = None
    extra: Mapping[str, object] = field(default_factory=dict, repr=False, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthClient(Result):
    """An application that may act for users who allow it. Its *id* is its `client_id`.

    *etag* is for `update(if_match=…)`. OAuth clients in a page have none.
    """

    id: str
    name: str = ""
    account_id: str | None = None
    environment: Environment | None = None
    public: bool = False
    redirect_uris: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    grant_types: tuple[GrantType, ...] = ()
    require_pkce: bool = True
    dpop_bound: bool = False
    self_registered: bool = False
    created_at: dt.datetime | None = None
    secrets: tuple[ClientSecret, ...] = ()
    etag: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class IssuedOAuthClient(OAuthClient):
    """An OAuth client that was just created, or whose secret was rotated. Store its *client_secret* now.

    A public one has none.
    """

    client_secret: str | None = None

    def __repr__(self) -> str:
        return masked_repr(self, "client_secret")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedOAuthClient(Result):
    """What remains of an OAuth client that was deleted."""

    id: str
    deleted: bool = True


def oauth_client_from(members: Mapping[str, object], response: Response) -> OAuthClient:
    """Return the OAuth client in *response*."""
    parser = ObjectParser(members)
    return _client(parser, response, response.headers.get("etag"))


def listed_oauth_client_from(members: Mapping[str, object], response: Response) -> OAuthClient:
    """Return one of the OAuth clients in *response*, without an ETag, which would be that of the list."""
    return _client(ObjectParser(members), response, None)


def issued_oauth_client_from(members: Mapping[str, object], response: Response) -> IssuedOAuthClient:
    """Return the OAuth client in *response*, with its new secret."""
    parser = ObjectParser(members)
    secret = parser.optional("client_secret", optional_text, None)
    client = _client(parser, response, response.headers.get("etag"))
    given = {name: getattr(client, name) for name in OAuthClient.__dataclass_fields__}
    return IssuedOAuthClient(**given, client_secret=secret)


def deleted_oauth_client_from(members: Mapping[str, object], response: Response) -> DeletedOAuthClient:
    """Return what *response* says of a deleted OAuth client."""
    parser = ObjectParser(members)
    parser.optional("object", text, "oauth_client")
    return DeletedOAuthClient(
        id=parser.required("id", text),
        deleted=parser.optional("deleted", flag, default=True),
        extra=parser.rest(),
        response=response,
    )


def _client(parser: ObjectParser, response: Response, etag: str | None) -> OAuthClient:
    parser.optional("object", text, "oauth_client")
    return OAuthClient(
        id=parser.required("id", text),
        name=parser.optional("name", text, ""),
        account_id=parser.optional("account_id", optional_text, None),
        environment=cast("Environment | None", parser.optional("environment", optional_text, None)),
        public=parser.optional("public", flag, default=False),
        redirect_uris=parser.optional("redirect_uris", texts, ()),
        scopes=parser.optional("scopes", texts, ()),
        grant_types=parser.optional("grant_types", _grant_types, ()),
        require_pkce=parser.optional("require_pkce", flag, default=True),
        dpop_bound=parser.optional("dpop_bound", flag, default=False),
        self_registered=parser.optional("self_registered", flag, default=False),
        created_at=parser.optional("created_at", moment, None),
        secrets=parser.optional("secrets", _secrets, ()),
        etag=etag,
        extra=parser.rest(),
        response=response,
    )


def _grant_types(value: object) -> tuple[GrantType, ...]:
    return cast("tuple[GrantType, ...]", texts(value))


def _secrets(value: object) -> tuple[ClientSecret, ...]:
    return tuple(_secret(mapping(item)) for item in items(value))


def _secret(members: Mapping[str, object]) -> ClientSecret:
    parser = ObjectParser(members)
    return ClientSecret(
        masked=parser.optional("masked", text, ""),
        current=parser.optional("current", flag, default=False),
        created_at=parser.optional("created_at", moment, None),
        expires_at=parser.optional("expires_at", moment, None),
        extra=parser.rest(),
    )
