"""Asking for the password once more before a secret is made and shown: who sits there may have found the browser open.

What was sent stays in the page that asks, as hidden fields, and goes the same way again: its `once` value too, so that
nothing is issued twice.
"""

from http import HTTPStatus

from starlette.responses import Response

from machpay_gateway.console.page_request import PageRequest
from machpay_gateway.services.users import NotSignedIn

_FIELD = "confirm_password"
_NOT_KEPT = frozenset({_FIELD, "proof"})


async def confirmation_page(visit: PageRequest) -> Response | None:
    """Return the page that asks for the password; None when it was given lately, or just now and is right."""
    seconds = visit.pages.settings.confirm_minutes * 60
    if not seconds or visit.now - visit.session.sign_in.last_confirmed_at < seconds:
        return None
    if not any(name == _FIELD for name, _ in visit.form.pairs):
        return _page(visit)
    refused = await visit.gateway.users.confirm(visit.session, visit.form.text(_FIELD), visit.actor)
    return None if refused is None else _page(visit, refused)


def _page(visit: PageRequest, refused: NotSignedIn | None = None) -> Response:
    return visit.page(
        "confirm.html",
        HTTPStatus.OK if refused is None else refused.status,
        path=visit.path,
        back=visit.path.rpartition("/")[0],
        field=_FIELD,
        kept=[(name, value) for name, value in visit.form.pairs if name not in _NOT_KEPT],
        mistake="" if refused is None else refused.about_own_password,
    )
