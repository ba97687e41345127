"""Asking for the password again before a secret is shown: an unattended browser must not be enough to get one.

The page carries the submitted fields along as hidden fields, with `once` among them, so that the confirmed form is the
same submission and issues one secret at most.
"""

from http import HTTPStatus

from starlette.responses import Response

from machpay_gateway.console.page_request import PageRequest
from machpay_gateway.services.users import NotSignedIn

_FIELD = "confirm_password"
_NOT_REPEATED = frozenset({_FIELD, "proof"})


async def confirmation_page(request: PageRequest) -> Response | None:
    """Return the page that asks for the password; None if it was entered recently, or is right in this form."""
    seconds = request.pages.settings.confirm_minutes * 60
    if not seconds or request.now - request.session.sign_in.last_confirmed_at < seconds:
        return None
    if not any(name == _FIELD for name, _ in request.form.pairs):
        return _page(request)
    refusal = await request.gateway.users.confirm(request.session, request.form.text(_FIELD), request.actor)
    return None if refusal is None else _page(request, refusal)


def _page(request: PageRequest, refusal: NotSignedIn | None = None) -> Response:
    return request.render(
        "confirm.html",
        HTTPStatus.OK if refusal is None else refusal.status,
        path=request.path,
        cancel_path=request.path.rpartition("/")[0],
        field=_FIELD,
        fields=[(name, value) for name, value in request.form.pairs if name not in _NOT_REPEATED],
        error="" if refusal is None else refusal.about_own_password,
    )
