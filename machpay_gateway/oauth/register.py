"""Clients that register themselves (RFC 7591), where an operator lets them: for an account that was named for it."""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from machpay_gateway.assembly import Gateway
from machpay_gateway.core.errors import InputError, Unavailable
from machpay_gateway.core.oauth.client import AUTHORIZATION_CODE, Client
from machpay_gateway.core.oauth.problem import Code, Refused
from machpay_gateway.core.oauth.redirect import RedirectError
from machpay_gateway.oauth.answers import json_answer, refused_answer
from machpay_gateway.oauth.clients import METHODS
from machpay_gateway.web.bodies import whole_body
from machpay_gateway.web.incoming import actor_of, facts_of

_MAX_BYTES = 16 * 1024


def registration_endpoint(gateway: Gateway) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint at which clients register. They get no scope that is not given to apps, and no other type."""

    async def register(request: Request) -> Response:
        asked = await _metadata_of(request)
        if isinstance(asked, Refused):
            return refused_answer(asked)
        try:
            return await _registered(gateway, request, asked)
        except RedirectError as exc:
            return refused_answer(Refused(Code.INVALID_REDIRECT_URI, str(exc)))
        except InputError as exc:
            return refused_answer(Refused(Code.INVALID_CLIENT_METADATA, str(exc)))
        except Unavailable:
            return refused_answer(Refused(Code.TEMPORARILY_UNAVAILABLE, "the database did not answer", 1.0))

    return register


async def _registered(gateway: Gateway, request: Request, asked: Mapping[str, Any]) -> Response:
    account = await gateway.accounts.find(gateway.issuing.authority.registration_account or "")
    if account is None:
        return refused_answer(Refused(Code.TEMPORARILY_UNAVAILABLE, "the account for registered clients is not there"))
    method = asked.get("token_endpoint_auth_method", METHODS[0])
    if method not in METHODS:
        raise InputError(f"token_endpoint_auth_method is one of {', '.join(METHODS)}.")
    scope = _text(asked, "scope")
    client, secret = await gateway.apps.create(
        account.id,
        name=_text(asked, "client_name") or "An app without a name",
        scopes=sorted(gateway.apps.grantable) if scope is None else scope.split(),
        redirect_uris=_texts(asked, "redirect_uris") or (),
        grant_types=_texts(asked, "grant_types") or (AUTHORIZATION_CODE,),
        is_public=method == "none",
        binds_tokens=asked.get("dpop_bound_access_tokens") is True,
        actor=actor_of("client", "", facts_of(request.scope)),
    )
    return json_answer(_described(client, secret, method), HTTPStatus.CREATED)


def _described(client: Client, secret: str | None, method: str) -> dict[str, Any]:
    return {
        "client_id": client.id,
        "client_secret": secret,
        "client_id_issued_at": int(client.created_at),
        "client_secret_expires_at": None if secret is None else 0,
        "client_name": client.name,
        "redirect_uris": list(client.redirect_uris),
        "grant_types": list(client.grant_types),
        "response_types": ["code"] if AUTHORIZATION_CODE in client.grant_types else [],
        "token_endpoint_auth_method": method,
        "scope": str(client.scopes),
        "dpop_bound_access_tokens": client.binds_tokens,
    }


async def _metadata_of(request: Request) -> Mapping[str, Any] | Refused:
    try:
        body = await whole_body(request, _MAX_BYTES)
        if body is None:
            return Refused(Code.INVALID_CLIENT_METADATA, f"the body is over {_MAX_BYTES} bytes")
        asked = orjson.loads(body)
    except (ClientDisconnect, orjson.JSONDecodeError):
        return Refused(Code.INVALID_CLIENT_METADATA, "the body is not JSON")
    if not isinstance(asked, dict):
        return Refused(Code.INVALID_CLIENT_METADATA, "the body is not a JSON object")
    kinds = asked.get("response_types", ["code"])
    if kinds not in (["code"], []):
        return Refused(Code.INVALID_CLIENT_METADATA, "response_types is code, and nothing else")
    return asked


def _text(asked: Mapping[str, Any], name: str) -> str | None:
    value = asked.get(name)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name} is not a text.")
    return value


def _texts(asked: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    value = asked.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{name} is not a list of texts.")
    return tuple(value)
