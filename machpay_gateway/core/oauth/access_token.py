"""Access tokens: their claims, and the principal that a token identifies (RFC 9068)."""

from collections.abc import Mapping
from types import MappingProxyType

from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.jose.claims import LEEWAY_SECONDS, check_dates, numeric_date
from machpay_gateway.core.limits.rate import Tier, tier_of
from machpay_gateway.core.oauth.grant import Grant
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.core.scopes import Scopes

TYPE = "at+jwt"
_TEXTS = ("sub", "client_id", "gid", "acct", "env", "tier")


def access_claims(
    settings: OAuthSettings,
    grant: Grant,
    *,
    scopes: Scopes,
    resources: tuple[str, ...],
    family_id: str | None,
    key: str | None,
    token_id: str,
    now: float,
) -> dict[str, object]:
    """Return the claims of a new access token.

    Private claims: `gid` is the grant at version `ver`, `fam` the token family, `acct` the account, `acct_tier` its
    tier, `env` the environment. *key* is the thumbprint of the DPoP key that the token is bound to, None for a bearer
    token.
    """
    issued_at = int(now)
    claims = {
        "iss": settings.issuer,
        "sub": grant.user_id or grant.client_id,
        "aud": resources[0] if len(resources) == 1 else list(resources),
        "client_id": grant.client_id,
        "iat": issued_at,
        "exp": issued_at + settings.access_token_seconds,
        "jti": token_id,
        "scope": str(scopes),
        "gid": grant.id,
        "ver": grant.version,
        "fam": family_id,
        "acct": grant.account_id,
        "env": grant.environment,
        "tier": grant.tier,
        "acct_tier": grant.account_tier,
        "cnf": None if key is None else {"jkt": key},  # RFC 9449 §6.1
    }
    return {name: value for name, value in claims.items() if value is not None}


def access_token_error(claims: Mapping[str, object], settings: OAuthSettings, now: float) -> str | None:
    """Return the first reason, for the log, why a token with *claims* is not accepted at *now*; None when it is."""
    if claims.get("iss") != settings.issuer:
        return "iss is another issuer"
    audience = claims.get("aud")
    if settings.audience not in (audience if isinstance(audience, list) else [audience]):
        return "aud names somebody else"
    if refusal := check_dates(claims, now):
        return refusal
    # The token has our signature: this fails only when the signing key was stolen.
    if not all(isinstance(claims.get(name), str) for name in (*_TEXTS, "scope")) or type(claims.get("ver")) is not int:
        return "a claim is missing"
    if "cnf" in claims and _key_thumbprint(claims) is None:
        return "cnf has no key thumbprint"
    return None


def access_principal(claims: Mapping[str, object], tiers: Mapping[str, Tier], grant: Grant | None) -> Principal | str:
    """Return the principal of a token with *claims*, or why the token is no longer valid.

    *grant* is passed when it has changed since the token was issued, and then overrides the token's scopes and tier.
    """
    scopes = Scopes(frozenset(str(claims["scope"]).split()))
    tier, version = str(claims["tier"]), int(str(claims["ver"]))
    account_tier = str(claims.get("acct_tier", tier))  # a token of an older version has none
    if grant is not None:
        if not grant.is_alive or version < grant.valid_from:
            return "the grant was revoked"
        if claims.get("fam") in grant.ended_families:
            return "the token's family has ended"
        scopes = Scopes(frozenset(name for name in scopes if name in grant.scopes))
        tier, account_tier, version = grant.tier, grant.account_tier, grant.version
    exp = numeric_date(claims["exp"])
    return Principal(
        kind="oauth",
        id=str(claims["sub"]),
        name=str(claims["sub"]),
        account_id=str(claims["acct"]),
        subject=str(claims["gid"]),
        environment=str(claims["env"]),
        tier=tier,
        limits=tier_of(tier, tiers),
        scopes=scopes,
        version=version,
        expires_at=None if exp is None else exp + LEEWAY_SECONDS,
        client_id=str(claims["client_id"]),
        key=_key_thumbprint(claims),
        claims=MappingProxyType(dict(claims)),
        account_tier=account_tier,
        shared_limits=tier_of(account_tier, tiers),
    )


def _key_thumbprint(claims: Mapping[str, object]) -> str | None:
    confirmation = claims.get("cnf")
    key = confirmation.get("jkt") if isinstance(confirmation, Mapping) else None
    return key if isinstance(key, str) else None
