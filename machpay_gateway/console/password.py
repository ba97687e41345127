"""The page on which users change their own password. Everybody has one, viewers too."""

from http import HTTPStatus

from starlette.responses import Response

from machpay_gateway.console.forms import FieldErrors
from machpay_gateway.console.page_request import PageRequest
from machpay_gateway.core.accounts.user import MIN_PASSWORD
from machpay_gateway.core.errors import InputError
from machpay_gateway.services.users import NotSignedIn
from machpay_gateway.web.browser import put_sign_in
from machpay_gateway.web.incoming import facts_of


async def show(visit: PageRequest) -> Response:
    """Show the form."""
    return _page(visit, FieldErrors())


async def change(visit: PageRequest) -> Response:
    """Change the password, if the current one is right, and end every other session (ASVS 5.0 6.2.3, 7.2.4)."""
    mistakes, form = FieldErrors(), visit.form
    with mistakes.of("again"):
        if form.text("again") != form.text("new"):
            raise InputError("It differs from the new password.")
    if mistakes:
        return _page(visit, mistakes, HTTPStatus.UNPROCESSABLE_ENTITY)
    try:
        changed = await visit.gateway.users.change_password(
            visit.session,
            form.text("current"),
            form.text("new"),
            address=facts_of(visit.request.scope).address,
            actor=visit.actor,
        )
    except InputError as exc:
        return _page(visit, FieldErrors({"new": str(exc)}), HTTPStatus.UNPROCESSABLE_ENTITY)
    if isinstance(changed, NotSignedIn):
        return _page(visit, FieldErrors({"current": changed.about_own_password}), changed.status)
    response = visit.redirect("/sessions", told="password-changed")
    put_sign_in(response, changed.cookie, changed.device, is_secure=visit.pages.settings.is_secure)
    return response


def _page(visit: PageRequest, mistakes: FieldErrors, status: int = HTTPStatus.OK) -> Response:
    return visit.page("password.html", status, mistakes=mistakes, least=MIN_PASSWORD)
