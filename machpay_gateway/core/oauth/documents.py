"""Users, clients and grants as JSON: the admin API and the command line show the same."""

from typing import Any

from machpay_gateway.core.accounts.user import User
from machpay_gateway.core.jose.signing import SigningKey
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.grant import Grant
from machpay_gateway.core.text import format_moment, format_moment_or_none


def user_document(user: User) -> dict[str, Any]:
    """Return the user, without anything of the password but whether there is one."""
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


def client_document(client: OAuthClient) -> dict[str, Any]:
    """Return the client; of its secrets what tells them apart."""
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


def issued_client_document(client: OAuthClient, secret: str | None) -> dict[str, Any]:
    """Return the client with the *secret* that it has just got, None for a public one."""
    return client_document(client) | {"client_secret": secret}


def grant_document(grant: Grant) -> dict[str, Any]:
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
    """Return the key without what it signs by; *state* is `next`, `signing` or `verifying`."""
    return {
        "id": key.kid,
        "object": "signing_key",
        "state": state,
        "created_at": format_moment(key.created_at),
        "signs_from": format_moment(key.signs_from),
    }
