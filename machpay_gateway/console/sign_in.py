"""The way in and out: by e-mail and password, as on the sign-in page of the authorization server."""

import re
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from machpay_gateway.console.forms import Form, parse_form
from machpay_gateway.console.pages import ConsolePages, redirect
from machpay_gateway.core.accounts.user import User
from machpay_gateway.core.network.address import format_address_or_none
from machpay_gateway.gateway import Gateway
from machpay_gateway.services.users import BrowserSession, NotSignedIn
from machpay_gateway.settings.console import ConsoleSettings
from machpay_gateway.web.browser import CLEARED, LOST, Cookie, fresh_value, is_proved, proof_of, put_sign_in
from machpay_gateway.web.incoming import actor_of, facts_of

SIGN_IN, SIGN_OUT = "/sign-in", "/sign-out"
_LONGEST_PASS = 256  # characters of a sign-in pass
# Where to go on: a page of ours, and nothing that a browser could take for another host.
_NEXT = re.compile(r"(?:/[A-Za-z0-9_-]+)+")


class SignInPages:
    """Finds out who is signed in, and signs in and out."""

    def __init__(self, gateway: Gateway, settings: ConsoleSettings) -> None:
        self._gateway = gateway
        self.pages = ConsolePages(settings)
        # The same as the authorization server's: on one host, signed in once is signed in.
        self._session = Cookie.of("session", is_secure=settings.is_secure)
        self._form = Cookie.of("form", is_secure=settings.is_secure)
        self._device = Cookie.of("device", is_secure=settings.is_secure)

    def cookie_of(self, request: Request) -> str:
        """Return what the browser is known by, nothing for nothing."""
        return self._session.read(request)

    async def session_of(self, request: Request, *, is_automatic: bool = False) -> BrowserSession | None:
        """Return who is signed in, whose session a request *is_automatic* does not keep up. Raises StoreUnavailable."""
        cookie = self.cookie_of(request)
        return await self._gateway.users.session(cookie, is_automatic=is_automatic) if cookie else None

    async def user_of(self, request: Request) -> User | None:
        """Return who is signed in. Raises StoreUnavailable."""
        session = await self.session_of(request)
        return None if session is None else session.user

    async def sign_in(self, request: Request) -> Response:
        """Ask for e-mail and password, or take them."""
        if request.method != "POST":
            signed_in = await self.user_of(request)
            return self._asked(request) if signed_in is None else redirect(request, _checked_next(request))
        form = await parse_form(request)
        if not is_proved(request, self._form.read(request), SIGN_IN, b"", form.text("proof")):
            # Signed in by another tab meanwhile: nothing that was sent is looked at, so that nobody is swapped in.
            if await self.user_of(request) is not None:
                return redirect(request, _checked_next(request))
            return self._asked(request, form, told=LOST)
        facts = facts_of(request.scope)
        found = await self._gateway.users.sign_in(
            form.text("email"),
            form.text("password"),
            address=facts.address,
            shown_address=format_address_or_none(facts.address),
            device=self._device.raw(request),
            sign_in_pass=form.text("pass"),
            request_id=facts.request_id.decode(),
        )
        if isinstance(found, NotSignedIn):
            return self._asked(request, form, told=found.told, status=found.status)
        # The new session takes the place of the one that this browser had.
        await self._gateway.users.sign_out(self.cookie_of(request), actor_of("user", "", facts))
        # 303: the browser must not send the password on to where it goes next (RFC 9700 §4.12).
        response = redirect(request, _checked_next(request))
        self._form.drop(response)
        put_sign_in(response, found.cookie, found.device, is_secure=self.pages.settings.is_secure)
        return response

    async def sign_out(self, request: Request) -> Response:
        """End the browser's sign-in."""
        cookie, form = self.cookie_of(request), await parse_form(request)
        response = redirect(request, SIGN_IN)
        if is_proved(request, cookie, SIGN_OUT, b"", form.text("proof")):
            await self._gateway.users.sign_out(cookie, actor_of("user", "", facts_of(request.scope)))
            self._session.drop(response)
            response.headers["Clear-Site-Data"] = CLEARED
        return response

    def _asked(
        self, request: Request, form: Form | None = None, *, told: str = "", status: int = HTTPStatus.OK
    ) -> Response:
        cookie = self._form.read(request) or fresh_value()
        values = {
            "told": told,
            "email": "" if form is None else form.text("email"),
            "next": _checked_next(request),
            "pass": (request.query_params.get("pass", "") if form is None else form.text("pass"))[:_LONGEST_PASS],
            "proof": proof_of(cookie, SIGN_IN, b""),
        }
        response = self.pages.page(request, "sign_in.html", values, status=status)
        self._form.put(response, cookie)
        return response


def _checked_next(request: Request) -> str:
    wanted = request.query_params.get("next", "")
    return wanted if _NEXT.fullmatch(wanted) else "/keys"
