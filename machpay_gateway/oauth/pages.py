"""The pages of the authorization server."""

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from starlette.responses import Response

from machpay_gateway.core.accounts.user import User
from machpay_gateway.core.oauth.authorization_request import AuthorizationRequest
from machpay_gateway.core.oauth.redirect_uri import origin_source
from machpay_gateway.core.oauth.scope_descriptions import describe_scope
from machpay_gateway.core.oauth.settings import CONSENT, SIGN_IN, SIGN_OUT, OAuthSettings
from machpay_gateway.web.browser import csrf_token
from machpay_gateway.web.templates import Pages

_TEMPLATES = Path(__file__).with_name("templates")


class OAuthPages:
    """Makes pages for users of *settings*."""

    def __init__(self, settings: OAuthSettings) -> None:
        self._pages = Pages(_TEMPLATES)
        self._settings = settings

    def sign_in(
        self, request: AuthorizationRequest, cookie: str, query: bytes, *, told: str, email: str, status: int
    ) -> Response:
        """Return the page that asks for e-mail and password; *told* is what went wrong before."""
        values = {
            **_app(request),
            "told": told,
            "email": email,
            "action": self._action(SIGN_IN, query),
            "proof": csrf_token(cookie, SIGN_IN, query),
        }
        return self._page("sign_in.html", values, request, status=status)

    def consent(self, request: AuthorizationRequest, user: User, cookie: str, query: bytes) -> Response:
        """Return the page that asks whether the app may do what it asks for."""
        values = {
            **_app(request),
            "is_test": request.client.environment == "test",
            "email": user.email,
            "account": user.account_id,
            "scopes": [(name, describe_scope(name)) for name in request.scopes],
            "resources": [name for name in request.resources if name != self._settings.audience],
            "action": self._action(CONSENT, query),
            "sign_out": self._action(SIGN_OUT, query),
            "proof": csrf_token(cookie, CONSENT, query),
        }
        return self._page("consent.html", values, request)

    def error(self, told: str, *, status: int = HTTPStatus.BAD_REQUEST) -> Response:
        """Return the page that tells a user what the app did wrong, or we."""
        return self._pages.page("error.html", {"told": told}, status=status, is_secure=self._settings.is_secure)

    def _page(
        self, name: str, values: Mapping[str, object], request: AuthorizationRequest, *, status: int = HTTPStatus.OK
    ) -> Response:
        return self._pages.page(
            name,
            values,
            status=status,
            sends_to=origin_source(request.back.redirect_uri),
            is_secure=self._settings.is_secure,
        )

    def _action(self, path: str, query: bytes) -> str:
        return f"{self._settings.path}{path}?{query.decode('ascii')}"


def _app(request: AuthorizationRequest) -> Mapping[str, object]:
    """Return what pages say of the app: its name as it gave it, and *host*, where the user is sent."""
    return {
        "app": request.client.name,
        "is_self_registered": request.client.is_self_registered,
        "host": origin_source(request.back.redirect_uri),
    }
