"""Grants: what a user allows an OAuth client, with its authorization codes and refresh tokens.

A *grant* is what one user allows one client (or what a client has for itself). It records the consent, all its tokens
share its quota, and its version tells every worker about a change. A *token family* is an authorization code with all
refresh tokens that follow from it. It can end while others of its grant live on (RFC 9700 §4.14.2).
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from machpay_gateway.core.scopes import Scopes

CODE_SECONDS = 60.0  # RFC 6749 §4.1.2 allows ten minutes; a redirect takes one second


@dataclass(frozen=True, slots=True)
class Grant:
    """A stored grant. *user_id* is None when the client acts for itself.

    *ended_families* are those that ended recently enough for their access tokens to be still unexpired. Tokens of a
    version before *valid_from* are invalid: the grant was revoked in between. *is_alive* is False while the grant is
    revoked, its client deleted or its user disabled. *tier* is that of the client's account in the environment,
    *account_tier* that of the grant's own account, which is the user's.
    """

    id: str
    client_id: str
    user_id: str | None
    account_id: str
    environment: str
    tier: str
    scopes: Scopes
    created_at: float
    version: int = 1
    valid_from: int = 1
    is_alive: bool = True
    ended_families: frozenset[str] = frozenset()
    account_tier: str = ""


class Dependencies(NamedTuple):
    """What the claims of an access token depend on: its *grant*, and the client, user and account of that."""

    grant: str
    client: str
    user: str
    account: str


@dataclass(frozen=True, slots=True)
class AuthorizationCode:
    """An authorization code. *challenge* is PKCE's; *resources* are the audiences of its tokens (RFC 8707).

    *has_redirect* tells whether the request named its redirect URI: then the token request must name it too.
    """

    digest: bytes = field(repr=False)
    family_id: str
    grant_id: str
    client_id: str
    redirect_uri: str
    has_redirect: bool
    scopes: Scopes
    resources: tuple[str, ...]
    challenge: str | None
    created_at: float
    expires_at: float
    used_at: float | None = None


@dataclass(frozen=True, slots=True)
class TokenFamily:
    """All tokens from one authorization code: they get at most these *scopes* and *resources*.

    *key* is the thumbprint of the DPoP key that its refresh tokens are bound to, if any (RFC 9449 §5).
    """

    id: str
    grant_id: str
    client_id: str
    scopes: Scopes
    resources: tuple[str, ...]
    created_at: float
    expires_at: float
    key: str | None = None
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token. After its use, *seed* and the token together give its successor (`opaque_token.successor`)."""

    digest: bytes = field(repr=False)
    family_id: str
    created_at: float
    expires_at: float
    used_at: float | None = None
    seed: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class StoredRefreshToken:
    """A refresh token with its family and grant, read in one statement. *next_used_at* is that of its successor."""

    token: RefreshToken
    family: TokenFamily
    grant: Grant
    next_used_at: float | None = None
