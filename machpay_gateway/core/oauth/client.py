"""OAuth clients: apps that act for users who consent, or for themselves (RFC 6749 §2)."""

import hmac
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.key import SecretRecord
from machpay_gateway.core.keys.validation import validate_scopes
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, digest_of
from machpay_gateway.core.oauth.redirect_uri import RedirectError
from machpay_gateway.core.scopes import DefinedScopes, Scopes
from machpay_gateway.core.text import format_moment_or_none, quote_value

AUTHORIZATION_CODE, REFRESH_TOKEN, CLIENT_CREDENTIALS = "authorization_code", "refresh_token", "client_credentials"
GRANT_TYPES = (AUTHORIZATION_CODE, REFRESH_TOKEN, CLIENT_CREDENTIALS)
# Nobody vouches for a client that registered itself (RFC 7591 §5), so it acts only for users who consent and never for
# itself: that would give it access to the account.
SELF_REGISTERED_GRANT_TYPES = (AUTHORIZATION_CODE, REFRESH_TOKEN)
# An app that can create API keys would keep its access after the consent is revoked.
NEVER_GRANTED = frozenset({"keys:manage"})


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """An OAuth client. A confidential one has secrets, newest first; a public one (RFC 6749 §2.1) never has any.

    *environment* is that of its traffic, *tier* that of its account in this environment. *requires_pkce* may be False
    for confidential clients only. A client that *binds_tokens* gets only tokens that need DPoP (RFC 9449).
    *is_self_registered* marks dynamic registration (RFC 7591), for good: nobody has verified its name or its maker.
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
        """Tell whether the client may use *grant_type*. Self-registered clients are limited whatever is stored."""
        is_allowed = not self.is_self_registered or grant_type in SELF_REGISTERED_GRANT_TYPES
        return is_allowed and grant_type in self.grant_types

    def accepts_secret(self, presented: str, now: float) -> bool:
        """Tell whether *presented* is a secret of the client that is valid at *now*."""
        digest = digest_of(OpaqueTokenKind.CLIENT_SECRET, presented) or b""
        # All are compared, each in constant time.
        matches = [hmac.compare_digest(secret.digest, digest) for secret in self.secrets]
        return any(
            is_match and (secret.expires_at is None or now < secret.expires_at)
            for is_match, secret in zip(matches, self.secrets, strict=True)
        )


def is_for_apps(scope: str) -> bool:
    """Tell whether OAuth clients may have *scope*, if it exists.

    Users consent to named scopes, and a wildcard would grow with each scope that is added later.
    """
    return "*" not in scope and scope not in NEVER_GRANTED


def validate_client_scopes(
    names: Collection[str], known_scopes: DefinedScopes, *, for_operator: bool = False
) -> Scopes:
    """Return *names* as the scopes of a client: *known_scopes* that clients may have. Raises InputError.

    *for_operator* is as for `validate_scopes`.
    """
    grantable = known_scopes.without(NEVER_GRANTED)
    for name in names:
        if not is_for_apps(name):
            raise InputError(
                f"Scope {quote_value(name)} is not for apps: name those of {', '.join(sorted(grantable))}."
            )
    return validate_scopes(names, grantable, for_operator=for_operator)


def validate_grant_types(
    names: Collection[str], *, is_public: bool, redirect_uris: Collection[str], is_self_registered: bool = False
) -> tuple[str, ...]:
    """Return *names* in a fixed order. Raises InputError for unknown grant types and invalid combinations."""
    for name in names:
        if name not in GRANT_TYPES:
            raise InputError(f"Grant type {quote_value(name)} is not supported: use {', '.join(GRANT_TYPES)}.")
    if not names:
        raise InputError(f"A client needs a grant type: {', '.join(GRANT_TYPES)}.")
    if is_self_registered and not set(names) <= set(SELF_REGISTERED_GRANT_TYPES):
        raise InputError(
            "A client that registered itself acts only for users who consent: "
            f"use {' and '.join(SELF_REGISTERED_GRANT_TYPES)}, or create a client that acts for itself."
        )
    if CLIENT_CREDENTIALS in names and is_public:
        raise InputError("A public client has no secret for client_credentials: make it confidential.")
    if REFRESH_TOKEN in names and AUTHORIZATION_CODE not in names:
        raise InputError("refresh_token needs authorization_code: nothing else issues refresh tokens.")
    if AUTHORIZATION_CODE in names and not redirect_uris:
        raise RedirectError("authorization_code needs a redirect URI.")
    if redirect_uris and AUTHORIZATION_CODE not in names:
        raise RedirectError("Redirect URIs are for authorization_code: add it, or leave them out.")
    return tuple(name for name in GRANT_TYPES if name in names)


def client_state(client: OAuthClient) -> Mapping[str, object]:
    """Return the state of a client for the audit log: its settings, and its secrets masked."""
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
