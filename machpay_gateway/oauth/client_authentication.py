"""Which client sends a request: by Basic, by its secret in the body, or by its name alone (RFC 6749 §2.3)."""

import binascii
import time
from base64 import b64decode
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from starlette.requests import Request

from machpay_gateway.core.keys.audit import Actor
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.error import OAuthErrorCode, OAuthRefusal
from machpay_gateway.core.oauth.parameters import Parameters
from machpay_gateway.gateway import Gateway
from machpay_gateway.web.forms import read_form
from machpay_gateway.web.incoming import actor_of, facts_of

METHODS = ("client_secret_basic", "client_secret_post", "none")
# One text for all: which of them it was is for the client's owner to find out.
_WRONG = OAuthRefusal(OAuthErrorCode.INVALID_CLIENT, "the client is unknown, or not authenticated as it has to be")


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """What a client says of itself; *secret* is None when it says nothing to prove it."""

    id: str
    secret: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenEndpointRequest:
    """A request of an authenticated *client*."""

    client: OAuthClient
    parameters: Parameters
    actor: Actor


async def authenticated(request: Request, gateway: Gateway) -> TokenEndpointRequest | OAuthRefusal:
    """Return who sent *request* and what. Raises StoreUnavailable.

    An address whose clients keep failing is slowed; whoever is behind another one is not.
    """
    facts = facts_of(request.scope)
    if wait := gateway.failures.wait(facts.address, time.time()):
        return OAuthRefusal(OAuthErrorCode.SLOW_DOWN, "too many failures from this address", wait)
    parameters = await _parameters(request)
    if isinstance(parameters, OAuthRefusal):
        return parameters
    presented = _presented(request, parameters)
    if isinstance(presented, OAuthRefusal):
        return presented
    client = await gateway.oauth_clients.get(None, presented.id)
    if client is None or not _is_proved(client, presented.secret):
        gateway.failures.count(facts.address, time.time())
        return _WRONG
    return TokenEndpointRequest(client, parameters, actor_of("client", client.id, facts))


async def _parameters(request: Request) -> Parameters | OAuthRefusal:
    if request.url.query:
        # RFC 6749 §2.3.1: what is secret must not be where every log has it, so nothing is read from there.
        return OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, "parameters go into the body, and none into the query")
    pairs = await read_form(request)
    if isinstance(pairs, str):
        return OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, pairs)
    parameters = Parameters.of(pairs)
    if parameters.repeated is not None:
        return OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, "a parameter is there more than once")
    return parameters


def _presented(request: Request, parameters: Parameters) -> ClientCredentials | OAuthRefusal:
    given = request.headers.getlist("authorization")
    basics = [value for value in given if value[:6].lower() == "basic "]
    named, secret = parameters.get("client_id"), parameters.get("client_secret")
    if not given:
        return _WRONG if named is None else ClientCredentials(named, secret)
    if len(given) > 1 or not basics:
        return OAuthRefusal(OAuthErrorCode.INVALID_CLIENT, "the Authorization header is not one of Basic")
    if secret is not None:
        return OAuthRefusal(
            OAuthErrorCode.INVALID_REQUEST, "the client is authenticated twice: by its header and in the body"
        )
    basic = _decoded(basics[0][6:].strip())
    if basic is None:
        return OAuthRefusal(OAuthErrorCode.INVALID_CLIENT, "the Authorization header cannot be read")
    if named is not None and named != basic.id:
        return OAuthRefusal(OAuthErrorCode.INVALID_REQUEST, "client_id is another one than in the header")
    return basic


def _decoded(text: str) -> ClientCredentials | None:
    """Return id and secret, each form-encoded before it was put together (RFC 6749 §2.3.1)."""
    try:
        name, colon, secret = b64decode(text, validate=True).decode("ascii").partition(":")
        return (
            ClientCredentials(unquote_plus(name, errors="strict"), unquote_plus(secret, errors="strict"))
            if colon
            else None
        )
    except (binascii.Error, ValueError):
        return None


def _is_proved(client: OAuthClient, secret: str | None) -> bool:
    if client.is_public:
        # A secret that a public client sends is no secret, and whoever relies on it should find out.
        return not secret
    return secret is not None and client.accepts_secret(secret, time.time())
