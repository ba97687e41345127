"""Verifies the tokens of configured issuers and the gateway's own; the rules for claims are in `core.jose`."""

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial

from machpay_gateway.core.decision.credential import SignedToken
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.errors import ConfigurationError, KeysetUnavailable
from machpay_gateway.core.jose.claims import principal_from_claims, validate_claims
from machpay_gateway.core.jose.compact import CompactToken, parse_compact
from machpay_gateway.core.jose.issuer import Issuer
from machpay_gateway.core.jose.token import VerifyingKey, is_signed_by, keys_for, keys_from_jwks
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.keysets.own import OwnTokens
from machpay_gateway.keysets.sources import KeySet, discovered_key_set, key_set_at
from machpay_gateway.keysets.verified import VerifiedTokens

VERIFIED_SECONDS = 60.0  # how long a verified token is cached
VERIFIED_TOKENS = 4096


class IssuedTokens:
    """Verifies the tokens of *issuers* and the gateway's *own*, and caches valid ones for a minute.

    Raises ConfigurationError for a duplicate issuer or an invalid key set.
    """

    def __init__(self, issuers: Iterable[Issuer], tiers: Mapping[str, Tier], *, own: OwnTokens | None = None) -> None:
        self._tiers = tiers
        self._own = own
        self._trusted: dict[str, tuple[Issuer, KeySet]] = {}
        self._verified = VerifiedTokens(seconds=VERIFIED_SECONDS, size=VERIFIED_TOKENS)
        for issuer in issuers:
            if issuer.issuer in self._trusted:
                msg = f"Issuer {issuer.issuer!r} is configured twice; give one entry all its audiences and algorithms"
                raise ConfigurationError(msg)
            self._trusted[issuer.issuer] = issuer, _key_set(issuer)

    def cached(self, digest: bytes, now: float) -> Principal | None:
        """Return the principal of a token that was verified recently; does no I/O."""
        principal = self._verified.cached(digest, now)
        if principal is None and self._own is not None:
            return self._own.cached(digest, now)
        return principal

    def holds(self, digest: bytes) -> bool:
        """Tell whether a token with this *digest* was verified recently, even if it has expired since."""
        return self._verified.holds(digest) or (self._own is not None and self._own.holds(digest))

    def forget(self, subject: str) -> None:
        """Invalidate what is cached of *subject*: only the gateway's own tokens depend on more than their claims."""
        if self._own is not None:
            self._own.forget(subject)

    def may_verify(self, token: SignedToken) -> bool:
        """Tell whether *token* names a trusted issuer; none of its claims is verified yet."""
        compact = parse_compact(token.token)
        if isinstance(compact, str):
            return False
        return compact.claims.get("iss") in self._trusted or (self._own is not None and self._own.claims_to_be(compact))

    async def verify(self, token: SignedToken, now: float) -> Principal | str:
        """Return the principal of *token*, or the reason, for the log, why it is refused.

        Raises KeysetUnavailable when its issuer's keys could never be loaded, and, for the gateway's own tokens,
        StoreUnavailable.
        """
        compact = parse_compact(token.token)
        if isinstance(compact, str):
            return compact
        if self._own is not None and self._own.claims_to_be(compact):
            return await self._own.verify(compact, token.digest, now)
        # Unverified, `iss` says only whose keys to try; the signature and `validate_claims` hold it to that.
        iss = compact.claims.get("iss")
        trusted = self._trusted.get(iss) if isinstance(iss, str) else None
        if trusted is None:
            return "iss is not configured"
        issuer, key_set = trusted
        claims = validate_claims(compact, issuer, now)
        if isinstance(claims, str):
            return claims
        if not (keys := await _keys_for(compact, key_set, now)):
            return "no key of its issuer has its kid and alg"
        if not is_signed_by(compact, keys):
            return "wrong signature"
        principal = principal_from_claims(claims, issuer, self._tiers)
        self._verified.remember(token.digest, principal, now)
        return principal

    async def load_keys(self, now: float) -> Mapping[str, int | str]:
        """Return how many usable keys each issuer has, or why they cannot be loaded."""
        counts = await asyncio.gather(*(_count_keys(key_set, now) for _, key_set in self._trusted.values()))
        return dict(zip(self._trusted, counts, strict=True))

    async def close(self) -> None:
        """Cancel look-ups and fetches in progress."""
        if self._own is not None:
            await self._own.close()
        for _, key_set in self._trusted.values():
            await key_set.close()


async def _keys_for(token: CompactToken, key_set: KeySet, now: float) -> tuple[VerifyingKey, ...]:
    return keys_for(token, await key_set.keys(now)) or keys_for(token, await key_set.newest_keys(now))


async def _count_keys(key_set: KeySet, now: float) -> int | str:
    try:
        return len((await key_set.keys(now)).keys)
    except KeysetUnavailable as exc:
        return str(exc)


def _key_set(issuer: Issuer) -> KeySet:
    read = partial(keys_from_jwks, algorithms=issuer.algorithms)
    try:
        if issuer.jwks is None:
            return discovered_key_set(issuer.issuer, read, ca_file=issuer.ca_file)
        return key_set_at(issuer.jwks, read, ca_file=issuer.ca_file)
    except ConfigurationError as exc:
        raise ConfigurationError(f"Issuer {issuer.issuer!r}: {exc}") from exc
