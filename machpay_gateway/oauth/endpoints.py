"""The endpoints that OAuth clients call: tokens, revocation and introspection (RFC 6749 §3.2, RFC 7009, RFC 7662).

Each authenticates its client first: by HTTP Basic, by the secret in the body, or by its id alone (RFC 6749 §2.3).
"""

import binascii
import logging
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from starlette.requests import Request
from starlette.responses import Response

from machpay_gateway.core.errors import ConfigurationError, Unavailable
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.error import OAuthErrorCode, OAuthRefusal
from machpay_gateway.core.oauth.parameters import Parameters
from machpay_gateway.core.oauth.token_request import ClientRequest
from machpay_gateway.gateway import Gateway
from machpay_gateway.oauth.responses import json_response, refusal_response
from machpay_gateway.services.token_issuance import TokenResponse
from machpay_gateway.web.forms import read_form
from machpay_gateway.web.request_facts import actor_of, facts_of

Endpoint = Callable[[Request], Awaitable[Response]]
AUTHENTICATION_METHODS = ("client_secret_basic", "client_secret_post", "none")
# One text for every reason: which one it was is for the client's owner to find out.
_WRONG_CLIENT = OAuthRefusal(
    OAuthErrorCode.INVALID_CLIENT, "the client is unknown, or not authenticated as it has to be"
)
_STORE_UNAVAILABLE = OAuthRefusal(OAuthErrorCode.TEMPORARILY_UNAVAILABLE, "the database did not answer", 1.0)
# Start-up checks that tokens can be signed. This is a signing key that was replaced since then.
_CANNOT_SIGN = OAuthRefusal(OAuthErrorCode.TEMPORARILY_UNAVAILABLE, "tokens cannot be signed", 60.0)
_MISSING_TOKEN = OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, "token is missing")

logger = logging.getLogger(__name__)


def token_endpoint(gateway: Gateway) -> Endpoint:
    """Return the endpoint that issues tokens."""
    realm = gateway.brand.realm

    async def issue(request: ClientRequest, address: int | None) -> Response:
        response = await gateway.token_issuance.issue(request)
        if isinstance(response, TokenResponse):
            return _to_response(response)
        if response.code is OAuthErrorCode.INVALID_GRANT and request.client.is_public:
            # This slows down guessing from one address, and good tokens from other addresses still work. It leaves out
            # authenticated clients: they present what their visitors send, who could lock them out that way.
            gateway.failures.count(address, time.time())
        return refusal_response(response, realm)

    return _for_clients(gateway, issue)


def revocation_endpoint(gateway: Gateway) -> Endpoint:
    """Return the endpoint that revokes tokens. One that is unknown or not the client's gets the same response."""
    realm = gateway.brand.realm

    async def revoke(request: ClientRequest, _address: int | None) -> Response:
        token = request.parameters.get("token")
        if token is None:
            return refusal_response(_MISSING_TOKEN, realm)
        await gateway.revocation.revoke_token(request.client, token, request.actor)
        return json_response({})

    return _for_clients(gateway, revoke)


def introspection_endpoint(gateway: Gateway) -> Endpoint:
    """Return the endpoint that describes a client's own tokens."""
    realm = gateway.brand.realm

    async def introspect(request: ClientRequest, _address: int | None) -> Response:
        if request.client.is_public:
            # RFC 7662 §2.1: the caller must authenticate, or anybody could try out tokens here.
            return refusal_response(
                OAuthRefusal(OAuthErrorCode.INVALID_CLIENT, "a public client cannot prove that it may ask"), realm
            )
        token = request.parameters.get("token")
        if token is None:
            return refusal_response(_MISSING_TOKEN, realm)
        return json_response(await gateway.revocation.introspect(request.client, token))

    return _for_clients(gateway, introspect)


