"""Session tokens: short-lived tokens of an API key, with at most its scopes, which end with the key."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256

from machpay_gateway.core.decision.principal import Principal, key_principal
from machpay_gateway.core.jose.claims import check_dates, numeric_date
from machpay_gateway.core.keys.key import KeyRecord, SecretRecord
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.core.scopes import Scopes

TYPE = "machpay-session+jwt"  # RFC 8725 §3.11, §3.12: cannot be confused with a token of another type
ISSUER, AUDIENCE = "urn:machpay:gateway", "urn:machpay:sessions"
MAX_SECONDS = 900


@dataclass(frozen=True, slots=True)
class SessionToken:
    """The contents of a verified session token.

    *digest* is of the token, *secret* the fingerprint of the secret that created it, *kid* the id of its signing key.
    """

    digest: bytes = field(repr=False)
    key_id: str
    secret: str = field(repr=False)
    scopes: Scopes
    expires_at: float
    kid: str | None = None


def session_claims(
    principal: Principal, scopes: Scopes, *, seconds: int, token_id: str, now: float
) -> dict[str, object]:
    """Return the claims of a new session of *principal*, an API key."""
    issued_at = int(now)
    return {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": principal.id,
        "iat": issued_at,
        "exp": issued_at + seconds,
        "jti": token_id,
        "scope": str(scopes),
        "sec": secret_fingerprint(principal.secret_digest or b""),
    }


def parse_session(
    claims: Mapping[str, object], digest: bytes, now: float, *, kid: str | None = None
) -> SessionToken | str:
    """Return the session of a token with a verified signature, or why, for the log, it is none at *now*."""
    if claims.get("iss") != ISSUER or claims.get("aud") != AUDIENCE:
        return "iss or aud is not that of sessions"
    if refusal := check_dates(claims, now):
        return refusal
    key_id, secret, scope, exp = (claims.get(name) for name in ("sub", "sec", "scope", "exp"))
    expires_at = numeric_date(exp)
    if not (isinstance(key_id, str) and isinstance(secret, str) and isinstance(scope, str)) or expires_at is None:
        return "a claim is missing"
    if expires_at <= now:  # no leeway: the gateway itself issued it
        return "expired"
    return SessionToken(digest, key_id, secret, Scopes(frozenset(scope.split())), expires_at, kid)


def session_principal(session: SessionToken, record: KeyRecord, tiers: Mapping[str, Tier]) -> Principal | None:
    """Return the principal of *session* of the key *record*; None when the secret that created it has ended."""
    secret = _secret_of(session, record)
    if secret is None:
        return None
    key = key_principal(record, secret, tiers)
    held = Scopes(frozenset(name for name in session.scopes if name in key.scopes))
    ends = session.expires_at if key.expires_at is None else min(session.expires_at, key.expires_at)
    return replace(key, kind="session", scopes=held, expires_at=ends)


def secret_fingerprint(secret_digest: bytes) -> str:
    """Return the fingerprint of a key's secret for a token, which anybody can read; the digest itself stays private."""
    return sha256(b"machpay session" + secret_digest).hexdigest()[:32]


def _secret_of(session: SessionToken, record: KeyRecord) -> SecretRecord | None:
    marked = (
        secret for secret in record.secrets if hmac.compare_digest(secret_fingerprint(secret.digest), session.secret)
    )
    return next(marked, None)
