"""What a token request gets: codes and refresh tokens, judged (RFC 6749 §4.1.3 and §6, RFC 7636 §4.6)."""

import hmac
from collections.abc import Collection

from machpay_gateway.core.oauth.authorization_request import requested_resources, requested_scopes
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.error import OAuthErrorCode as Error
from machpay_gateway.core.oauth.error import OAuthRefusal
from machpay_gateway.core.oauth.grant import AuthorizationCode, StoredRefreshToken
from machpay_gateway.core.oauth.parameters import Parameters
from machpay_gateway.core.oauth.pkce import is_verifier, proves
from machpay_gateway.core.scopes import Scopes

# One text for all: which of them it was would help only whoever guesses.
DEAD_CODE = OAuthRefusal(Error.INVALID_GRANT, "the code is unknown, expired, used, or was given for another request")
USED_PROOF = OAuthRefusal(Error.INVALID_DPOP_PROOF, "proof: seen before")
DEAD_TOKEN = OAuthRefusal(Error.INVALID_GRANT, "the refresh token is unknown, expired, used or revoked")


def check_code(code: AuthorizationCode, sent: Parameters, client: OAuthClient, now: float) -> OAuthRefusal | None:
    """Return why *client* gets nothing for *code*, used or not; None when the request is the one that it is for.

    A code that somebody else presents, or with a wrong proof, is not used up by that, and nothing is revoked: else
    whoever sees a code could end what its owner has (OAuth 2.1 §4.1.3). One that was used has no end: its second use
    tells of a theft however late it comes (RFC 6749 §4.1.2).
    """
    if code.client_id != client.id or (code.used_at is None and now >= code.expires_at):
        return DEAD_CODE
    redirect_uri = sent.get("redirect_uri")
    if redirect_uri is None:
        # OAuth 2.1 §10.2: with PKCE the code is bound already; without, this is what binds it (RFC 6749 §4.1.3).
        if code.has_redirect and code.challenge is None:
            return OAuthRefusal(Error.INVALID_REQUEST, "redirect_uri is missing")
    elif not hmac.compare_digest(redirect_uri.encode(errors="replace"), code.redirect_uri.encode()):
        return DEAD_CODE
    return _unproven(code, sent.get("code_verifier"))


def narrow(
    held: StoredRefreshToken, sent: Parameters, known: Collection[str]
) -> tuple[Scopes, tuple[str, ...]] | OAuthRefusal:
    """Return the scopes and resources of the next access token: what was consented to, or less if that was asked for.

    The refresh token's own do not change (RFC 6749 §6): the next request may ask for all of them again.
    """
    scopes = requested_scopes(sent.get("scope"), held.family.scopes, known)
    if isinstance(scopes, OAuthRefusal):
        return scopes
    resources = requested_resources(sent.all("resource"), held.family.resources)
    return resources if isinstance(resources, OAuthRefusal) else (scopes, resources)


def _unproven(code: AuthorizationCode, verifier: str | None) -> OAuthRefusal | None:
    if code.challenge is None:
        # RFC 9700 §4.8.2: a challenge that was taken out of the request on its way must not go unnoticed.
        return None if verifier is None else DEAD_CODE
    if verifier is None:
        return OAuthRefusal(Error.INVALID_REQUEST, "code_verifier is missing")
    if not is_verifier(verifier):
        return OAuthRefusal(Error.INVALID_REQUEST, "code_verifier has 43 to 128 letters, digits and - . _ ~")
    return None if proves(verifier, code.challenge) else DEAD_CODE
