"""Validation of a token's claims, and the principal they describe (RFC 7519 §4.1, RFC 9068 §4, RFC 8725 §3).

Claims are checked before the signature, so that a token that is expired or for another audience causes no fetch of
keys. They can be trusted only after `core.jose.token` has verified the signature.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.jose.compact import CompactToken, media_type
from machpay_gateway.core.jose.issuer import Issuer
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.core.scopes import Scopes, check_scope_name

LEEWAY_SECONDS = 60.0  # how much synchronized clocks may differ
# The end of year 9999. A later date is probably in milliseconds; the token would never expire.
_MAX_NUMERIC_DATE = 253_402_300_799
# Logs and identity headers contain it; a line break could inject a line or a header.
_SUBJECT = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,255}")


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a token for this gateway that is not expired, parsed into types; *all* has every claim."""

    sub: str
    exp: float
    scopes: Scopes
    all: Mapping[str, object] = field(repr=False)


def validate_claims(token: CompactToken, issuer: Issuer, now: float) -> Claims | str:
    """Return the claims of *token*, or the first reason, for the log, why *issuer*'s rules refuse it at *now*."""
    claims = token.claims
    if refusal := _check_type(token, issuer) or _check_audience(claims, issuer) or check_dates(claims, now):
        return refusal
    sub, exp, names = claims.get("sub"), numeric_date(claims.get("exp")), _scope_names(claims)
    if not isinstance(sub, str) or not _SUBJECT.fullmatch(sub):
        return "sub is not a string of 1 to 255 characters without control characters"
    if names is None or exp is None:
        return "scope is not a string, or scp neither a string nor a list of strings"
    scopes = Scopes(frozenset(name for name in names if _is_plain_scope(name)))
    return Claims(sub, exp, scopes, MappingProxyType(dict(claims)))


def principal_from_claims(claims: Claims, issuer: Issuer, tiers: Mapping[str, Tier]) -> Principal:
    """Return the principal of *claims*. Raises KeyError for a tier that is not among *tiers*."""
    return Principal(
        kind="jwt",
        id=claims.sub,
        name=claims.sub,
        account_id=None,
        subject=quota_subject(issuer.issuer, claims.sub),
        environment=issuer.environment,
        tier=issuer.tier,
        limits=tiers[issuer.tier],
        scopes=claims.scopes,
        expires_at=claims.exp + LEEWAY_SECONDS,
        claims=claims.all,
        account_tier=issuer.tier,
    )


def quota_subject(iss: str, sub: str) -> str:
    """Return the subject that the caller's limits are counted against: of fixed length, and unique for each caller.

    `sub` is unique within its issuer only (RFC 7519 §4.1.2). The lengths are hashed too, so that ("a", "bc") and
    ("ab", "c") differ. The prefix distinguishes tokens from keys.
    """
    digest = hashlib.sha256()
    for text in (iss.encode(), sub.encode()):
        digest.update(len(text).to_bytes(8, "big"))
        digest.update(text)
    return f"jwt:{digest.hexdigest()}"


def _check_type(token: CompactToken, issuer: Issuer) -> str | None:
    """Return why the token's type, algorithm or binding is refused (RFC 8725 §3.11: no ID token as access token)."""
    if token.type not in {media_type(typ) for typ in issuer.types}:
        return "typ is not accepted from this issuer"
    if token.algorithm not in issuer.algorithms:
        return "alg is not accepted from this issuer"
    if "cnf" in token.claims:
        # RFC 7800 §3.1, RFC 9449 §7.1: such a token needs a proof of its key, and issuers' proofs are not checked here.
        # Accepted as a bearer token, it would work after a theft.
        return "the token is bound to a key (cnf) and came without proof of it"
    return None


def _check_audience(claims: Mapping[str, object], issuer: Issuer) -> str | None:
    if claims.get("iss") != issuer.issuer:
        return "iss is another issuer"
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not all(isinstance(name, str) for name in audiences):
        return "aud is neither a string nor a list of strings"
    if issuer.audiences.isdisjoint(audiences):
        return "aud names somebody else"
    return None


def check_dates(claims: Mapping[str, object], now: float) -> str | None:
    """Return why a token with these *claims* is expired or not valid yet at *now*, else None."""
    dates: dict[str, float] = {}
    for name in ("exp", "nbf", "iat"):
        if name in claims or name == "exp":
            date = numeric_date(claims.get(name))
            if date is None:
                return f"{name} is not a date in seconds"
            dates[name] = date
    if dates["exp"] + LEEWAY_SECONDS <= now:
        return "expired"
    if dates.get("nbf", now) - LEEWAY_SECONDS > now:
        return "not valid yet"
    if dates.get("iat", now) - LEEWAY_SECONDS > now:
        return "issued in the future"
    return None


def numeric_date(value: object) -> float | None:
    """Return the NumericDate *value* (RFC 7519 §2) in seconds since the epoch; None if it is none."""
    # In Python a bool is an int: `"nbf": true` would be one second after the epoch, and always valid.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_NUMERIC_DATE:
        return None
    return float(value)


def _scope_names(claims: Mapping[str, object]) -> list[str] | None:
    """Return the names in `scope` (RFC 9068 §2.2.3), else in `scp`, its older form; None for another type."""
    if "scope" in claims:
        scope = claims["scope"]
        return scope.split(" ") if isinstance(scope, str) else None
    scp = claims.get("scp", "")
    if isinstance(scp, str):
        return scp.split(" ")
    if isinstance(scp, list) and all(isinstance(name, str) for name in scp):
        return scp
    return None


def _is_plain_scope(name: str) -> bool:
    """Tell whether *name* is a scope that a token can hold; others are dropped, and refusals name what is missing.

    An odd name must not lock out all callers of its issuer. A `*` is a wildcard of API keys that RFC 6749 §3.3 does not
    know: an issuer's `keys:*` must not become every scope of keys.
    """
    if "*" in name:
        return False
    try:
        check_scope_name(name)
    except ConfigurationError:
        return False
    return True
