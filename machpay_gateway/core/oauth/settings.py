"""The settings of the authorization server: the `[oauth]` table."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.limits.rate import MAX_CONCURRENCY, Tier
from machpay_gateway.core.network.address import is_loopback
from machpay_gateway.core.oauth.client import is_for_apps
from machpay_gateway.core.scopes import check_configured_scope

AUTHORIZE, SIGN_IN, CONSENT, SIGN_OUT = "/oauth/authorize", "/oauth/sign-in", "/oauth/consent", "/oauth/sign-out"
TOKEN, REVOKE, INTROSPECT, REGISTER = "/oauth/token", "/oauth/revoke", "/oauth/introspect", "/oauth/register"
WELL_KNOWN = "/.well-known/oauth-authorization-server"
# The pages for users, below the issuer's path: served at the issuer's host only.
PAGE_PATHS = (AUTHORIZE, SIGN_IN, CONSENT, SIGN_OUT)
_LONGEST_DAYS = 3650
_LONGEST_TOKEN_SECONDS = 86_400
_LONGEST_GRACE_SECONDS = 60
_LEAST_TOKEN = 32  # characters: 128 bits when they are hex
_BEARER = re.compile(r"[A-Za-z0-9\-._~+/]+=*", re.ASCII)  # RFC 6750 §2.1: the syntax of bearer tokens
_MOST_CLIENTS = 1_000_000


@dataclass(frozen=True, slots=True)
class OAuthSettings:
    """An authorization server: `OAuthSettings("https://auth.example.com", audience="https://api.example.com")`.

    *issuer* is the base URL of the endpoints and the `iss` of tokens (RFC 8414 §2). *audience* is this API (RFC 8707),
    by default the issuer; *resources* are other APIs that tokens can be requested for, which are not accepted here.
    *registration_account* owns clients that register themselves (RFC 7591); without it none can. They get the requested
    part of *registration_scopes*. With a *registration_token*, registration needs this token (RFC 7591 §3). Each
    address block is limited to *registration_limit*, in `limits` notation, and at most *registration_clients* exist at
    a time; one that no user has ever allowed is removed after *registration_days*. A refresh token expires
    *refresh_token_days* after the last refresh, and its family after *family_days*; a client that lost a response can
    retry for *refresh_grace_seconds*. Raises ConfigurationError.
    """

    issuer: str
    audience: str = ""
    resources: Sequence[str] = ()
    registration_account: str | None = None
    registration_scopes: Sequence[str] = ()
    registration_token: str | None = field(default=None, repr=False)
    registration_limit: str = "10/hour"
    registration_clients: int = 1000
    registration_days: float = 30
    access_token_seconds: int = 3600
    refresh_token_days: float = 30
    family_days: float = 180
    refresh_grace_seconds: float = 10
    path: str = field(init=False, repr=False)
    origin: str = field(init=False, repr=False)
    audience_origin: str = field(init=False, repr=False)
    registration_tier: Tier = field(init=False, repr=False)  # the registration limit of one address block

    def __post_init__(self) -> None:
        parts = secure_url("issuer", self.issuer)
        if parts.query or self.issuer.endswith("/") or "?" in self.issuer:
            # Clients compare issuers as strings: a trailing slash makes another issuer.
            raise ConfigurationError(f"issuer {self.issuer!r}: leave out the query and the slash at the end")
        object.__setattr__(self, "audience", self.audience or self.issuer)
        api = secure_url("audience", self.audience)
        if isinstance(self.resources, str) or not isinstance(self.resources, Sequence):
            raise ConfigurationError(f"resources is a list of URLs, not {self.resources!r}")
        for resource in self.resources:
            secure_url("resources", resource)
        self._check_registration()
        _number("access_token_seconds", self.access_token_seconds, 60, _LONGEST_TOKEN_SECONDS)
        _number("refresh_token_days", self.refresh_token_days, 0, _LONGEST_DAYS)
        _number("family_days", self.family_days, 0, _LONGEST_DAYS)
        _number("refresh_grace_seconds", self.refresh_grace_seconds, 0, _LONGEST_GRACE_SECONDS)
        object.__setattr__(self, "path", parts.path)
        object.__setattr__(self, "audience_origin", f"{api.scheme}://{api.netloc}")
        object.__setattr__(self, "origin", f"{parts.scheme}://{parts.netloc}")

    def _check_registration(self) -> None:
        if self.registration_account is not None and not _is_text(self.registration_account):
            raise ConfigurationError("registration_account is an account's id or name")
        object.__setattr__(self, "registration_scopes", _scope_names(self.registration_scopes))
        if self.registration_token is not None and not _is_registration_token(self.registration_token):
            # The message does not repeat the value, however short it is.
            raise ConfigurationError(
                f"registration_token is {_LEAST_TOKEN} random characters or more, as from `openssl rand -hex 32`: "
                "letters, digits and - . _ ~ + /"
            )
        if not isinstance(self.registration_limit, str):
            raise ConfigurationError(f"registration_limit {self.registration_limit!r} is not a rate, as in 10/hour")
        object.__setattr__(self, "registration_tier", Tier(self.registration_limit, MAX_CONCURRENCY))
        if type(self.registration_clients) is not int or not 1 <= self.registration_clients <= _MOST_CLIENTS:
            raise ConfigurationError(
                f"registration_clients {self.registration_clients!r} is not a whole number from 1 to {_MOST_CLIENTS}"
            )
        _number("registration_days", self.registration_days, 1, _LONGEST_DAYS)

    @property
    def page_paths(self) -> tuple[str, ...]:
        """The paths of the pages for users."""
        return tuple(self.path + path for path in PAGE_PATHS)

    @property
    def is_secure(self) -> bool:
        """Whether browsers reach it over TLS: then its cookies are `Secure`."""
        return self.issuer.startswith("https://")

    def url(self, path: str) -> str:
        """Return the URL of the endpoint at *path*, such as `/oauth/token`."""
        return self.issuer + path


def secure_url(name: str, url: object) -> SplitResult:
    """Return *url* in parts. Raises ConfigurationError unless it is unambiguous and https, or http on this machine."""
    message = f"{name} {url!r} is not an https:// URL without user and fragment (http:// is for this machine)"
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or set(url) & set(" \\\"'<>"):
        raise ConfigurationError(message)
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ConfigurationError(message) from None
    is_sound = bool(parts.hostname) and "@" not in parts.netloc and "#" not in url
    is_trusted = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    if not (is_sound and is_trusted):
        raise ConfigurationError(message)
    return parts


def _scope_names(value: object) -> tuple[str, ...]:
    """Return scope names from a list or, as in environment variables, from one string.

    Whether they exist is checked later. Raises ConfigurationError.
    """
    names = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ConfigurationError(f"registration_scopes is a list of scopes, not {value!r}")
    for name in names:
        check_configured_scope(name)
        if not is_for_apps(name):
            raise ConfigurationError(f"registration_scopes: {name!r} is not for apps")
    return tuple(dict.fromkeys(names))


def _is_registration_token(value: object) -> bool:
    return isinstance(value, str) and len(value) >= _LEAST_TOKEN and _BEARER.fullmatch(value) is not None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _number(name: str, value: object, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ConfigurationError(f"{name} {value!r} is not a number from {least} to {most}")
