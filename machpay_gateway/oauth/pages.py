"""The pages of the authorization server: sign-in, consent and error."""

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from starlette.responses import Response

from machpay_gateway.core.accounts.user import User
from machpay_gateway.core.brand import Brand
from machpay_gateway.core.oauth.authorization_request import AuthorizationRequest
from machpay_gateway.core.oauth.redirect_uri import origin_source
from machpay_gateway.core.oauth.scope_descriptions import describe_scope
from machpay_gateway.core.oauth.settings import CONSENT, SIGN_IN, SIGN_OUT, OAuthSettings
from machpay_gateway.web.browser import csrf_token
from machpay_gateway.web.templates import Pages

_TEMPLATES = Path(__file__).with_name("templates")


class OAuthPages:
    """Renders the pages of the authorization server."""

    def __init__(self, settings: OAuthSettings, brand: Brand, scope_descriptions: Mapping[str, str]) -> None:
        """Render by *settings*, under the name of *brand*. *scope_descriptions* say what scopes allow."""
        self._scope_descriptions = scope_descriptions
        self._pages = Pages(_TEMPLATES, brand=brand.name)
        self._settings = settings

    def sign_in(
        self, request: AuthorizationRequest, cookie: str, query: bytes, *, message: str, email: str, status: int
    ) -> Response:
        """Return the sign-in page; *message* says why the last attempt failed."""
        values = {
            **_client_values(request),
            "message": message,
            "email": email,
            "action": self._action(SIGN_IN, query),
            "csrf_token": csrf_token(cookie, SIGN_IN, query),
        }
        return self._page("sign_in.html", values, request, status=status)

    def consent(self, request: AuthorizationRequest, user: User, cookie: str, query: bytes) -> Response:
        """Return the page that asks *user* for consent."""
        values = {
            **_client_values(request),
            "is_test": request.client.environment == "test",
            "email": user.email,
            "account": user.account_id,
            "scopes": [(name, describe_scope(name, self._scope_descriptions)) for name in request.scopes],
            "resources": [name for name in request.resources if name != self._settings.audience],
            "action": self._action(CONSENT, query),
            "sign_out": self._action(SIGN_OUT, query),
            "csrf_token": csrf_token(cookie, CONSENT, query),
        }
        return self._page("consent.html", values, request)

    def error(self, message: str, *, status: int = HTTPStatus.BAD_REQUEST) -> Response:
        """Return the page for an error that is not sent to the client."""
        values = {"message": message}
        return self._pages.page("error.html", values, status=status, is_secure=self._settings.is_secure)

    def _page(
        self, name: str, values: Mapping[str, object], request: AuthorizationRequest, *, status: int = HTTPStatus.OK
    ) -> Response:
        return self._pages.page(
            name,
            values,
            status=status,
            sends_to=origin_source(request.target.redirect_uri),
            is_secure=self._settings.is_secure,
        )

    def _action(self, path: str, query: bytes) -> str:
        return f"{self._settings.path}{path}?{query.decode('ascii')}"


def _client_values(request: AuthorizationRequest) -> Mapping[str, object]:
    """Return what pages show of the client: its name as registered and *host*, where the user is redirected to."""
    return {
        "app": request.client.name,
        "is_self_registered": request.client.is_self_registered,
        "host": origin_source(request.target.redirect_uri),
    }
