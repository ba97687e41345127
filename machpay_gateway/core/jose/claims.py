"""What a token must say to be accepted here, and who its caller then is (RFC 7519 §4.1, RFC 9068 §4, RFC 8725 §3).

Every check is final on its own, so none needs the signature to have been seen: a token that is expired or for
somebody else costs no key and no fetch. What is read here is only true once `core.jose.token` has
verified the signature.
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

LEEWAY_SECONDS = 60.0  # what the clocks of two well-run machines may differ by
# The end of year 9999. A date past it is milliseconds taken for seconds: a token that would never end.
_MAX_NUMERIC_DATE = 253_402_300_799
# It goes into logs and identity headers, where a line break would start a line or a header of the sender's choice.
_SUBJECT = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,255}")


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a token that is for us and in time, read once into types; *all* is everything it says."""

    sub: str
    exp: float
    scopes: Scopes
    all: Mapping[str, object] = field(repr=False)


def validate_claims(token: CompactToken, issuer: Issuer, now: float) -> Claims | str:
    """Return what *token* says, or the first reason, for the log, why *issuer*'s rules do not accept it at *now*."""
    claims = token.claims
    if refusal := _wrong_kind(token, issuer) or _not_for_us(claims, issuer) or check_dates(claims, now):
        return refusal
    sub, exp, names = claims.get("sub"), numeric_date(claims.get("exp")), _scope_names(claims)
    if not isinstance(sub, str) or not _SUBJECT.fullmatch(sub):
        return "sub is not a string of 1 to 255 characters without control characters"
    if names is None or exp is None:
        return "scope is not a string, or scp neither a string nor a list of strings"
    scopes = Scopes(frozenset(name for name in names if _grantable(name)))
    return Claims(sub, exp, scopes, MappingProxyType(dict(claims)))


def principal_from_claims(claims: Claims, issuer: Issuer, tiers: Mapping[str, Tier]) -> Principal:
    """Return the caller that *claims* are about. Raises KeyError for a tier that is not among *tiers*."""
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
    )


def quota_subject(iss: str, sub: str) -> str:
    """Return what the caller's quota is counted against: of one length, and never the same for two callers.

    `sub` is unique within its issuer only (RFC 7519 §4.1.2). With its length in front, no issuer's name can run on
    into a subject: ("a", "bc") and ("ab", "c") are two. The prefix keeps tokens apart from keys.
    """
    digest = hashlib.sha256()
    for text in (iss.encode(), sub.encode()):
        digest.update(len(text).to_bytes(8, "big"))
        digest.update(text)
    return f"jwt:{digest.hexdigest()}"


def _wrong_kind(token: CompactToken, issuer: Issuer) -> str | None:
    """RFC 8725 §3.11: explicit types keep an ID token or a logout token from passing for an access token."""
    if token.type not in {media_type(typ) for typ in issuer.types}:
        return "typ is not accepted from this issuer"
    if token.algorithm not in issuer.algorithms:
        return "alg is not accepted from this issuer"
    if "cnf" in token.claims:
        # RFC 7800 §3.1, RFC 9449 §7.1: such a token is worth nothing without proof of its key, and none is checked
        # here; taken as a plain bearer token, a stolen one would work.
        return "the token is bound to a key (cnf) and came without proof of it"
    return None


def _not_for_us(claims: Mapping[str, object], issuer: Issuer) -> str | None:
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
    """Return why a token that says *claims* is not valid at *now*, None when it is."""
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
    """Return the NumericDate *value* (RFC 7519 §2) in seconds since the epoch, None when it is none."""
    # A bool is an int to Python: `"exp": true` would be one second past the epoch, and `"nbf": true` always past.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_NUMERIC_DATE:
        return None
    return float(value)


def _scope_names(claims: Mapping[str, object]) -> list[str] | None:
    """Return the names in `scope` (RFC 9068 §2.2.3), else in `scp`, its older form; None for a wrong type."""
    if "scope" in claims:
        scope = claims["scope"]
        return scope.split(" ") if isinstance(scope, str) else None
    scp = claims.get("scp", "")
    if isinstance(scp, str):
        return scp.split(" ")
    if isinstance(scp, list) and all(isinstance(name, str) for name in scp):
        return scp
    return None


def _grantable(name: str) -> bool:
    """Whether *name* may be held: what is dropped only ever narrows, and its lack is named in the refusal.

    An odd name at the issuer must not shut all of its callers out. A `*` is our keys' notation, which RFC 6749 §3.3
    gives no meaning: honoured, an issuer's `keys:*` would grant what nobody at either side wrote down.
    """
    if "*" in name:
        return False
    try:
        check_scope_name(name)
    except ConfigurationError:
        return False
    return True
