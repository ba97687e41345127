"""A FastAPI dependency that returns the caller and requires scopes, which OpenAPI then documents.

Only FastAPI applications import this. It does not authenticate: MachPayAuth has done so before.
"""

from typing import Annotated

from machpay_gateway.extras import missing_extra

try:
    from fastapi import Depends, HTTPException, WebSocketException
    from fastapi.openapi.models import HTTPBearer
    from fastapi.requests import HTTPConnection
    from fastapi.security import SecurityScopes
    from fastapi.security.base import SecurityBase
except ModuleNotFoundError as exc:
    raise missing_extra("fastapi", "machpay_gateway.fastapi", str(exc.name)) from exc

from machpay_gateway.core.brand import MACHPAY
from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.decision.problem import PROBLEMS, challenge_for
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.scopes import missing_scopes, parse_scope_expression
from machpay_gateway.web.request_facts import refuse_instead

__all__ = ["current_principal"]


class _Bearer(SecurityBase):
    """The security scheme in OpenAPI. FastAPI's own HTTPBearer needs a Request, which a WebSocket does not have."""

    def __init__(self) -> None:
        self.model = HTTPBearer(description="A MachPay API key (`sk_live_…`, `sk_test_…`) or a signed token.")
        self.scheme_name = "MachPay"

    async def __call__(self) -> None:
        """Do nothing: MachPayAuth has checked the credential."""


async def current_principal(
    connection: HTTPConnection, security_scopes: SecurityScopes, _: Annotated[None, Depends(_Bearer())]
) -> Principal:
    """Return the caller: `Annotated[Principal, Security(current_principal, scopes=["skills:list"])]`.

    All these scopes are required, in addition to those of the route. A caller without credentials, as on a public
    route, is refused. Raises ConfigurationError when no MachPayAuth guards the application.
    """
    if "machpay" not in connection.scope:
        raise ConfigurationError("No MachPayAuth guards this application: app.add_middleware(MachPayAuth)")
    principal: Principal | None = connection.scope["machpay"]
    if principal is None:
        raise _refusal(connection, Denied(Reason.MISSING_CREDENTIALS, "the application requires a caller"))
    required = parse_scope_expression(security_scopes.scopes)
    if missing := missing_scopes(required, principal.scopes):
        detail = f"the application needs {required}"
        raise _refusal(connection, Denied(Reason.INSUFFICIENT_SCOPE, detail, principal=principal, missing=missing))
    return principal


def _refusal(connection: HTTPConnection, denied: Denied) -> HTTPException | WebSocketException:
    """Return the exception that ends the request; the middleware sends the response to *denied* in its place."""
    scope = connection.scope
    refuse_instead(scope, denied)
    row = PROBLEMS[denied.reason]
    if scope["type"] == "websocket":
        return WebSocketException(row.close_code, str(denied.reason))
    challenge = challenge_for(row, denied.missing, MACHPAY.realm).decode()
    return HTTPException(row.status, row.detail, {"WWW-Authenticate": challenge})
