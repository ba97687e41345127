"""Dynamic client registration (RFC 7591), where `registration_account` names the account that owns such clients.

Anybody may call this endpoint. A refused request therefore stores nothing, neither a client nor an audit entry, and
adds only to the limiter's count for its own address block.
"""

import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from http import HTTPStatus
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from machpay_gateway.core.errors import InputError, Unavailable
from machpay_gateway.core.limits.admission import AdmissionRequest, Exceeded, LimiterUnavailable, take_and_release
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.network.address import block_name
from machpay_gateway.core.oauth.client import AUTHORIZATION_CODE, OAuthClient
from machpay_gateway.core.oauth.error import OAuthErrorCode, OAuthRefusal
from machpay_gateway.core.oauth.redirect_uri import RedirectError
from machpay_gateway.gateway import Gateway
from machpay_gateway.log_throttle import LogThrottle
from machpay_gateway.oauth.endpoints import AUTHENTICATION_METHODS
from machpay_gateway.oauth.responses import json_response, refusal_response
from machpay_gateway.web.bodies import read_limited_body
from machpay_gateway.web.request_facts import actor_of, facts_of

_MAX_BYTES = 16 * 1024
_FULL_SECONDS = 3600.0  # unused clients are removed once an hour

logger = logging.getLogger(__name__)

_REFUSED = "A registration of an OAuth client was refused: %s."


def registration_endpoint(gateway: Gateway) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint at which clients register. They act for users who consent, and never for themselves."""
    registration = _Registration(gateway)

    async def register(request: Request) -> Response:
        try:
            response = await registration.respond(request)
        except RedirectError as exc:
            response = OAuthRefusal(OAuthErrorCode.INVALID_REDIRECT_URI, str(exc))
        except InputError as exc:
            response = OAuthRefusal(OAuthErrorCode.INVALID_CLIENT_METADATA, str(exc))
        except Unavailable:
            response = OAuthRefusal(
                OAuthErrorCode.TEMPORARILY_UNAVAILABLE, "registration is temporarily unavailable", 1.0
            )
        return refusal_response(response, gateway.brand.realm) if isinstance(response, OAuthRefusal) else response

    return register


class _Registration:
    """Registers clients by the settings of *gateway*'s authorization server."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._settings = gateway.oauth_settings
        token = self._settings.registration_token
        self._token_digest = None if token is None else sha256(token.encode()).digest()
        self._throttle = LogThrottle(logger)

    async def respond(self, request: Request) -> Response | OAuthRefusal:
        """Register a client and return the response, or why it is refused. Raises InputError, Unavailable."""
        if self._token_digest is not None and "authorization" not in request.headers:
            realm = self._gateway.brand.realm
            refusal = OAuthRefusal(OAuthErrorCode.INVALID_TOKEN, "registration needs an initial access token")
            response = refusal_response(refusal, realm)
            # RFC 6750 §3.1: a request without credentials gets no error code in its challenge.
            response.headers["WWW-Authenticate"] = f'Bearer realm="{realm}"'
            return response
        # The token first: a caller without it must not use up the limit of others in its address block.
        if (refused := self._unauthorized(request) or await self._over_limit(request)) is not None:
            return refused
        metadata = await _read_metadata(request)
        return metadata if isinstance(metadata, OAuthRefusal) else await self._register(request, metadata)

    def _unauthorized(self, request: Request) -> OAuthRefusal | None:
        """Return why *request* may not register; None with the initial access token, or when none is needed (§3)."""
        if self._token_digest is None:
            return None
        address, failures = facts_of(request.scope).address, self._gateway.failures
        if wait := failures.wait(address, time.time()):
            return OAuthRefusal(OAuthErrorCode.SLOW_DOWN, "too many failures from this address", wait)
        headers = request.headers.getlist("authorization")
        scheme, _, token = headers[0].partition(" ")
        digest = sha256(token.strip(" ").encode("latin-1")).digest()
        is_right = hmac.compare_digest(digest, self._token_digest)
        if is_right and len(headers) == 1 and scheme.lower() == "bearer":
            return None
        failures.count(address, time.time())
        self._throttle.log(logging.WARNING, _REFUSED, "wrong initial access token")
        return OAuthRefusal(OAuthErrorCode.INVALID_TOKEN, "the initial access token is wrong")

    async def _over_limit(self, request: Request) -> OAuthRefusal | None:
        """Count a registration by the address block (IPv6: a /64); return the refusal when it is over the limit."""
        block = block_name(facts_of(request.scope).address)
        admission = AdmissionRequest(f"registration:{block}", 0, tier_plan(self._settings.registration_tier), 1)
        match await take_and_release(self._gateway.limiter.admit(admission)):
            case Exceeded(wait_seconds=wait):
                self._throttle.log(logging.WARNING, _REFUSED, "over registration_limit")
                return OAuthRefusal(OAuthErrorCode.SLOW_DOWN, "too many registrations from this address", wait)
            case LimiterUnavailable(detail):
                raise Unavailable(f"limit on registrations: {detail}")
        return None

    async def _register(self, request: Request, metadata: Mapping[str, Any]) -> Response | OAuthRefusal:
        gateway, settings = self._gateway, self._settings
        account = await gateway.accounts.find(settings.registration_account or "")
        if account is None:
            return OAuthRefusal(
                OAuthErrorCode.TEMPORARILY_UNAVAILABLE, "the account for registered clients does not exist"
            )
        method = metadata.get("token_endpoint_auth_method", AUTHENTICATION_METHODS[0])
        if method not in AUTHENTICATION_METHODS:
            raise InputError(f"token_endpoint_auth_method is one of {', '.join(AUTHENTICATION_METHODS)}.")
        scope = _text(metadata, "scope")
        allowed = set(settings.registration_scopes)
        await gateway.oauth_clients.remove_unused(settings.registration_days)
        registered = await gateway.oauth_clients.register(
            account.id,
            name=_text(metadata, "client_name") or "An app without a name",
            scopes=allowed if scope is None else allowed & set(scope.split()),
            redirect_uris=_texts(metadata, "redirect_uris") or (),
            grant_types=_texts(metadata, "grant_types") or (AUTHORIZATION_CODE,),
            is_public=method == "none",
            binds_tokens=metadata.get("dpop_bound_access_tokens") is True,
            max_clients=settings.registration_clients,
            actor=actor_of("client", "", facts_of(request.scope)),
        )
        if registered is None:
            self._throttle.log(logging.WARNING, _REFUSED, "registration_clients are registered")
            return OAuthRefusal(OAuthErrorCode.SLOW_DOWN, "too many clients are registered", _FULL_SECONDS)
        return json_response(_client_information(*registered, method), HTTPStatus.CREATED)


