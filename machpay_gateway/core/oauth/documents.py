"""Users, OAuth clients, grants and signing keys as JSON documents, declared as in `core.keys.document`."""

from typing import Annotated, Any, Literal

from typing_extensions import TypedDict

from machpay_gateway.core.accounts.user import User
from machpay_gateway.core.jose.signing import SigningKey
from machpay_gateway.core.json_schema import JsonSchema, Timestamp
from machpay_gateway.core.keys.document import Environment
from machpay_gateway.core.oauth.client import GRANT_TYPES, OAuthClient
from machpay_gateway.core.oauth.grant import Grant
from machpay_gateway.core.text import format_moment, format_moment_or_none


def user_document(user: User) -> dict[str, Any]:
    """Return the user, and whether a password is set."""
    return {
        "id": user.id,
        "object": "user",
        "account_id": user.account_id,
        "email": user.email,
        "role": user.role,
        "status": "active" if user.disabled_at is None else "disabled",
        "has_password": user.password is not None,
        "created_at": format_moment(user.created_at),
        "disabled_at": format_moment_or_none(user.disabled_at),
    }


class ClientSecretDocument(TypedDict):
    """One of an OAuth client's secrets, without anything that authenticates."""

    masked: str
    current: bool
    created_at: Timestamp
    expires_at: Timestamp | None


class OAuthClientDocument(TypedDict):
    """An app that may act for users who allow it."""

    id: Annotated[str, JsonSchema(description="Its `client_id`.")]
    object: Literal["oauth_client"]
    account_id: str
    name: str
    environment: Environment
    public: bool
    redirect_uris: list[str]
    scopes: list[str]
    grant_types: list[Annotated[str, JsonSchema(enum=list(GRANT_TYPES))]]
    require_pkce: bool
    dpop_bound: bool
    self_registered: Annotated[bool, JsonSchema(description="Whether it registered itself: its name is unverified.")]
    created_at: Timestamp
    secrets: Annotated[
        list[ClientSecretDocument],
        JsonSchema(description="The current secret and, during a grace period, the previous one."),
    ]


class IssuedClientDocument(OAuthClientDocument):
    """An app with its new secret."""

    client_secret: Annotated[
        str | None,
        JsonSchema(description="Shown only once; null for a public app, which has none."),
    ]


class OAuthGrantDocument(TypedDict):
    """What a user allows an app to do, or what an app does for itself."""

    id: str
    object: Literal["oauth_grant"]
    account_id: str
    client_id: str
    user_id: Annotated[str | None, JsonSchema(description="null if the app acts for itself.")]
    environment: Environment
    scopes: list[str]
    status: Annotated[str, JsonSchema(enum=["active", "ended"])]
    created_at: Timestamp


def client_document(client: OAuthClient) -> OAuthClientDocument:
    """Return the client, its secrets masked."""
    return {
        "id": client.id,
        "object": "oauth_client",
        "account_id": client.account_id,
        "name": client.name,
        "environment": client.environment,
        "public": client.is_public,
        "redirect_uris": list(client.redirect_uris),
        "scopes": list(client.scopes),
        "grant_types": list(client.grant_types),
        "require_pkce": client.requires_pkce,
        "dpop_bound": client.binds_tokens,
        "self_registered": client.is_self_registered,
        "created_at": format_moment(client.created_at),
        "secrets": [
            {
                "masked": secret.masked,
                "current": not at,
                "created_at": format_moment(secret.created_at),
                "expires_at": format_moment_or_none(secret.expires_at),
            }
            for at, secret in enumerate(client.secrets)
        ],
    }


def issued_client_document(client: OAuthClient, secret: str | None) -> IssuedClientDocument:
    """Return the client with its new *secret*, None for a public client."""
    return {**client_document(client), "client_secret": secret}


def grant_document(grant: Grant) -> OAuthGrantDocument:
    """Return the grant."""
    return {
        "id": grant.id,
        "object": "oauth_grant",
        "account_id": grant.account_id,
        "client_id": grant.client_id,
        "user_id": grant.user_id,
        "environment": grant.environment,
        "scopes": list(grant.scopes),
        "status": "active" if grant.is_alive else "ended",
        "created_at": format_moment(grant.created_at),
    }


def signing_key_document(key: SigningKey, state: str) -> dict[str, Any]:
    """Return the key without its private part; *state* is `next`, `signing` or `verifying`."""
    return {
        "id": key.kid,
        "object": "signing_key",
        "state": state,
        "created_at": format_moment(key.created_at),
        "signs_from": format_moment(key.signs_from),
    }
