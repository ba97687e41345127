"""The checks before every page: authentication, CSRF token, role, and the confirmation of the password."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from machpay_gateway.console.confirmation import confirmation_page
from machpay_gateway.console.forms import Form, parse_form
from machpay_gateway.console.page_request import PageError, PageRequest, not_found
from machpay_gateway.console.pages import base_path, console_path, redirect
from machpay_gateway.console.sign_in import SIGN_IN, SignInPages
from machpay_gateway.core.accounts.management import ManagementAction, may_manage
from machpay_gateway.core.errors import NotPermitted, Unavailable
from machpay_gateway.gateway import Gateway
from machpay_gateway.web.browser import is_valid_csrf_token

Handler = Callable[[PageRequest], Awaitable[Response]]
HttpHandler = Callable[[Request], Awaitable[Response]]

_BACKGROUND_HEADER = "x-machpay-automatic"  # marks the requests that a page makes by itself
_CSRF_FAILED = "This page has expired, or the form was opened by another site. Go back, reload the page, and try again."
_UNAVAILABLE = "The Console is temporarily unavailable. Try again in a moment."


@dataclass(frozen=True, slots=True)
class Page:
    """One *method* of one *path* below the Console, and its *handler*. Viewers may submit it if *allows_viewers*.

    *confirms_password* asks for the password again unless it was entered recently. An *is_background* page is polled
    by scripts: it does not count as use of the session.
    """

    method: str
    path: str
    handler: Handler
    allows_viewers: bool = False
    confirms_password: bool = False
    is_background: bool = False


class Guard:
    """Wraps handlers so that only requests that pass all checks reach them."""

    def __init__(self, gateway: Gateway, sign_in: SignInPages, clock: Callable[[], float]) -> None:
        self._gateway = gateway
        self._sign_in = sign_in
        self._clock = clock

    def endpoint(self, pages: Mapping[str, Page]) -> HttpHandler:
        """Return the endpoint of one path, with its *pages* by method."""

        async def handle(request: Request) -> Response:
            page = pages["GET" if request.method == "HEAD" else request.method]
            page_request = await self._authenticate(request, page)
            if page_request is None:
                return self._to_sign_in(request)
            if page.method == "POST":
                await self._authorize(page_request, page)
            if page.confirms_password and (confirmation := await confirmation_page(page_request)):
                return confirmation
            return await page.handler(page_request)

        return self.with_error_pages(handle)

    def with_error_pages(self, handler: HttpHandler) -> HttpHandler:
        """Return *handler* with expected errors answered by a page."""

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except PageError as exc:
                status, message = exc.status, exc.message
            except NotPermitted as exc:
                status, message = HTTPStatus.FORBIDDEN, str(exc)
            except Unavailable:
                status, message = HTTPStatus.SERVICE_UNAVAILABLE, _UNAVAILABLE
            return self._sign_in.pages.render(request, "error.html", {"message": message}, status=status)

        return handle

    async def unknown_path(self, request: Request) -> Response:
        """Respond 404 to signed-in users. Others are asked to sign in, and do not learn which paths exist."""
        if await self._sign_in.load_user(request) is None:
            return self._to_sign_in(request)
        raise not_found("Page")

    async def _authenticate(self, request: Request, page: Page) -> PageRequest | None:
        """Return the request with its user, None when nobody is signed in."""
        cookie = self._sign_in.read_session_cookie(request)
        # The body is read before the session is loaded: a user who is disabled while a slow body arrives is refused.
        form = await parse_form(request) if cookie and page.method == "POST" else Form()
        is_background = page.is_background or _BACKGROUND_HEADER in request.headers
        session = await self._sign_in.load_session(request, is_background=is_background)
        if session is None:
            return None
        account = await self._gateway.accounts.find(session.user.account_id)
        assert account is not None  # noqa: S101 - every user belongs to an account, and accounts are never deleted
        return PageRequest(self._gateway, self._sign_in.pages, request, session, account, cookie, form, self._clock())

    async def _authorize(self, request: PageRequest, page: Page) -> None:
        """Check the CSRF token and the role. Raises PageError, and records the refusal in the audit log."""
        if not is_valid_csrf_token(request.http, request.cookie, request.path, b"", request.form.text("proof")):
            reason, message = "invalid CSRF token", _CSRF_FAILED
        elif not page.allows_viewers and (refusal := may_manage(request.actor, ManagementAction.CHANGE)):
            reason, message = "not an admin", refusal.detail
        else:
            return
        await self._gateway.users.record_refusal(request.user, request.actor, reason, request.path)
        raise PageError(HTTPStatus.FORBIDDEN, message)

    def _to_sign_in(self, request: Request) -> Response:
        """Redirect to the sign-in page, and from there back to the page of this request."""
        base, page_path, is_htmx = base_path(request), console_path(request), "hx-request" in request.headers
        if is_htmx:  # a fragment is not a page of its own: return to the page that contains it
            page_path = _url_path(request.headers.get("hx-current-url", "")).removeprefix(base)
        path = SIGN_IN + (f"?next={quote(page_path, safe='/')}" if request.method == "GET" else "")
        if is_htmx:  # a plain redirect would put the sign-in page inside the current one
            return Response(status_code=HTTPStatus.NO_CONTENT, headers={"HX-Redirect": f"{base}{path}"})
        return redirect(request, path)


def _url_path(url: str) -> str:
    """Return the path of *url*, empty for an invalid URL: clients choose the header that it comes from."""
    try:
        return urlsplit(url).path
    except ValueError:
        return ""