def _client_information(client: OAuthClient, secret: str | None, method: str) -> dict[str, Any]:
    return {
        "client_id": client.id,
        "client_secret": secret,
        "client_id_issued_at": int(client.created_at),
        "client_secret_expires_at": None if secret is None else 0,
        "client_name": client.name,
        "redirect_uris": list(client.redirect_uris),
        "grant_types": list(client.grant_types),
        "response_types": ["code"],
        "token_endpoint_auth_method": method,
        "scope": str(client.scopes),
        "dpop_bound_access_tokens": client.binds_tokens,
    }


async def _read_metadata(request: Request) -> Mapping[str, Any] | OAuthRefusal:
    try:
        body = await read_limited_body(request, _MAX_BYTES)
        if body is None:
            return OAuthRefusal(OAuthErrorCode.INVALID_CLIENT_METADATA, f"the body is over {_MAX_BYTES} bytes")
        metadata = orjson.loads(body)
    except (ClientDisconnect, orjson.JSONDecodeError):
        return OAuthRefusal(OAuthErrorCode.INVALID_CLIENT_METADATA, "the body is not JSON")
    if not isinstance(metadata, dict):
        return OAuthRefusal(OAuthErrorCode.INVALID_CLIENT_METADATA, "the body is not a JSON object")
    response_types = metadata.get("response_types", ["code"])
    if response_types not in (["code"], []):
        return OAuthRefusal(OAuthErrorCode.INVALID_CLIENT_METADATA, "response_types is code, and nothing else")
    return metadata


def _text(metadata: Mapping[str, Any], name: str) -> str | None:
    value = metadata.get(name)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name} is not a text.")
    return value


def _texts(metadata: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    value = metadata.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{name} is not a list of texts.")
    return tuple(value)
