"""The page on where a user is signed in, and how each of these ends. Everybody has their own, viewers too."""

from starlette.responses import Response

from machpay_gateway.console.page_request import PageRequest, missing
from machpay_gateway.console.pages import base_path
from machpay_gateway.console.sign_in import SIGN_IN
from machpay_gateway.core.accounts.device import PASS_SECONDS
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, digest_of

_SHOWN = 100  # a user who has more ends all others at once


async def table(visit: PageRequest) -> Response:
    """Show the browsers that the user is signed in by, newest first."""
    here, found = digest_of(OpaqueTokenKind.BROWSER, visit.cookie), await visit.gateway.users.sign_ins(visit.user)
    return visit.page(
        "sessions.html",
        sign_ins=found[:_SHOWN],
        this=next((each.name for each in found if each.digest == here), ""),
        left_out=max(len(found) - _SHOWN, 0),
        has_others=len(found) > 1,
    )


async def end(visit: PageRequest) -> Response:
    """End one of them."""
    if not await visit.gateway.users.end_sign_in(visit.user, visit.id, visit.actor):
        raise missing("session")
    return visit.redirect("/sessions", told="session-ended")


async def make_pass(visit: PageRequest) -> Response:
    """Show an address by which the user signs in elsewhere though strangers keep trying their password."""
    made = await visit.gateway.users.make_pass(visit.user, visit.actor)
    address = f"{visit.pages.settings.url}{base_path(visit.request)}{SIGN_IN}?pass={made}"
    return visit.page("sign_in_pass.html", address=address, minutes=PASS_SECONDS // 60)


async def end_others(visit: PageRequest) -> Response:
    """End all but the one that this is done by."""
    await visit.gateway.users.end_other_sign_ins(visit.user, visit.cookie, visit.actor)
    return visit.redirect("/sessions", told="sessions-ended")
