"""Sessions: short-lived tokens that a key is exchanged for, to pass to less trusted code."""

from http import HTTPStatus
from os import urandom

from starlette.responses import Response

from machpay_gateway.admin.documents import document_response
from machpay_gateway.admin.problems import ProblemError
from machpay_gateway.admin.request import AdminRequest
from machpay_gateway.admin.requests import NewSession
from machpay_gateway.admin.responses import issued_session_document
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.jose.session import TYPE, session_claims
from machpay_gateway.core.keys.key import ENTROPY_BYTES, mint_id
from machpay_gateway.core.scopes import Scopes


async def create(call: AdminRequest) -> Response:
    """Create a session of the calling key."""
    principal, settings = call.caller.principal, call.body(NewSession)
    scopes = principal.scopes if settings.scopes is None else Scopes(frozenset(settings.scopes))
    token_id = mint_id("session", urandom(ENTROPY_BYTES))
    claims = session_claims(principal, scopes, seconds=settings.ttl_seconds, token_id=token_id, now=call.now)
    try:
        token = await call.gateway.signing.sign(claims, TYPE)
    except ConfigurationError as exc:
        raise ProblemError("unavailable", "No session can be issued now.") from exc  # the log says why
    document = issued_session_document(token_id, token, scopes, ttl_seconds=settings.ttl_seconds, now=call.now)
    return document_response(document, HTTPStatus.CREATED)
