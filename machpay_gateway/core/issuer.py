"""Whose JWTs are accepted besides our own keys, and what their callers are given."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from machpay_gateway.core.address import is_loopback
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.key import ENVIRONMENTS

_USER_INFO = re.compile(r"//[^/@]*@")
ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
SYMMETRIC = ("HS256", "HS384", "HS512")
DEFAULT_TYPES = ("at+jwt", "JWT")  # RFC 9068 §2.1, RFC 7519 §5.1; a token without `typ` is read as plain JWT
# One reading only: no user and password, backslash, space or fragment that another parser could see a host in.
_KEY_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*)"
    r"(?::(?P<port>[0-9]{1,5}))?(?:[/?][!-\"$-\[\]-~]*)?"
)
_MAX_URL_LENGTH = 2048
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer of JWTs: `Issuer("https://id.example.com", audience="https://api.example.com", jwks="https://…")`.

    *jwks* is a file or an https URL (http on loopback only). *algorithms* are all that is accepted; each key fixes its
    own among them. *types* are the accepted `typ` headers. Its callers get *tier* and *environment*. Raises
    ConfigurationError.
    """

    issuer: str
    audience: str | Sequence[str]
    jwks: str
    algorithms: Sequence[str] = ("RS256",)
    tier: str = "standard"
    environment: str = "live"
    types: Sequence[str] = DEFAULT_TYPES
    audiences: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        audiences = frozenset(_texts([self.audience] if isinstance(self.audience, str) else self.audience))
        if not _texts([self.issuer]) or not audiences:
            raise self._mistake("issuer and audience must be set; a token for anybody is for nobody")
        if not (algorithms := _texts(self.algorithms)):
            raise self._mistake("algorithms is a list, as in ['RS256']")
        for algorithm in algorithms:
            if algorithm not in ASYMMETRIC + SYMMETRIC:
                known = ", ".join(ASYMMETRIC + SYMMETRIC)
                raise self._mistake(f"algorithm {algorithm!r} is not accepted; use one of {known}")
        if not _texts(self.types):
            raise self._mistake("types is a list of accepted `typ` headers, as in ['at+jwt']")
        if self.environment not in ENVIRONMENTS:
            raise self._mistake(f"environment {self.environment!r} does not exist: use live or test")
        if not _texts([self.jwks]) or (self.keys_are_remote and not is_trusted_url(self.jwks)):
            # Whoever sits on the way of plain http could answer with keys of their own, and then sign as anybody.
            source = without_user(str(self.jwks))
            raise self._mistake(
                f"keys cannot be taken from {source!r}; use a file or an https URL without user and password (http "
                "only on this machine, as in http://127.0.0.1:8080/jwks.json)"
            )
        object.__setattr__(self, "audiences", audiences)

    def _mistake(self, told: str) -> ConfigurationError:
        return ConfigurationError(f"Issuer {self.issuer!r}: {told}")

    @property
    def keys_are_remote(self) -> bool:
        """Whether *jwks* is a URL, not a file."""
        return is_remote(self.jwks)


def is_remote(source: str) -> bool:
    """Tell whether *source* is a URL, not a file."""
    return "://" in source


def _texts(values: object) -> tuple[str, ...]:
    """Return *values* if it is a list of texts that say something, else (): TOML and untyped callers give anything."""
    if isinstance(values, str) or not isinstance(values, Collection):
        return ()
    return tuple(values) if all(isinstance(value, str) and value for value in values) else ()


def is_trusted_url(url: str) -> bool:
    """Tell whether keys can be taken from *url*: https, or http on this machine, and one reading only."""
    match = _KEY_URL.fullmatch(url)
    if match is None or len(url) > _MAX_URL_LENGTH or int(match["port"] or 0) > _MAX_PORT:
        return False
    return match["scheme"] == "https" or is_loopback(match["host"].strip("[]"))


def without_user(url: str) -> str:
    """Return *url* as a message may repeat it: without a user and password in it."""
    return _USER_INFO.sub("//…@", url)
