"""Who issues access tokens, for what and for how long: the `[oauth]` table of the settings."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from machpay_gateway.core.address import is_loopback
from machpay_gateway.core.errors import ConfigurationError

AUTHORIZE, SIGN_IN, CONSENT, SIGN_OUT = "/oauth/authorize", "/oauth/sign-in", "/oauth/consent", "/oauth/sign-out"
# What users see in a browser, below the issuer's path: answered at the issuer's host alone.
PAGE_PATHS = (AUTHORIZE, SIGN_IN, CONSENT, SIGN_OUT)
_LONGEST_DAYS = 3650
_LONGEST_TOKEN_SECONDS = 86_400
_LONGEST_GRACE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Authority:
    """An authorization server: `Authority("https://auth.example.com", audience="https://api.example.com")`.

    *issuer* is where its endpoints are reached, and what `iss` says (RFC 8414 §2). *audience* is this API (RFC 8707),
    the issuer unless it is given; *resources* are others that tokens may be asked for, and are not accepted here.
    *registration_account* owns clients that register themselves (RFC 7591); without it none can. A refresh token ends
    *refresh_token_days* after its last use, and with all that came of one consent after *family_days*; a lost answer
    may be asked for again for *refresh_grace_seconds*. Raises ConfigurationError.
    """

    issuer: str
    audience: str = ""
    resources: Sequence[str] = ()
    registration_account: str | None = None
    access_token_seconds: int = 3600
    refresh_token_days: float = 30
    family_days: float = 180
    refresh_grace_seconds: float = 10
    path: str = field(init=False, repr=False)
    origin: str = field(init=False, repr=False)
    audience_origin: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        parts = secure_url("issuer", self.issuer)
        if parts.query or self.issuer.endswith("/") or "?" in self.issuer:
            # Clients compare it as text: one slash more and it is another issuer.
            raise ConfigurationError(f"issuer {self.issuer!r}: leave out the query and the slash at the end")
        object.__setattr__(self, "audience", self.audience or self.issuer)
        api = secure_url("audience", self.audience)
        if isinstance(self.resources, str) or not isinstance(self.resources, Sequence):
            raise ConfigurationError(f"resources is a list of URLs, not {self.resources!r}")
        for resource in self.resources:
            secure_url("resources", resource)
        if self.registration_account is not None and not _is_text(self.registration_account):
            raise ConfigurationError("registration_account is an account's id or name")
        _number("access_token_seconds", self.access_token_seconds, 60, _LONGEST_TOKEN_SECONDS)
        _number("refresh_token_days", self.refresh_token_days, 0, _LONGEST_DAYS)
        _number("family_days", self.family_days, 0, _LONGEST_DAYS)
        _number("refresh_grace_seconds", self.refresh_grace_seconds, 0, _LONGEST_GRACE_SECONDS)
        object.__setattr__(self, "path", parts.path)
        object.__setattr__(self, "audience_origin", f"{api.scheme}://{api.netloc}")
        object.__setattr__(self, "origin", f"{parts.scheme}://{parts.netloc}")

    @property
    def is_secure(self) -> bool:
        """Whether browsers reach it over TLS: only then do its cookies say that they need it."""
        return self.issuer.startswith("https://")

    def url(self, path: str) -> str:
        """Return the address of the endpoint at *path*, as in `/oauth/token`."""
        return self.issuer + path


def secure_url(name: str, url: object) -> SplitResult:
    """Return *url* in parts. Raises ConfigurationError unless it is https, or http on this machine, in one reading."""
    told = f"{name} {url!r} is not an https:// URL without user and fragment (http:// is for this machine)"
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or set(url) & set(" \\\"'<>"):
        raise ConfigurationError(told)
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ConfigurationError(told) from None
    is_sound = bool(parts.hostname) and "@" not in parts.netloc and "#" not in url
    is_trusted = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    if not (is_sound and is_trusted):
        raise ConfigurationError(told)
    return parts


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _number(name: str, value: object, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ConfigurationError(f"{name} {value!r} is not a number from {least} to {most}")
