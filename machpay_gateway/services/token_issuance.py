"""The token request (RFC 6749 §4.1.3, §4.4, §6): every step from an authenticated request to signed tokens.

The rules are in `core.oauth.token_request`. Each step returns its result, or the `OAuthRefusal` that ends the request.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from machpay_gateway.core.brand import MACHPAY, Brand
from machpay_gateway.core.decision.credential import Proof
from machpay_gateway.core.keys.audit import Actor
from machpay_gateway.core.keys.key import ENTROPY_BYTES, mint_id, secret_digest
from machpay_gateway.core.oauth.access_token import TYPE, access_claims
from machpay_gateway.core.oauth.authorization_request import requested_resources, requested_scopes
from machpay_gateway.core.oauth.client import AUTHORIZATION_CODE, CLIENT_CREDENTIALS, REFRESH_TOKEN
from machpay_gateway.core.oauth.error import OAuthErrorCode as Error
from machpay_gateway.core.oauth.error import OAuthRefusal
from machpay_gateway.core.oauth.grant import AuthorizationCode, Grant, RefreshToken, StoredRefreshToken, TokenFamily
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, digest_of, mint, successor
from machpay_gateway.core.oauth.ports import OAuthStore
from machpay_gateway.core.oauth.settings import TOKEN, OAuthSettings
from machpay_gateway.core.oauth.token_request import (
    DEAD_CODE,
    DEAD_TOKEN,
    USED_PROOF,
    ClientRequest,
    check_code,
    check_refresh_token,
    is_retry,
    requested_access,
    requested_grant_type,
)
from machpay_gateway.core.scopes import DefinedScopes, Scopes
from machpay_gateway.services.consents import Consents
from machpay_gateway.services.revocation import Revocation

_DAY_SECONDS = 86_400


class TokenSigner(Protocol):
    """Signs tokens. Raises StoreUnavailable, and ConfigurationError for a key that cannot be opened."""

    async def sign(self, claims: Mapping[str, Any], typ: str) -> str:
        """Return a token of *typ* with *claims*."""


class DPoPProofs(Protocol):
    """Verifies DPoP proofs and remembers the used ones."""

    def at_endpoint(self, values: tuple[bytes, ...], path: str) -> Proof | str:
        """Return the proof in *values* of a POST to the endpoint at *path*, or why there is no valid one."""

    async def is_first_use(self, proof: Proof) -> bool:
        """Remember *proof* and tell whether this is its first use. Raises Unavailable."""


@dataclass(frozen=True, slots=True)
class TokenResponse:
    """The response to a successful token request. The access token of one that *is_bound* needs DPoP proofs."""

    access_token: str = field(repr=False)
    expires_in: int
    scopes: Scopes
    is_bound: bool
    refresh_token: str | None = field(default=None, repr=False)


class TokenIssuance:
    """Issues tokens. *scopes* are all scopes that exist.

    A DPoP proof can be used once (RFC 9449 §11.1). It is remembered when nothing else refuses the request, so that
    attackers cannot fill the memory, and before a code or a refresh token is used up, so that neither is lost.
    """

    def __init__(  # noqa: PLR0913 - what tokens are issued with, by keyword
        self,
        store: OAuthStore,
        *,
        settings: OAuthSettings,
        consents: Consents,
        revocation: Revocation,
        signer: TokenSigner,
        proofs: DPoPProofs,
        scopes: Iterable[str],
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        brand: Brand = MACHPAY,
    ) -> None:
        self._store = store
        self._settings = settings
        self._consents = consents
        self._revocation = revocation
        self._signer = signer
        self._proofs = proofs
        self._scopes = DefinedScopes.of(scopes)
        self._clock = clock
        self._entropy = entropy
        self._brand = brand

    async def issue(self, request: ClientRequest) -> TokenResponse | OAuthRefusal:
        """Return the tokens that *request* gets, or why it gets none. Raises Unavailable, ConfigurationError."""
        grant_type = requested_grant_type(request)
        if isinstance(grant_type, OAuthRefusal):
            return grant_type
        proof = self._verify_dpop_proof(request)
        if isinstance(proof, OAuthRefusal):
            return proof
        issue_for = {
            AUTHORIZATION_CODE: self._redeem_code,
            REFRESH_TOKEN: self._refresh,
            CLIENT_CREDENTIALS: self._issue_to_client,
        }[grant_type]
        return await issue_for(request, proof)

    async def _redeem_code(self, request: ClientRequest, proof: Proof | None) -> TokenResponse | OAuthRefusal:
        """Return tokens for an authorization code. Its second use ends what came of the first (RFC 6749 §4.1.2)."""
        now = self._clock()
        code = await self._load_code(request)
        if isinstance(code, OAuthRefusal):
            return code
        if (refusal := check_code(code, request, now)) is not None:
            return refusal
        resources = requested_resources(request.parameters.all("resource"), code.resources)
        if isinstance(resources, OAuthRefusal):
            return resources
        grant = await self._store.grant(code.grant_id, now)
        if grant is None or not grant.is_alive:
            return DEAD_CODE
        if code.used_at is None and await self._is_replayed(proof):
            return USED_PROOF
        family = self._new_family(code, request, proof, now)
        refresh_token, record = self._first_refresh_token(family, request, now)
        if code.used_at is not None or not await self._store.use_code(code.digest, now, family, record):
            await self._revocation.revoke_family(code.family_id, grant, request.actor, "code was used twice")
            return DEAD_CODE
        scopes = Scopes(code.scopes.names & grant.scopes.names)
        return await self._respond(grant, scopes, resources, proof, family_id=family.id, refresh_token=refresh_token)

    async def _refresh(self, request: ClientRequest, proof: Proof | None) -> TokenResponse | OAuthRefusal:
        """Return new tokens for a refresh token, which is used up by that.

        Its second use ends its family (RFC 9700 §4.14.2), but for a retry, which gets the same refresh token again.
        """
        now = self._clock()
        presented = request.parameters.get("refresh_token")
        if presented is None:
            return OAuthRefusal(Error.INVALID_REQUEST, "refresh_token is missing")
        stored = await self._load_refresh_token(presented)
        if stored is None:
            return DEAD_TOKEN
        if (refusal := check_refresh_token(stored, request, proof, now)) is not None:
            return refusal
        access = requested_access(stored, request.parameters, self._scopes)
        if isinstance(access, OAuthRefusal):
            return access
        # Also for a used token: an attacker who replays a whole request must not end the family.
        if await self._is_replayed(proof):
            return USED_PROOF
        refresh_token = await self._rotate(stored, presented, request.actor, now)
        if refresh_token is None:
            return DEAD_TOKEN
        grant, (scopes, resources) = stored.grant, access
        scopes = Scopes(scopes.names & grant.scopes.names)
        family_id = stored.family.id
        return await self._respond(grant, scopes, resources, proof, family_id=family_id, refresh_token=refresh_token)

    async def _issue_to_client(self, request: ClientRequest, proof: Proof | None) -> TokenResponse | OAuthRefusal:
        """Return an access token for the client itself, without a refresh token (RFC 6749 §4.4.3)."""
        client, parameters = request.client, request.parameters
        scopes = requested_scopes(parameters.get("scope"), client.scopes, self._scopes)
        if isinstance(scopes, OAuthRefusal):
            return scopes
        allowed = (self._settings.audience, *self._settings.resources)
        resources = requested_resources(parameters.all("resource"), allowed)
        if isinstance(resources, OAuthRefusal):
            return resources
        if await self._is_replayed(proof):
            return USED_PROOF
        grant = await self._consents.grant_for(client, client.account_id, None, client.scopes, request.actor)
        return await self._respond(grant, scopes, resources, proof)

    def _verify_dpop_proof(self, request: ClientRequest) -> Proof | OAuthRefusal | None:
        """Return the proof of the key that the tokens are bound to, None for bearer tokens (RFC 9449 §5)."""
        if request.dpop_proofs:
            proof = self._proofs.at_endpoint(request.dpop_proofs, TOKEN)
            return OAuthRefusal(Error.INVALID_DPOP_PROOF, proof) if isinstance(proof, str) else proof
        if request.client.binds_tokens:
            return OAuthRefusal(
                Error.INVALID_DPOP_PROOF, "this client's tokens are bound to a key: send a DPoP proof of it"
            )
        return None

    async def _is_replayed(self, proof: Proof | None) -> bool:
        """Remember *proof*, if there is one, and tell whether it was used before."""
        return proof is not None and not await self._proofs.is_first_use(proof)

    async def _load_code(self, request: ClientRequest) -> AuthorizationCode | OAuthRefusal:
        presented = request.parameters.get("code")
        if presented is None:
            return OAuthRefusal(Error.INVALID_REQUEST, "code is missing")
        digest = digest_of(OpaqueTokenKind.CODE, presented)
        code = None if digest is None else await self._store.code(digest)
        return DEAD_CODE if code is None else code

    async def _load_refresh_token(self, presented: str) -> StoredRefreshToken | None:
        digest = digest_of(OpaqueTokenKind.REFRESH_TOKEN, presented)
        return None if digest is None else await self._store.refresh_token(digest)

    def _new_family(
        self, code: AuthorizationCode, request: ClientRequest, proof: Proof | None, now: float
    ) -> TokenFamily:
        return TokenFamily(
            id=code.family_id,
            grant_id=code.grant_id,
            client_id=request.client.id,
            scopes=code.scopes,
            resources=code.resources,
            created_at=now,
            expires_at=now + self._settings.family_days * _DAY_SECONDS,
            # RFC 9449 §5: a client with a secret authenticates by that, and may change its key.
            key=proof.key if proof is not None and request.client.is_public else None,
        )

    def _first_refresh_token(
        self, family: TokenFamily, request: ClientRequest, now: float
    ) -> tuple[str, RefreshToken] | tuple[None, None]:
        """Return a new refresh token and its record, if the client gets any."""
        if REFRESH_TOKEN not in request.client.grant_types:
            return None, None
        token = mint(OpaqueTokenKind.REFRESH_TOKEN, self._entropy(ENTROPY_BYTES), self._brand.tag)
        return token, self._refresh_token_record(token, family, now)

    def _refresh_token_record(self, token: str, family: TokenFamily, now: float) -> RefreshToken:
        expires_at = min(now + self._settings.refresh_token_days * _DAY_SECONDS, family.expires_at)
        return RefreshToken(secret_digest(token.encode()), family.id, now, expires_at)

    async def _rotate(self, stored: StoredRefreshToken, presented: str, actor: Actor, now: float) -> str | None:
        """Return the refresh token that replaces the *presented* one; None for a second use, which ends its family."""
        if stored.token.used_at is None:
            seed = self._entropy(ENTROPY_BYTES)
            next_token = successor(presented, seed)
            record = self._refresh_token_record(next_token, stored.family, now)
            if await self._store.use_refresh_token(stored.token.digest, seed, record):
                return next_token
            # A concurrent request used it first. The stored state shows whether this one is a retry.
            current = await self._store.refresh_token(stored.token.digest)
            if current is None or current.family.ended_at is not None or current.token.used_at is None:
                return None
            stored = current
        if stored.token.seed is not None and is_retry(stored, now, self._settings.refresh_grace_seconds):
            return successor(presented, stored.token.seed)
        await self._revocation.revoke_family(stored.family.id, stored.grant, actor, "refresh token was used twice")
        return None

    async def _respond(
        self,
        grant: Grant,
        scopes: Scopes,
        resources: tuple[str, ...],
        proof: Proof | None,
        *,
        family_id: str | None = None,
        refresh_token: str | None = None,
    ) -> TokenResponse:
        """Sign an access token, bound to the key of *proof*, and return it with the *refresh_token*."""
        claims = access_claims(
            self._settings,
            grant,
            scopes=scopes,
            resources=resources,
            family_id=family_id,
            key=None if proof is None else proof.key,
            token_id=mint_id("at", self._entropy(ENTROPY_BYTES)),
            now=self._clock(),
        )
        access_token = await self._signer.sign(claims, TYPE)
        return TokenResponse(
            access_token, self._settings.access_token_seconds, scopes, proof is not None, refresh_token
        )
