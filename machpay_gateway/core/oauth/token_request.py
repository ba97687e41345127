"""Rules of the token endpoint: what a client's request gets (RFC 6749 §4.1.3 and §6, RFC 7636 §4.6)."""

import hmac
from collections.abc import Collection
from dataclasses import dataclass, field

from machpay_gateway.core.decision.credential import Proof
from machpay_gateway.core.keys.audit import Actor
from machpay_gateway.core.oauth.authorization_request import requested_resources, requested_scopes
from machpay_gateway.core.oauth.client import GRANT_TYPES, OAuthClient
from machpay_gateway.core.oauth.error import OAuthErrorCode as Error
from machpay_gateway.core.oauth.error import OAuthRefusal
from machpay_gateway.core.oauth.grant import AuthorizationCode, StoredRefreshToken
from machpay_gateway.core.oauth.parameters import Parameters
from machpay_gateway.core.oauth.pkce import is_verifier, proves
from machpay_gateway.core.scopes import Scopes

# One text for every reason: the exact reason would help only an attacker who guesses.
DEAD_CODE = OAuthRefusal(Error.INVALID_GRANT, "the code is unknown, expired, used, or was given for another request")
USED_PROOF = OAuthRefusal(Error.INVALID_DPOP_PROOF, "proof: seen before")
DEAD_TOKEN = OAuthRefusal(Error.INVALID_GRANT, "the refresh token is unknown, expired, used or revoked")


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """A request that an OAuth *client* has authenticated. *dpop_proofs* are the values of its DPoP header fields."""

    client: OAuthClient
    parameters: Parameters
    actor: Actor
    dpop_proofs: tuple[bytes, ...] = field(default=(), repr=False)


def requested_grant_type(request: ClientRequest) -> str | OAuthRefusal:
    """Return the grant type by which *request* asks for tokens, if its client may use it."""
    grant_type = request.parameters.get("grant_type")
    if grant_type is None:
        return OAuthRefusal(Error.INVALID_REQUEST, "grant_type is missing")
    if grant_type not in GRANT_TYPES:
        return OAuthRefusal(Error.UNSUPPORTED_GRANT_TYPE, f"grant_type is one of {', '.join(GRANT_TYPES)}")
    if not request.client.may_use(grant_type):
        return OAuthRefusal(Error.UNAUTHORIZED_CLIENT, "the client may not use this grant_type")
    return grant_type


def check_code(code: AuthorizationCode, request: ClientRequest, now: float) -> OAuthRefusal | None:
    """Return why *request* gets nothing for *code*, used or not; None when the code was issued for it.

    A code that another client presents, or with a wrong code verifier, is not used up, and nothing is revoked:
    otherwise an attacker who sees a code could end what its owner has (OAuth 2.1 §4.1.3). A used code never expires:
    its second use reveals a theft, however late (RFC 6749 §4.1.2).
    """
    if code.client_id != request.client.id or (code.used_at is None and now >= code.expires_at):
        return DEAD_CODE
    redirect_uri = request.parameters.get("redirect_uri")
    if redirect_uri is None:
        # OAuth 2.1 §10.2: with PKCE the code is bound already; without, this is what binds it (RFC 6749 §4.1.3).
        if code.has_redirect and code.challenge is None:
            return OAuthRefusal(Error.INVALID_REQUEST, "redirect_uri is missing")
    elif not hmac.compare_digest(redirect_uri.encode(errors="replace"), code.redirect_uri.encode()):
        return DEAD_CODE
    return _check_verifier(code, request.parameters.get("code_verifier"))


def check_refresh_token(
    stored: StoredRefreshToken, request: ClientRequest, proof: Proof | None, now: float
) -> OAuthRefusal | None:
    """Return why *request*, with this DPoP *proof*, gets nothing for its refresh token, used or not.

    None when the token was issued for it.
    """
    token, family = stored.token, stored.family
    # A used token reveals a theft for as long as its family lives.
    expires_at = family.expires_at if token.used_at is not None else min(token.expires_at, family.expires_at)
    is_current = now < expires_at and family.ended_at is None and stored.grant.is_alive
    if not is_current or family.client_id != request.client.id:
        return DEAD_TOKEN
    if family.key is not None and (proof is None or family.key != proof.key):
        return OAuthRefusal(Error.INVALID_DPOP_PROOF, "the refresh token is bound to another key")
    return None


def requested_access(
    stored: StoredRefreshToken, parameters: Parameters, known_scopes: Collection[str]
) -> tuple[Scopes, tuple[str, ...]] | OAuthRefusal:
    """Return the scopes and resources of the next access token: those of the refresh token, or the requested part.

    The refresh token's own do not change (RFC 6749 §6): the next request may ask for all of them again.
    """
    scopes = requested_scopes(parameters.get("scope"), stored.family.scopes, known_scopes)
    if isinstance(scopes, OAuthRefusal):
        return scopes
    resources = requested_resources(parameters.all("resource"), stored.family.resources)
    return resources if isinstance(resources, OAuthRefusal) else (scopes, resources)


def is_retry(stored: StoredRefreshToken, now: float, grace_seconds: float) -> bool:
    """Tell whether the second use of a refresh token is a retry by a client that lost the first response.

    Only the token used last can be retried, and only for *grace_seconds*.
    """
    used_at = now if stored.token.used_at is None else stored.token.used_at
    # Concurrent requests may read the clock in another order than they store: the use may lie after *now*.
    return max(0.0, now - used_at) < grace_seconds and stored.next_used_at is None


def _check_verifier(code: AuthorizationCode, verifier: str | None) -> OAuthRefusal | None:
    if code.challenge is None:
        # RFC 9700 §4.8.2: a challenge that an attacker took out of the authorization request must be noticed.
        return None if verifier is None else DEAD_CODE
    if verifier is None:
        return OAuthRefusal(Error.INVALID_REQUEST, "code_verifier is missing")
    if not is_verifier(verifier):
        return OAuthRefusal(Error.INVALID_REQUEST, "code_verifier has 43 to 128 letters, digits and - . _ ~")
    return None if proves(verifier, code.challenge) else DEAD_CODE
