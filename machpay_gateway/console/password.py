"""The page on which users change their own password. Viewers have it too."""

from http import HTTPStatus

from starlette.responses import Response

from machpay_gateway.console.forms import FieldErrors
from machpay_gateway.console.page_request import PageRequest
from machpay_gateway.core.accounts.user import MIN_PASSWORD
from machpay_gateway.core.errors import InputError
from machpay_gateway.services.users import NotSignedIn
from machpay_gateway.web.browser import set_sign_in_cookies
from machpay_gateway.web.request_facts import facts_of


async def show(request: PageRequest) -> Response:
    """Show the form."""
    return _page(request, FieldErrors())


async def update(request: PageRequest) -> Response:
    """Change the password if the current one is right, and end every other session (ASVS 5.0 6.2.3, 7.2.4)."""
    form = request.form
    if form.text("again") != form.text("new"):
        errors = FieldErrors({"again": "The passwords do not match."})
        return _page(request, errors, HTTPStatus.UNPROCESSABLE_ENTITY)
    try:
        result = await request.gateway.users.change_password(
            request.session,
            form.text("current"),
            form.text("new"),
            address=facts_of(request.http.scope).address,
            actor=request.actor,
        )
    except InputError as exc:
        return _page(request, FieldErrors({"new": str(exc)}), HTTPStatus.UNPROCESSABLE_ENTITY)
    if isinstance(result, NotSignedIn):
        return _page(request, FieldErrors({"current": result.about_own_password}), result.status)
    response = request.redirect("/sessions", message="password-changed")
    set_sign_in_cookies(response, result.cookie, result.device, is_secure=request.pages.settings.is_secure)
    return response


def _page(request: PageRequest, errors: FieldErrors, status: int = HTTPStatus.OK) -> Response:
    return request.render("password.html", status, errors=errors, min_length=MIN_PASSWORD)
