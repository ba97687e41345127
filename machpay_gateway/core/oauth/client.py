"""Clients: the apps that may ask users for access, and call by themselves (RFC 6749 §2)."""

import hmac
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.key import SecretRecord
from machpay_gateway.core.keys.validation import validate_scopes
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, digest_of
from machpay_gateway.core.oauth.redirect_uri import RedirectError
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.core.text import format_moment_or_none, quote_value

AUTHORIZATION_CODE, REFRESH_TOKEN, CLIENT_CREDENTIALS = "authorization_code", "refresh_token", "client_credentials"
GRANT_TYPES = (AUTHORIZATION_CODE, REFRESH_TOKEN, CLIENT_CREDENTIALS)
# Nobody vouches for a client that registered itself (RFC 7591 §5), so it acts for users who allow it and never for
# itself: its own grant would be the account's.
SELF_REGISTERED_GRANT_TYPES = (AUTHORIZATION_CODE, REFRESH_TOKEN)
# An app that could make keys would outlive the consent that it was given.
NEVER_GRANTED = frozenset({"keys:manage"})


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """An app. A confidential one has secrets, the newest first; a public one (RFC 6749 §2.1) has none, ever.

    *environment* is that of its traffic, *tier* what its account has for that. *requires_pkce* may be False for a
    confidential client alone; *binds_tokens* gives it tokens that need DPoP (RFC 9449) and no others.
    *is_self_registered* tells that it came by dynamic registration (RFC 7591): nobody has checked its name, nor who
    made it. It stays so for good.
    """

    id: str
    account_id: str
    name: str
    environment: str
    tier: str
    redirect_uris: tuple[str, ...]
    scopes: Scopes
    grant_types: tuple[str, ...]
    created_at: float
    secrets: tuple[SecretRecord, ...] = field(default=(), repr=False)
    is_public: bool = False
    requires_pkce: bool = True
    binds_tokens: bool = False
    is_self_registered: bool = False
    version: int = 1
    deleted_at: float | None = None

    def may_use(self, grant_type: str) -> bool:
        """Tell whether the client may get tokens by *grant_type*, whatever is stored of one that registered itself."""
        is_allowed = not self.is_self_registered or grant_type in SELF_REGISTERED_GRANT_TYPES
        return is_allowed and grant_type in self.grant_types

    def accepts_secret(self, presented: str, now: float) -> bool:
        """Tell whether *presented* is a secret of the client's that works at *now*."""
        digest = digest_of(OpaqueTokenKind.CLIENT_SECRET, presented) or b""
        # Each is compared, in a time that says nothing of how alike two are.
        fitting = [hmac.compare_digest(secret.digest, digest) for secret in self.secrets]
        return any(
            is_it and (secret.expires_at is None or now < secret.expires_at)
            for is_it, secret in zip(fitting, self.secrets, strict=True)
        )


def is_for_apps(scope: str) -> bool:
    """Tell whether apps may have *scope* if it exists.

    Users consent to what they are told in words, and a wildcard would grow with each scope to come.
    """
    return "*" not in scope and scope not in NEVER_GRANTED


def checked_app_scopes(names: Collection[str], known: Collection[str]) -> Scopes:
    """Return *names* as the scopes of an app: *known* ones that apps may have. Raises InputError."""
    grantable = frozenset(known) - NEVER_GRANTED
    for name in names:
        if not is_for_apps(name):
            raise InputError(
                f"Scope {quote_value(name)} is not for apps: name those of {', '.join(sorted(grantable))}."
            )
    return validate_scopes(names, grantable)


def checked_grant_types(
    names: Collection[str], *, is_public: bool, redirect_uris: Collection[str], is_self_registered: bool = False
) -> tuple[str, ...]:
    """Return *names* in one order. Raises InputError for what does not exist or does not go together."""
    for name in names:
        if name not in GRANT_TYPES:
            raise InputError(f"Grant type {quote_value(name)} is not supported: use {', '.join(GRANT_TYPES)}.")
    if not names:
        raise InputError(f"A client needs a grant type: {', '.join(GRANT_TYPES)}.")
    if is_self_registered and not set(names) <= set(SELF_REGISTERED_GRANT_TYPES):
        raise InputError(
            "A client that registered itself acts only for users who allow it: "
            f"use {' and '.join(SELF_REGISTERED_GRANT_TYPES)}, or create a client for what calls by itself."
        )
    if CLIENT_CREDENTIALS in names and is_public:
        raise InputError("A public client has no credentials to call by (client_credentials): make it confidential.")
    if REFRESH_TOKEN in names and AUTHORIZATION_CODE not in names:
        raise InputError("refresh_token goes with authorization_code: nothing else gives a refresh token.")
    if AUTHORIZATION_CODE in names and not redirect_uris:
        raise RedirectError("authorization_code needs a redirect URI to send users back to.")
    if redirect_uris and AUTHORIZATION_CODE not in names:
        raise RedirectError("Redirect URIs are for authorization_code: add it, or leave them out.")
    return tuple(name for name in GRANT_TYPES if name in names)


def client_state(client: OAuthClient) -> Mapping[str, object]:
    """Return what the audit log tells of a client: its settings, and of its secrets what may be shown."""
    return {
        "name": client.name,
        "environment": client.environment,
        "redirect_uris": list(client.redirect_uris),
        "scopes": list(client.scopes),
        "grant_types": list(client.grant_types),
        "public": client.is_public,
        "require_pkce": client.requires_pkce,
        "dpop_bound": client.binds_tokens,
        "self_registered": client.is_self_registered,
        "secrets": [
            {"masked": secret.masked, "expires_at": format_moment_or_none(secret.expires_at)}
            for secret in client.secrets
        ],
        "deleted_at": format_moment_or_none(client.deleted_at),
    }
