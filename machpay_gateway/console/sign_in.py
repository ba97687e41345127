"""Signing in with email and password, and signing out: the same session as on the authorization server's pages."""

import re
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from machpay_gateway.console.forms import Form, parse_form
from machpay_gateway.console.pages import ConsolePages, redirect
from machpay_gateway.core.accounts.user import User
from machpay_gateway.core.network.address import format_address_or_none
from machpay_gateway.gateway import Gateway
from machpay_gateway.services.users import BrowserSession, NotSignedIn, SignedIn
from machpay_gateway.settings.console import ConsoleSettings
from machpay_gateway.web.browser import (
    CLEAR_SITE_DATA,
    COOKIE_MISSING,
    Cookie,
    csrf_token,
    is_valid_csrf_token,
    random_value,
    set_sign_in_cookies,
)
from machpay_gateway.web.request_facts import actor_of, facts_of

SIGN_IN, SIGN_OUT = "/sign-in", "/sign-out"
_MAX_PASS = 256  # characters of a sign-in pass
# Paths to return to after sign-in: Console pages only, nothing that a browser could take for another host.
_NEXT_PATH = re.compile(r"(?:/[A-Za-z0-9_-]+)+")


class SignInPages:
    """The pages to sign in and out, and the session of each request."""

    def __init__(self, gateway: Gateway, settings: ConsoleSettings) -> None:
        self._gateway = gateway
        self.pages = ConsolePages(settings, gateway.brand)
        # The authorization server uses the same cookies: on a shared host, one sign-in is enough.
        self._session = Cookie.of("session", is_secure=settings.is_secure)
        self._form = Cookie.of("form", is_secure=settings.is_secure)
        self._device = Cookie.of("device", is_secure=settings.is_secure)

    def read_session_cookie(self, request: Request) -> str:
        """Return the value of the session cookie, empty when there is none."""
        return self._session.read(request)

    async def load_session(self, request: Request, *, is_background: bool = False) -> BrowserSession | None:
        """Return the session of the browser. An *is_background* request does not extend it. Raises StoreUnavailable."""
        cookie = self.read_session_cookie(request)
        return await self._gateway.users.session(cookie, is_automatic=is_background) if cookie else None

    async def load_user(self, request: Request) -> User | None:
        """Return the signed-in user. Raises StoreUnavailable."""
        session = await self.load_session(request)
        return None if session is None else session.user

    async def sign_in(self, request: Request) -> Response:
        """Show the sign-in form, or sign in with what it submits."""
        if request.method == "POST":
            return await self._submit(request)
        if await self.load_user(request) is not None:
            return redirect(request, _next_path(request))
        return self._form_page(request)

    async def sign_out(self, request: Request) -> Response:
        """End the browser's session."""
        cookie, form = self.read_session_cookie(request), await parse_form(request)
        response = redirect(request, SIGN_IN)
        if is_valid_csrf_token(request, cookie, SIGN_OUT, b"", form.text("proof")):
            await self._gateway.users.sign_out(cookie, actor_of("user", "", facts_of(request.scope)))
            self._session.drop(response)
            response.headers["Clear-Site-Data"] = CLEAR_SITE_DATA
        return response

    async def _submit(self, request: Request) -> Response:
        form = await parse_form(request)
        if not is_valid_csrf_token(request, self._form.read(request), SIGN_IN, b"", form.text("proof")):
            # Another tab may have signed in since. The submitted values are ignored, so that they cannot switch users.
            if await self.load_user(request) is not None:
                return redirect(request, _next_path(request))
            return self._form_page(request, form, error=COOKIE_MISSING)
        result = await self._authenticate(request, form)
        if isinstance(result, NotSignedIn):
            return self._form_page(request, form, error=result.message, status=result.status)
        # The new session replaces the one that this browser had.
        await self._gateway.users.sign_out(
            self.read_session_cookie(request), actor_of("user", "", facts_of(request.scope))
        )
        # 303: the browser must not send the password on to the next page (RFC 9700 §4.12).
        response = redirect(request, _next_path(request))
        self._form.drop(response)
        set_sign_in_cookies(response, result.cookie, result.device, is_secure=self.pages.settings.is_secure)
        return response

    async def _authenticate(self, request: Request, form: Form) -> SignedIn | NotSignedIn:
        facts = facts_of(request.scope)
        return await self._gateway.users.sign_in(
            form.text("email"),
            form.text("password"),
            address=facts.address,
            display_address=format_address_or_none(facts.address),
            device=self._device.raw(request),
            sign_in_pass=form.text("pass"),
            request_id=facts.request_id.decode(),
        )

    def _form_page(
        self, request: Request, form: Form | None = None, *, error: str = "", status: int = HTTPStatus.OK
    ) -> Response:
        cookie = self._form.read(request) or random_value()
        values = {
            "error": error,
            "email": "" if form is None else form.text("email"),
            "next": _next_path(request),
            "pass": (request.query_params.get("pass", "") if form is None else form.text("pass"))[:_MAX_PASS],
            "csrf_token": csrf_token(cookie, SIGN_IN, b""),
        }
        response = self.pages.render(request, "sign_in.html", values, status=status)
        self._form.put(response, cookie)
        return response


def _next_path(request: Request) -> str:
    """Return the path to continue at after sign-in, always one of the Console's."""
    path = request.query_params.get("next", "")
    return path if _NEXT_PATH.fullmatch(path) else "/keys"
