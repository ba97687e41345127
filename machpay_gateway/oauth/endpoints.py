"""What apps ask for: tokens, their end, and what they are worth (RFC 6749 §3.2, RFC 7009, RFC 7662)."""

import logging
import time
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from machpay_gateway.core.decision.credential import Proof
from machpay_gateway.core.errors import ConfigurationError, Unavailable
from machpay_gateway.core.oauth.client import AUTHORIZATION_CODE, CLIENT_CREDENTIALS, GRANT_TYPES, REFRESH_TOKEN
from machpay_gateway.core.oauth.error import OAuthErrorCode, OAuthRefusal
from machpay_gateway.gateway import Gateway
from machpay_gateway.oauth.client_authentication import TokenEndpointRequest, authenticated
from machpay_gateway.oauth.metadata import TOKEN
from machpay_gateway.oauth.responses import json_answer, refused_answer
from machpay_gateway.services.token_issuance import TokenResponse
from machpay_gateway.web.incoming import facts_of

Endpoint = Callable[[Request], Awaitable[Response]]
_AWAY = OAuthRefusal(OAuthErrorCode.TEMPORARILY_UNAVAILABLE, "the database did not answer", 1.0)
# Not found out at the start, which would have stopped it: a key was replaced while it served.
_UNSIGNED = OAuthRefusal(OAuthErrorCode.TEMPORARILY_UNAVAILABLE, "tokens cannot be signed", 60.0)

logger = logging.getLogger(__name__)


def token_endpoint(gateway: Gateway) -> Endpoint:
    """Return the endpoint that gives tokens."""

    async def give(sent: TokenEndpointRequest, request: Request) -> Response:
        kind = sent.parameters.get("grant_type")
        if kind is None:
            return refused_answer(OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, "grant_type is missing"))
        if kind not in GRANT_TYPES:
            return refused_answer(
                OAuthRefusal(OAuthErrorCode.UNSUPPORTED_GRANT_TYPE, f"grant_type is one of {', '.join(GRANT_TYPES)}")
            )
        if not sent.client.may_use(kind):
            return refused_answer(
                OAuthRefusal(OAuthErrorCode.UNAUTHORIZED_CLIENT, "the client may not use this grant_type")
            )
        proof = _proof(gateway, sent, request)
        if isinstance(proof, OAuthRefusal):
            return refused_answer(proof)
        tokens = gateway.token_issuance
        given = {
            AUTHORIZATION_CODE: tokens.for_code,
            REFRESH_TOKEN: tokens.for_refresh_token,
            CLIENT_CREDENTIALS: tokens.for_client,
        }[kind]
        answer = await given(sent.client, sent.parameters, sent.actor, proof)
        if isinstance(answer, TokenResponse):
            return _told(answer)
        if answer.code is OAuthErrorCode.INVALID_GRANT and sent.client.is_public:
            # Guessing is slowed where it comes from; who has a good token elsewhere is not in its way. One that has
            # proved who it is presents what its visitors bring: theirs would be the power to shut it out.
            facts = facts_of(request.scope)
            gateway.failures.count(facts.address, time.time())
        return refused_answer(answer)

    return _of_clients(gateway, give)


def revocation_endpoint(gateway: Gateway) -> Endpoint:
    """Return the endpoint that ends tokens: what is not there, or not the client's, is as good as ended."""

    async def end(sent: TokenEndpointRequest, _request: Request) -> Response:
        token = sent.parameters.get("token")
        if token is None:
            return refused_answer(OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, "token is missing"))
        await gateway.revocation.revoke(sent.client, token, sent.actor)
        return json_answer({})

    return _of_clients(gateway, end)


def introspection_endpoint(gateway: Gateway) -> Endpoint:
    """Return the endpoint that tells a client what a token of its own is."""

    async def tell(sent: TokenEndpointRequest, _request: Request) -> Response:
        if sent.client.is_public:
            # RFC 7662 §2.1: whoever may ask must prove who they are, or tokens could be tried here.
            return refused_answer(
                OAuthRefusal(OAuthErrorCode.INVALID_CLIENT, "a public client cannot prove that it may ask")
            )
        token = sent.parameters.get("token")
        if token is None:
            return refused_answer(OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, "token is missing"))
        return json_answer(await gateway.revocation.introspect(sent.client, token))

    return _of_clients(gateway, tell)


def _proof(gateway: Gateway, sent: TokenEndpointRequest, request: Request) -> Proof | OAuthRefusal | None:
    """Return the proof of the key that the tokens are to be bound to, None for bearer tokens (RFC 9449 §5).

    Whether it was used before is asked where tokens are given: a refused request must leave nothing behind.
    """
    values = facts_of(request.scope).proof
    if not values:
        if sent.client.binds_tokens:
            return OAuthRefusal(
                OAuthErrorCode.INVALID_DPOP_PROOF, "this client's tokens are bound to a key: send a DPoP proof of it"
            )
        return None
    assert gateway.proofs is not None  # noqa: S101 - there is one wherever these endpoints are
    proof = gateway.proofs.at_endpoint(values, TOKEN)
    return OAuthRefusal(OAuthErrorCode.INVALID_DPOP_PROOF, proof) if isinstance(proof, str) else proof


def _of_clients(gateway: Gateway, answer: Callable[[TokenEndpointRequest, Request], Awaitable[Response]]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        try:
            sent = await authenticated(request, gateway)
            return refused_answer(sent) if isinstance(sent, OAuthRefusal) else await answer(sent, request)
        except Unavailable:
            return refused_answer(_AWAY)
        except ConfigurationError as exc:
            logger.error("A token could not be signed: %s", exc)  # noqa: TRY400 - it says all that there is to know
            return refused_answer(_UNSIGNED)

    return endpoint


def _told(answer: TokenResponse) -> Response:
    return json_answer(
        {
            "access_token": answer.access_token,
            "token_type": "DPoP" if answer.is_bound else "Bearer",
            "expires_in": answer.expires_in,
            "refresh_token": answer.refresh_token,
            "scope": str(answer.scopes),
        }
    )
