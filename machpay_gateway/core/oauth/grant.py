"""Grants: what a user lets an app do, and the codes and refresh tokens that come of it.

A *grant* is one user's (or, for calls of its own, the client's) standing with one client: it remembers what was
consented to, its quota is shared by all tokens, and its version tells every gateway of a change. A *family* is what
came of one sign-in: a code and the refresh tokens after it; it can end without the others (RFC 9700 §4.14.2).
"""

from dataclasses import dataclass, field

from machpay_gateway.core.scopes import Scopes

CODE_SECONDS = 60.0  # RFC 6749 §4.1.2 allows ten minutes; a redirect takes one second


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant as the store knows it. *user_id* is None where the client calls for itself.

    *ended_families* are those that ended lately, as long ago as an access token of theirs may live. Tokens of a version
    before *valid_from* are dead: the grant was revoked in between. *is_alive* is False while it is revoked, its client
    deleted or its user disabled. *tier* is what the client's account has for the environment.
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


@dataclass(frozen=True, slots=True)
class AuthorizationCode:
    """An authorization code. *challenge* is PKCE's; *resources* are what its tokens are for (RFC 8707).

    *has_redirect* tells whether the request named its redirect URI, so that the token request must too.
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
    """What came of one code: *scopes* and *resources* are the most that its tokens may have.

    *key* is the thumbprint of the DPoP key that its refresh tokens are bound to, if they are (RFC 9449 §5).
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
    """One refresh token. Once it is *used_at*, *seed* leads from it to the one after it (`opaque.successor`)."""

    digest: bytes = field(repr=False)
    family_id: str
    created_at: float
    expires_at: float
    used_at: float | None = None
    seed: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class StoredRefreshToken:
    """A refresh token with all that it depends on, as of one moment. *next_used_at* is of the token after it."""

    token: RefreshToken
    family: TokenFamily
    grant: Grant
    next_used_at: float | None = None
