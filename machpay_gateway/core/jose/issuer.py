"""Issuers whose JWTs are accepted besides API keys, and the tier and environment of their callers."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.keys.key import ENVIRONMENTS
from machpay_gateway.core.network.url import is_remote, is_trusted_url, without_user

ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
SYMMETRIC = ("HS256", "HS384", "HS512")
DEFAULT_TYPES = ("at+jwt", "JWT")  # RFC 9068 §2.1, RFC 7519 §5.1; a token without `typ` is a plain JWT


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
                accepted = ", ".join(ASYMMETRIC + SYMMETRIC)
                raise self._mistake(f"algorithm {algorithm!r} is not accepted; use one of {accepted}")
        if not _texts(self.types):
            raise self._mistake("types is a list of accepted `typ` headers, as in ['at+jwt']")
        if self.environment not in ENVIRONMENTS:
            raise self._mistake(f"environment {self.environment!r} does not exist: use live or test")
        if not _texts([self.jwks]) or (self.keys_are_remote and not is_trusted_url(self.jwks)):
            # An attacker on the path of plain http could replace the keys, and then sign tokens for any caller.
            source = without_user(str(self.jwks))
            raise self._mistake(
                f"keys cannot be taken from {source!r}; use a file or an https URL without user and password (http "
                "only on this machine, as in http://127.0.0.1:8080/jwks.json)"
            )
        object.__setattr__(self, "audiences", audiences)

    def _mistake(self, problem: str) -> ConfigurationError:
        return ConfigurationError(f"Issuer {self.issuer!r}: {problem}")

    @property
    def keys_are_remote(self) -> bool:
        """Whether *jwks* is a URL, not a file."""
        return is_remote(self.jwks)


def _texts(values: object) -> tuple[str, ...]:
    """Return *values* if it is a list of non-empty strings, else (): TOML and untyped callers may pass any type."""
    if isinstance(values, str) or not isinstance(values, Collection):
        return ()
    return tuple(values) if all(isinstance(value, str) and value for value in values) else ()
