"""Answers to apps: JSON that no cache keeps, and refusals with OAuth's codes (RFC 6749 §5)."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

from machpay_gateway.core.decision.problem import REALM, whole_seconds
from machpay_gateway.core.oauth.error import OAuthErrorCode, OAuthRefusal

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}  # RFC 6749 §5.1 asks for both


def json_answer(document: Mapping[str, Any], status: int = HTTPStatus.OK, **headers: str) -> Response:
    """Return *document*; members that are None are left out."""
    content = orjson.dumps({name: value for name, value in document.items() if value is not None})
    return Response(content, status, NO_STORE | headers, "application/json")


def refused_answer(refused: OAuthRefusal) -> Response:
    """Return what is told to an app that gets nothing."""
    headers: dict[str, str] = {}
    if refused.code is OAuthErrorCode.INVALID_CLIENT:
        # §5.2, RFC 7617 §2.1. The code is there once more, as clients that find a challenge look no further.
        headers["WWW-Authenticate"] = f'Basic realm="{REALM}", charset="UTF-8", error="{refused.code}"'
    if refused.code is OAuthErrorCode.INVALID_TOKEN:
        headers["WWW-Authenticate"] = f'Bearer realm="{REALM}", error="{refused.code}"'
    if refused.retry_after is not None:
        headers["Retry-After"] = str(whole_seconds(refused.retry_after))
    return json_answer({"error": refused.code, "error_description": refused.description}, refused.status, **headers)
