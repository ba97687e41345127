"""Tokens for codes, for refresh tokens, and for clients themselves (RFC 6749 §4.1.3, §6, §4.4)."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from machpay_gateway.core.decision.credential import Proof
from machpay_gateway.core.keys.audit import Actor
from machpay_gateway.core.keys.key import ENTROPY_BYTES, mint_id, secret_digest
from machpay_gateway.core.oauth.access_token import TYPE, access_claims
from machpay_gateway.core.oauth.authorization_request import requested_resources, requested_scopes
from machpay_gateway.core.oauth.client import REFRESH_TOKEN, OAuthClient
from machpay_gateway.core.oauth.error import OAuthErrorCode as Error
from machpay_gateway.core.oauth.error import OAuthRefusal
from machpay_gateway.core.oauth.grant import AuthorizationCode, Grant, RefreshToken, StoredRefreshToken, TokenFamily
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, digest_of, mint, successor
from machpay_gateway.core.oauth.parameters import Parameters
from machpay_gateway.core.oauth.ports import GrantStore
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.core.oauth.token_request import DEAD_CODE, DEAD_TOKEN, USED_PROOF, check_code, narrow
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.services.consents import Consents
from machpay_gateway.services.revocation import Revocation

_DAY_SECONDS = 86_400


class Signer(Protocol):
    """Signs tokens. Raises StoreUnavailable."""

    async def sign(self, claims: Mapping[str, Any], typ: str) -> str:
        """Return a token of *typ* that says *claims*."""


class UsedProofs(Protocol):
    """Knows which DPoP proofs were used. Raises Unavailable."""

    async def is_first_use(self, proof: Proof) -> bool:
        """Remember *proof* and tell whether it is used for the first time."""


@dataclass(frozen=True, slots=True)
class TokenResponse:
    """What a token request got. *is_bound* tells whether the access token needs DPoP beside it."""

    access_token: str = field(repr=False)
    expires_in: int
    scopes: Scopes
    is_bound: bool
    refresh_token: str | None = field(default=None, repr=False)


class TokenIssuance:
    """Gives tokens. *scopes* are the names that there are; *revocation* end what was used twice.

    A DPoP proof is good once (RFC 9449 §11.1). It is remembered in *proofs* when nothing else refuses the request, so
    that strangers cannot fill the memory, and before a code or a refresh token is used up, so that neither is lost.
    """

    def __init__(  # noqa: PLR0913 - what tokens are made by, by keyword
        self,
        store: GrantStore,
        *,
        authority: OAuthSettings,
        consents: Consents,
        revocation: Revocation,
        signer: Signer,
        proofs: UsedProofs,
        scopes: Collection[str],
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._authority = authority
        self._consents = consents
        self._endings = revocation
        self._signer = signer
        self._proofs = proofs
        self._scopes = frozenset(scopes)
        self._clock = clock
        self._entropy = entropy

    async def for_code(
        self, client: OAuthClient, sent: Parameters, actor: Actor, proof: Proof | None = None
    ) -> TokenResponse | OAuthRefusal:
        """Return tokens for the code in *sent*, bound to the key of the DPoP *proof* if there is one.

        The second use of a code ends what came of the first (RFC 6749 §4.1.2).
        """
        now, presented = self._clock(), sent.get("code")
        if presented is None:
            return OAuthRefusal(Error.INVALID_REQUEST, "code is missing")
        digest = digest_of(OpaqueTokenKind.CODE, presented)
        code = None if digest is None else await self._store.code(digest)
        if code is None:
            return DEAD_CODE
        if (mistake := check_code(code, sent, client, now)) is not None:
            return mistake
        resources = requested_resources(sent.all("resource"), code.resources)
        if isinstance(resources, OAuthRefusal):
            return resources
        grant = await self._store.grant(code.grant_id, now)
        if grant is None or not grant.is_alive:
            return DEAD_CODE
        if code.used_at is None and await self._is_replayed(proof):
            return USED_PROOF
        key = None if proof is None else proof.key
        family, refresh_token, kept = self._begun(code, client, key, now)
        if code.used_at is not None or not await self._store.use_code(code.digest, now, family, kept):
            await self._endings.end_family(code.family_id, grant, actor, "code was used twice")
            return DEAD_CODE
        scopes = Scopes(code.scopes.names & grant.scopes.names)
        return await self._answer(grant, scopes, resources, family.id, key=key, refresh_token=refresh_token)

    async def for_refresh_token(
        self, client: OAuthClient, sent: Parameters, actor: Actor, proof: Proof | None = None
    ) -> TokenResponse | OAuthRefusal:
        """Return new tokens for the refresh token in *sent*. It is used up; used again, all that came of it ends.

        But for the one used last, for some seconds: whoever lost the answer is given the same token again.
        """
        now, presented = self._clock(), sent.get("refresh_token")
        if presented is None:
            return OAuthRefusal(Error.INVALID_REQUEST, "refresh_token is missing")
        digest = digest_of(OpaqueTokenKind.REFRESH_TOKEN, presented)
        held = None if digest is None else await self._store.refresh_token(digest)
        if held is None or not self._is_alive(held, client, now):
            return DEAD_TOKEN
        key = None if proof is None else proof.key
        if held.family.key is not None and held.family.key != key:
            return OAuthRefusal(Error.INVALID_DPOP_PROOF, "the refresh token is bound to another key")
        asked = narrow(held, sent, self._scopes)
        if isinstance(asked, OAuthRefusal):
            return asked
        # Also where the token was used before: a request that is sent once more by a stranger ends nothing.
        if await self._is_replayed(proof):
            return USED_PROOF
        following = await self._following(held, presented, now, actor)
        if following is None:
            return DEAD_TOKEN
        scopes, resources = asked
        scopes = Scopes(scopes.names & held.grant.scopes.names)
        return await self._answer(held.grant, scopes, resources, held.family.id, key=key, refresh_token=following)

    async def for_client(
        self, client: OAuthClient, sent: Parameters, actor: Actor, proof: Proof | None = None
    ) -> TokenResponse | OAuthRefusal:
        """Return an access token for *client* itself. There is no refresh token: it can ask again (RFC 6749 §4.4.3)."""
        scopes = requested_scopes(sent.get("scope"), client.scopes, self._scopes)
        if isinstance(scopes, OAuthRefusal):
            return scopes
        most = (self._authority.audience, *self._authority.resources)
        resources = requested_resources(sent.all("resource"), most)
        if isinstance(resources, OAuthRefusal):
            return resources
        if await self._is_replayed(proof):
            return USED_PROOF
        grant = await self._consents.grant_for(client, client.account_id, None, client.scopes, actor)
        key = None if proof is None else proof.key
        return await self._answer(grant, scopes, resources, None, key=key)

    async def _is_replayed(self, proof: Proof | None) -> bool:
        """Remember *proof*, if there is one, and tell whether it was used before."""
        return proof is not None and not await self._proofs.is_first_use(proof)

    def _begun(
        self, code: AuthorizationCode, client: OAuthClient, key: str | None, now: float
    ) -> tuple[TokenFamily, str | None, RefreshToken | None]:
        """Return the family that begins with *code*, and its first refresh token if the client gets any."""
        family = TokenFamily(
            id=code.family_id,
            grant_id=code.grant_id,
            client_id=client.id,
            scopes=code.scopes,
            resources=code.resources,
            created_at=now,
            expires_at=now + self._authority.family_days * _DAY_SECONDS,
            # RFC 9449 §5: who has a secret is known by that, and may change the key.
            key=key if client.is_public else None,
        )
        if REFRESH_TOKEN not in client.grant_types:
            return family, None, None
        token = mint(OpaqueTokenKind.REFRESH_TOKEN, self._entropy(ENTROPY_BYTES))
        return family, token, self._kept(token, family, now)

    def _is_alive(self, held: StoredRefreshToken, client: OAuthClient, now: float) -> bool:
        token, family = held.token, held.family
        # One that was used tells of a theft as long as there is something to end.
        until = family.expires_at if token.used_at is not None else min(token.expires_at, family.expires_at)
        is_current = now < until and family.ended_at is None
        return is_current and family.client_id == client.id and held.grant.is_alive

    async def _following(self, held: StoredRefreshToken, presented: str, now: float, actor: Actor) -> str | None:
        """Return the refresh token after the *presented* one; None when it was used before, which ends its family."""
        if held.token.used_at is None:
            seed = self._entropy(ENTROPY_BYTES)
            following = successor(presented, seed)
            kept = self._kept(following, held.family, now)
            if await self._store.use_refresh_token(held.token.digest, seed, kept):
                return following
            # Somebody used it in between. Whether that was its owner twice shows in what is stored now.
            again = await self._store.refresh_token(held.token.digest)
            if again is None or again.family.ended_at is not None or again.token.used_at is None:
                return None
            held = again
        used_at, seed_then = held.token.used_at or now, held.token.seed
        # A request that came first may be judged last, and then its time is before that of the use.
        since, grace = max(0.0, now - used_at), self._authority.refresh_grace_seconds
        is_retry = since < grace and held.next_used_at is None
        if is_retry and seed_then is not None:
            return successor(presented, seed_then)
        await self._endings.end_family(held.family.id, held.grant, actor, "refresh token was used twice")
        return None

    def _kept(self, token: str, family: TokenFamily, now: float) -> RefreshToken:
        expires_at = min(now + self._authority.refresh_token_days * _DAY_SECONDS, family.expires_at)
        return RefreshToken(secret_digest(token.encode()), family.id, now, expires_at)

    async def _answer(
        self,
        grant: Grant,
        scopes: Scopes,
        resources: tuple[str, ...],
        family_id: str | None,
        *,
        key: str | None,
        refresh_token: str | None = None,
    ) -> TokenResponse:
        claims = access_claims(
            self._authority,
            grant,
            scopes=scopes,
            resources=resources,
            family_id=family_id,
            key=key,
            token_id=mint_id("at", self._entropy(ENTROPY_BYTES)),
            now=self._clock(),
        )
        signed = await self._signer.sign(claims, TYPE)
        return TokenResponse(signed, self._authority.access_token_seconds, scopes, key is not None, refresh_token)
