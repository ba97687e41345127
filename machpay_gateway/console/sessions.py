"""The page on a user's own sessions. Viewers have it too."""

from starlette.responses import Response

from machpay_gateway.console.page_request import PageRequest, not_found
from machpay_gateway.console.pages import base_path
from machpay_gateway.console.sign_in import SIGN_IN
from machpay_gateway.core.accounts.device import PASS_SECONDS
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, digest_of

_MAX_LISTED = 100  # users with more can sign out all others at once


async def index(request: PageRequest) -> Response:
    """List the user's sessions, newest first."""
    own_digest = digest_of(OpaqueTokenKind.BROWSER, request.cookie)
    sign_ins = await request.gateway.users.sign_ins(request.user)
    return request.render(
        "sessions.html",
        sign_ins=sign_ins[:_MAX_LISTED],
        this=next((each.name for each in sign_ins if each.digest == own_digest), ""),
        omitted=max(len(sign_ins) - _MAX_LISTED, 0),
        has_others=len(sign_ins) > 1,
    )


async def end(request: PageRequest) -> Response:
    """Sign out one session."""
    if not await request.gateway.users.end_sign_in(request.user, request.id, request.actor):
        raise not_found("Session")
    return request.redirect("/sessions", message="session-ended")


async def end_others(request: PageRequest) -> Response:
    """Sign out every session but this one."""
    await request.gateway.users.end_other_sign_ins(request.user, request.cookie, request.actor)
    return request.redirect("/sessions", message="sessions-ended")


async def create_pass(request: PageRequest) -> Response:
    """Show a link that lets a new browser sign in while others use up the attempts for this user."""
    sign_in_pass = await request.gateway.users.make_pass(request.user, request.actor)
    url = f"{request.pages.settings.url}{base_path(request.http)}{SIGN_IN}?pass={sign_in_pass}"
    return request.render("sign_in_pass.html", url=url, minutes=PASS_SECONDS // 60)
