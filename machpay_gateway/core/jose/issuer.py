"""Issuers whose JWTs are accepted besides API keys, and the tier and environment of their callers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.jose.claim_mapping import ClaimMapping, compile_mapping
from machpay_gateway.core.jose.claim_path import ClaimName
from machpay_gateway.core.jose.discovery import is_discoverable
from machpay_gateway.core.keys.key import ENVIRONMENTS
from machpay_gateway.core.network.url import is_remote, is_trusted_url, without_user

ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
SYMMETRIC = ("HS256", "HS384", "HS512")
DEFAULT_TYPES = ("at+jwt", "JWT")  # RFC 9068 §2.1, RFC 7519 §5.1; a token without `typ` is a plain JWT


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer of JWTs: `Issuer("https://id.example.com", audience="https://api.example.com")`.

    *jwks* is a file or an https URL (http on loopback only); without it, the keys are discovered by the metadata of
    *issuer*, which is an https URL then. *ca_file* has the certificates that https servers of keys are trusted by,
    instead of the system's. *algorithms* are all that is accepted; each key fixes its own among them. *types* are the
    accepted `typ` headers. Its callers get *tier* and *environment*.

    The other settings say which claims stand for the audience, the caller, its scopes, account, owner and tier, and
    which values a token must have: docs/tokens.md. A claim is a name, a path with dots, or a list of its parts. Raises
    ConfigurationError.
    """

    issuer: str
    audience: str | Sequence[str]
    jwks: str | None = None
    algorithms: Sequence[str] = ("RS256",)
    tier: str = "standard"
    environment: str = "live"
    types: Sequence[str] = DEFAULT_TYPES
    audience_claim: ClaimName | None = None
    subject_claim: ClaimName | None = None
    scopes_claim: str | Sequence[ClaimName] | None = None
    scope_map: Mapping[str, str | Sequence[str]] | None = None
    account_claim: ClaimName | None = None
    owner_claim: ClaimName | None = None
    tier_claim: ClaimName | None = None
    tier_map: Mapping[str, str] | None = None
    require: Mapping[str, object] | None = None
    ca_file: str | None = None
    audiences: frozenset[str] = field(init=False, repr=False)
    mapping: ClaimMapping = field(init=False, repr=False, compare=False)

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
        self._check_source()
        object.__setattr__(self, "audiences", audiences)
        object.__setattr__(self, "mapping", self._compile_mapping())

    def _check_source(self) -> None:
        if self.jwks is None:
            if not is_discoverable(self.issuer):
                raise self._mistake(
                    "its keys cannot be discovered, because it is not an https URL without query, user and password "
                    "(http only on this machine); set jwks to a file or the URL of its keys"
                )
        elif not _texts([self.jwks]) or (self.keys_are_remote and not is_trusted_url(self.jwks)):
            # An attacker on the path of plain http could replace the keys, and then sign tokens for any caller.
            source = without_user(str(self.jwks))
            raise self._mistake(
                f"keys cannot be taken from {source!r}; use a file or an https URL without user and password (http "
                "only on this machine, as in http://127.0.0.1:8080/jwks.json), or leave jwks out to discover them"
            )
        if self.ca_file is not None and (not _texts([self.ca_file]) or not self.keys_are_remote):
            raise self._mistake(
                f"ca_file {self.ca_file!r} is the path of a PEM file, for keys that come from an https URL"
            )

    def _compile_mapping(self) -> ClaimMapping:
        try:
            return compile_mapping(
                audience_claim=self.audience_claim,
                subject_claim=self.subject_claim,
                scopes_claim=self.scopes_claim,
                scope_map=self.scope_map,
                account_claim=self.account_claim,
                owner_claim=self.owner_claim,
                tier_claim=self.tier_claim,
                tier_map=self.tier_map,
                require=self.require,
            )
        except ConfigurationError as exc:
            raise self._mistake(str(exc)) from exc

    def _mistake(self, problem: str) -> ConfigurationError:
        return ConfigurationError(f"Issuer {self.issuer!r}: {problem}")

    @property
    def keys_are_remote(self) -> bool:
        """Whether the keys come from a URL, not from a file."""
        return self.jwks is None or is_remote(self.jwks)


def _texts(values: object) -> tuple[str, ...]:
    """Return *values* if it is a list of non-empty strings, else (): TOML and untyped callers may pass any type."""
    if isinstance(values, str) or not isinstance(values, Collection):
        return ()
    return tuple(values) if all(isinstance(value, str) and value for value in values) else ()
