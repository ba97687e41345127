"""The page of the user's own sessions. All roles can use it, including viewers."""

from starlette.responses import Response

from machpay_gateway.console.page_request import PageRequest, not_found
from machpay_gateway.console.pages import base_path
from machpay_gateway.console.sign_in import SIGN_IN
from machpay_gateway.core.accounts.device import PASS_SECONDS
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, digest_of

_MAX_LISTED = 100  # with more sessions, users can sign out all others at once


async def index(request: PageRequest) -> Response:
    """Return the page of the user's sessions, newest first."""
    current_digest = digest_of(OpaqueTokenKind.BROWSER, request.cookie)
    sign_ins = await request.gateway.users.sign_ins(request.user)
    return request.render(
        "sessions.html",
        sign_ins=sign_ins[:_MAX_LISTED],
        current_name=next((sign_in.name for sign_in in sign_ins if sign_in.digest == current_digest), ""),
        omitted_count=max(len(sign_ins) - _MAX_LISTED, 0),
        has_others=len(sign_ins) > 1,
    )


async def sign_out_session(request: PageRequest) -> Response:
    """Sign out one session, and redirect to the list."""
    if not await request.gateway.users.end_sign_in(request.user, request.id, request.actor):
        raise not_found("Session")
    return request.redirect("/sessions", message="session-ended")


async def sign_out_others(request: PageRequest) -> Response:
    """Sign out all sessions except the current one, and redirect to the list."""
    await request.gateway.users.end_other_sign_ins(request.user, request.cookie, request.actor)
    return request.redirect("/sessions", message="sessions-ended")


async def create_pass(request: PageRequest) -> Response:
    """Return the page with a sign-in link that gives a new browser the attempt limit of a known one."""
    sign_in_pass = await request.gateway.users.create_sign_in_pass(request.user, request.actor)
    url = f"{request.pages.settings.url}{base_path(request.http)}{SIGN_IN}?pass={sign_in_pass}"
    return request.render("sign_in_pass.html", url=url, minutes=PASS_SECONDS // 60)