def _for_clients(gateway: Gateway, handle: Callable[[ClientRequest, int | None], Awaitable[Response]]) -> Endpoint:
    """Return an endpoint that authenticates the client and passes its request, and address, on to *handle*."""
    realm = gateway.brand.realm

    async def endpoint(http: Request) -> Response:
        try:
            request = await authenticate_client(http, gateway)
            if isinstance(request, OAuthRefusal):
                return refusal_response(request, realm)
            return await handle(request, facts_of(http.scope).address)
        except Unavailable:
            return refusal_response(_STORE_UNAVAILABLE, realm)
        except ConfigurationError:  # the log says why no token can be signed
            return refusal_response(_CANNOT_SIGN, realm)

    return endpoint


def _to_response(tokens: TokenResponse) -> Response:
    return json_response(
        {
            "access_token": tokens.access_token,
            "token_type": "DPoP" if tokens.is_bound else "Bearer",
            "expires_in": tokens.expires_in,
            "refresh_token": tokens.refresh_token,
            "scope": str(tokens.scopes),
        }
    )


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """What a client authenticates with; *secret* is None when it sends only its id."""

    id: str
    secret: str | None = field(repr=False)


async def authenticate_client(http: Request, gateway: Gateway) -> ClientRequest | OAuthRefusal:
    """Return the request of an authenticated client. Raises StoreUnavailable.

    Too many failures from one address slow down that address, and no other.
    """
    facts = facts_of(http.scope)
    if wait := gateway.failures.wait(facts.address, time.time()):
        return OAuthRefusal(OAuthErrorCode.SLOW_DOWN, "too many failures from this address", wait)
    parameters = await _read_parameters(http)
    if isinstance(parameters, OAuthRefusal):
        return parameters
    credentials = _credentials(http, parameters)
    if isinstance(credentials, OAuthRefusal):
        return credentials
    client = await gateway.oauth_clients.get(None, credentials.id)
    if client is None or not _is_authentic(client, credentials.secret):
        gateway.failures.count(facts.address, time.time())
        return _WRONG_CLIENT
    return ClientRequest(client, parameters, actor_of("client", client.id, facts), facts.proof)


async def _read_parameters(http: Request) -> Parameters | OAuthRefusal:
    if http.url.query:
        # RFC 6749 §2.3.1: the query ends up in logs, so no secret may be there, and nothing is read from it.
        return OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, "parameters go into the body, and none into the query")
    pairs = await read_form(http)
    if isinstance(pairs, str):
        return OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, pairs)
    parameters = Parameters.of(pairs)
    if parameters.repeated is not None:
        return OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, "a parameter is there more than once")
    return parameters


def _credentials(http: Request, parameters: Parameters) -> ClientCredentials | OAuthRefusal:
    headers = http.headers.getlist("authorization")
    basics = [value for value in headers if value[:6].lower() == "basic "]
    client_id, secret = parameters.get("client_id"), parameters.get("client_secret")
    if not headers:
        return _WRONG_CLIENT if client_id is None else ClientCredentials(client_id, secret)
    if len(headers) > 1 or not basics:
        return OAuthRefusal(OAuthErrorCode.INVALID_CLIENT, "the Authorization header is not one of Basic")
    if secret is not None:
        return OAuthRefusal(
            OAuthErrorCode.INVALID_REQUEST, "the client is authenticated twice: by its header and in the body"
        )
    credentials = _parse_basic(basics[0][6:].strip())
    if credentials is None:
        return OAuthRefusal(OAuthErrorCode.INVALID_CLIENT, "the Authorization header cannot be read")
    if client_id is not None and client_id != credentials.id:
        return OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, "client_id is another one than in the header")
    return credentials


def _parse_basic(text: str) -> ClientCredentials | None:
    """Return id and secret, each form-encoded before they were joined (RFC 6749 §2.3.1); None when malformed."""
    try:
        client_id, colon, secret = b64decode(text, validate=True).decode("ascii").partition(":")
        if not colon:
            return None
        return ClientCredentials(unquote_plus(client_id, errors="strict"), unquote_plus(secret, errors="strict"))
    except (binascii.Error, ValueError):
        return None


def _is_authentic(client: OAuthClient, secret: str | None) -> bool:
    if client.is_public:
        # A public client's secret protects nothing: refusing it shows that to a developer who relies on it.
        return not secret
    return secret is not None and client.accepts_secret(secret, time.time())
