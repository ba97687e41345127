"""Validation of a token's claims, and the principal they describe (RFC 7519 §4.1, RFC 9068 §4, RFC 8725 §3).

Claims are checked before the signature, so that a token that is expired or for another audience causes no fetch of
keys. They can be trusted only after `core.jose.token` has verified the signature.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.jose.claim_mapping import MappedClaims
from machpay_gateway.core.jose.compact import CompactToken, media_type
from machpay_gateway.core.jose.issuer import Issuer
from machpay_gateway.core.limits.rate import Tier

LEEWAY_SECONDS = 60.0  # how much synchronized clocks may differ
# The end of year 9999. A later date is probably in milliseconds; the token would never expire.
_MAX_NUMERIC_DATE = 253_402_300_799


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a token for this gateway that is not expired, as *mapped*; *all* has every claim."""

    mapped: MappedClaims
    exp: float
    all: Mapping[str, object] = field(repr=False)


def validate_claims(token: CompactToken, issuer: Issuer, now: float) -> Claims | str:
    """Return the claims of *token*, or the first reason, for the log, why *issuer*'s rules refuse it at *now*."""
    claims = token.claims
    if refusal := _check_type(token, issuer) or check_dates(claims, now):
        return refusal
    mapped = issuer.mapping.apply(claims, issuer.audiences)
    if isinstance(mapped, str):
        return mapped
    return Claims(mapped, numeric_date(claims["exp"]) or 0.0, MappingProxyType(dict(claims)))


def principal_from_claims(claims: Claims, issuer: Issuer, tiers: Mapping[str, Tier]) -> Principal:
    """Return the principal of *claims*. Raises KeyError for a tier that is not among *tiers*."""
    mapped = claims.mapped
    tier = issuer.mapping.tier_of(mapped, issuer.tier)
    return Principal(
        kind="jwt",
        id=mapped.subject,
        name=mapped.subject,
        account_id=mapped.account,
        subject=quota_subject(issuer.issuer, mapped.subject),
        environment=issuer.environment,
        tier=tier,
        limits=tiers[tier],
        scopes=mapped.scopes,
        expires_at=claims.exp + LEEWAY_SECONDS,
        claims=claims.all,
        owner=mapped.owner,
        account_tier=tier,
        account_subject=_account_subject(issuer.issuer, mapped),
    )


def quota_subject(iss: str, sub: str) -> str:
    """Return the subject that the caller's limits are counted against: of fixed length, and unique for each caller.

    `sub` is unique within its issuer only (RFC 7519 §4.1.2). The lengths are hashed too, so that ("a", "bc") and
    ("ab", "c") differ. The prefix distinguishes tokens from keys.
    """
    return f"jwt:{_digest(iss, sub)}"


def _account_subject(iss: str, mapped: MappedClaims) -> str:
    """Return what the limits by account and owner are counted against; "" for the caller's own subject.

    It is within the issuer: its account `acme` is not that of another issuer, nor one of the gateway's own. Callers
    with an owner and without an account are counted by their owner.
    """
    if mapped.account is not None:
        return f"jwt-account:{_digest(iss, mapped.account)}"
    return "" if mapped.owner is None else f"jwt-owner:{_digest(iss, mapped.owner)}"


def _digest(*texts: str) -> str:
    digest = hashlib.sha256()
    for text in (text.encode() for text in texts):
        digest.update(len(text).to_bytes(8, "big"))
        digest.update(text)
    return digest.hexdigest()


def _check_type(token: CompactToken, issuer: Issuer) -> str | None:
    """Return why the issuer, type, algorithm or binding is refused (RFC 8725 §3.11: no ID token as access token)."""
    if token.claims.get("iss") != issuer.issuer:
        return "iss is another issuer"
    if token.type not in {media_type(typ) for typ in issuer.types}:
        return "typ is not accepted from this issuer"
    if token.algorithm not in issuer.algorithms:
        return "alg is not accepted from this issuer"
    if "cnf" in token.claims:
        # RFC 7800 §3.1, RFC 9449 §7.1: such a token needs a proof of its key, and issuers' proofs are not checked here.
        # Accepted as a bearer token, it would work after a theft.
        return "the token is bound to a key (cnf) and came without proof of it"
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
