"""Signed assertions about the caller, so that an upstream need not trust the network between it and the gateway."""

from collections.abc import Mapping
from dataclasses import dataclass

from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.errors import ConfigurationError

TYPE = "machpay-assertion+jwt"  # RFC 8725 §3.11: cannot be confused with a token of another type
_LONGEST_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class AssertionSettings:
    """Who signs assertions and for whom. *key* is a PEM file with a private key: RSA, EC or Ed25519.

    *issuer* and *audience* are what upstreams compare `iss` and `aud` with; one lives for *lifetime_seconds*. Raises
    ConfigurationError.
    """

    key: str
    issuer: str
    audience: str
    lifetime_seconds: int = 60

    def __post_init__(self) -> None:
        for name in ("key", "issuer", "audience"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ConfigurationError(f"{name} is a text, not {getattr(self, name)!r}")
        if type(self.lifetime_seconds) is not int or not 0 < self.lifetime_seconds <= _LONGEST_SECONDS:
            raise ConfigurationError(
                f"lifetime_seconds {self.lifetime_seconds!r} is not a number from 1 to {_LONGEST_SECONDS}"
            )


def assertion_claims(settings: AssertionSettings, principal: Principal, now: float) -> Mapping[str, object]:
    """Return the claims about *principal* at *now*, in seconds since the epoch."""
    issued_at = int(now)
    claims = {
        "iss": settings.issuer,
        "aud": settings.audience,
        "sub": principal.id,
        "iat": issued_at,
        "exp": issued_at + settings.lifetime_seconds,
        "scope": str(principal.scopes),  # RFC 8693 §4.2
        "environment": principal.environment,
        "tier": principal.tier,
        "account": principal.account_id,
        "kind": principal.kind,
    }
    return {name: value for name, value in claims.items() if value is not None}
