"""Responses to OAuth clients: JSON that is not cached, and errors with OAuth's codes (RFC 6749 §5)."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

from machpay_gateway.core.decision.problem import whole_seconds
from machpay_gateway.core.oauth.error import OAuthErrorCode, OAuthRefusal

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}  # RFC 6749 §5.1 asks for both


def json_response(document: Mapping[str, Any], status: int = HTTPStatus.OK, **headers: str) -> Response:
    """Return *document* without the members that are None."""
    content = orjson.dumps({name: value for name, value in document.items() if value is not None})
    return Response(content, status, NO_STORE | headers, "application/json")


def refusal_response(refusal: OAuthRefusal, realm: str) -> Response:
    """Return *refusal* as an error response, with *realm* in its challenge."""
    headers: dict[str, str] = {}
    if refusal.code is OAuthErrorCode.INVALID_CLIENT:
        # §5.2, RFC 7617 §2.1. The code is repeated here: clients that read a challenge do not read the body.
        headers["WWW-Authenticate"] = f'Basic realm="{realm}", charset="UTF-8", error="{refusal.code}"'
    if refusal.code is OAuthErrorCode.INVALID_TOKEN:
        headers["WWW-Authenticate"] = f'Bearer realm="{realm}", error="{refusal.code}"'
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(whole_seconds(refusal.retry_after))
    return json_response({"error": refusal.code, "error_description": refusal.description}, refusal.status, **headers)
