"""The Console as an ASGI application: what there is, who may, and what every look goes through."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote, urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Endpoint

from machpay_gateway.console import audit, keys, oauth_clients, password, sessions, start, usage
from machpay_gateway.console.assets import Assets
from machpay_gateway.console.confirmation import confirmation_page
from machpay_gateway.console.forms import Form, parse_form
from machpay_gateway.console.page_request import PageError, PageRequest
from machpay_gateway.console.pages import ConsolePages, base_path, console_path, redirect
from machpay_gateway.console.sign_in import SIGN_IN, SignInPages
from machpay_gateway.core.accounts.management import ManagementAction, may_manage
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import NotPermitted, Unavailable
from machpay_gateway.core.oauth.page_hosts import CONSOLE_PATH
from machpay_gateway.gateway import Gateway
from machpay_gateway.web.browser import is_proved

# The gateway asks for no credential: who is signed in is found out here, by a cookie.
CONSOLE_ROUTES = (Route(f"* {CONSOLE_PATH}/{{rest:path}}", public=True),)

Look = Callable[[PageRequest], Awaitable[Response]]
_AUTOMATIC = "x-machpay-automatic"  # a header of what a page asks for by itself
_STALE = "This page is out of date, or was opened by another site. Go back, load it again, and repeat what you did."
_AWAY = "This does not work right now. Try again in a moment."


@dataclass(frozen=True, slots=True)
class Page:
    """What is at a *path* below the Console, by *method*. What is sent is for admins unless *for_all*.

    What *asks_password* is done for those only who gave theirs lately. What *is_automatic* is asked for by scripts
    while nobody does anything, and keeps no session from ending.
    """

    method: str
    path: str
    look: Look
    for_all: bool = False
    asks_password: bool = False
    is_automatic: bool = False


PAGES = (
    Page("GET", "/keys", keys.table),
    Page("GET", "/keys/new", keys.draft),
    Page("POST", "/keys/new", keys.create, asks_password=True),
    Page("GET", "/keys/{id}", keys.show),
    Page("POST", "/keys/{id}", keys.update),
    Page("POST", "/keys/{id}/rotate", keys.rotate, asks_password=True),
    Page("POST", "/keys/{id}/end-grace", keys.end_grace),
    Page("GET", "/keys/{id}/revoke", keys.ask_to_revoke),
    Page("POST", "/keys/{id}/revoke", keys.revoke),
    Page("GET", "/addresses", keys.check_addresses),
    Page("GET", "/usage", usage.show),
    Page("GET", "/usage.json", usage.document, is_automatic=True),
    Page("GET", "/usage.csv", usage.spreadsheet),
    Page("GET", "/apps", oauth_clients.table),
    Page("GET", "/apps/new", oauth_clients.draft),
    Page("POST", "/apps/new", oauth_clients.create, asks_password=True),
    Page("GET", "/apps/{id}", oauth_clients.show),
    Page("POST", "/apps/{id}", oauth_clients.update),
    Page("POST", "/apps/{id}/rotate", oauth_clients.rotate_secret, asks_password=True),
    Page("GET", "/apps/{id}/delete", oauth_clients.ask_to_delete),
    Page("POST", "/apps/{id}/delete", oauth_clients.delete),
    Page("POST", "/apps/{id}/grants/{grant}/end", oauth_clients.end_grant),
    Page("GET", "/redirects", oauth_clients.check_redirects),
    Page("GET", "/audit", audit.table),
    Page("GET", "/audit.csv", audit.export),
    Page("GET", "/start", start.show),
    Page("GET", "/password", password.show),
    Page("POST", "/password", password.change, for_all=True),  # which asks for the current one in any case
    Page("GET", "/sessions", sessions.table),
    Page("POST", "/sessions/{id}/end", sessions.end, for_all=True),
    Page("POST", "/sessions/pass", sessions.make_pass, for_all=True, asks_password=True),
    Page("POST", "/sessions/end-others", sessions.end_others, for_all=True),
)


def console_app(gateway: Gateway, *, clock: Callable[[], float] = time.time) -> Starlette:
    """Return the application that serves `CONSOLE_ROUTES` by *gateway*. *clock* is in seconds since the epoch."""
    settings = gateway.settings.console
    assert settings is not None  # noqa: S101 - nobody asks for it without
    doors = _Guard(gateway, SignInPages(gateway, settings), clock)
    places: dict[str, dict[str, Page]] = {}
    for place in PAGES:
        places.setdefault(place.path, {})[place.method] = place
    routes = [
        Endpoint(f"{CONSOLE_PATH}/static/{{name:path}}", Assets().answer, methods=["GET"]),
        Endpoint(f"{CONSOLE_PATH}{SIGN_IN}", doors.guarded(doors.entrance.sign_in), methods=["GET", "POST"]),
        Endpoint(f"{CONSOLE_PATH}/sign-out", doors.guarded(doors.entrance.sign_out), methods=["POST"]),
        *(
            Endpoint(f"{CONSOLE_PATH}{path}", doors.guarded(doors.to(by_method)), methods=list(by_method))
            for path, by_method in places.items()
        ),
        *(Endpoint(path, doors.guarded(_home), methods=["GET"]) for path in (CONSOLE_PATH, f"{CONSOLE_PATH}/")),
        Endpoint(f"{CONSOLE_PATH}/{{rest:path}}", doors.guarded(doors.nothing_here)),
    ]
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False
    return app


def _path_in(url: str) -> str:
    """Return the path of *url*, nothing for what is no URL: anybody may have written it."""
    try:
        return urlsplit(url).path
    except ValueError:
        return ""


async def _home(request: Request) -> Response:
    return redirect(request, "/keys")


class _Guard:
    """Lets those in who are signed in, and turns away what does not come from a page of ours."""

    def __init__(self, gateway: Gateway, entrance: SignInPages, clock: Callable[[], float]) -> None:
        self._gateway = gateway
        self.entrance = entrance
        self._pages: ConsolePages = entrance.pages
        self._clock = clock

    def guarded(self, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """Return *answer*, or the page that says why there is none."""

        async def endpoint(request: Request) -> Response:
            try:
                return await answer(request)
            except PageError as exc:
                status, told = exc.status, exc.told
            except NotPermitted as exc:
                status, told = HTTPStatus.FORBIDDEN, str(exc)
            except Unavailable:
                status, told = HTTPStatus.SERVICE_UNAVAILABLE, _AWAY
            return self._pages.page(request, "turned_away.html", {"told": told, "status": status}, status=status)

        return endpoint

    def to(self, places: dict[str, Page]) -> Callable[[Request], Awaitable[Response]]:
        """Return what answers at one path."""

        async def answer(request: Request) -> Response:
            place = places["GET" if request.method == "HEAD" else request.method]
            visit = await self._visit(request, place)
            if visit is None:
                return self._to_sign_in(request)
            asking = await confirmation_page(visit) if place.asks_password else None
            return await place.look(visit) if asking is None else asking

        return answer

    async def nothing_here(self, request: Request) -> Response:
        """Say that there is nothing, to those who are signed in; others might be here for what only these see."""
        if await self.entrance.user_of(request) is None:
            return self._to_sign_in(request)
        raise PageError(HTTPStatus.NOT_FOUND, "There is no such page.")

    async def _visit(self, request: Request, place: Page) -> PageRequest | None:
        """Return the look of whoever is signed in, None for nobody. Raises TurnedAwayError."""
        cookie = self.entrance.cookie_of(request)
        # Before it is found out who may: whoever sends slowly must not act as who they were when they began.
        form = await parse_form(request) if cookie and place.method == "POST" else Form()
        is_automatic = place.is_automatic or _AUTOMATIC in request.headers
        session = await self.entrance.session_of(request, is_automatic=is_automatic)
        if session is None:
            return None
        account = await self._gateway.accounts.find(session.user.account_id)
        assert account is not None  # noqa: S101 - a user is of an account, which nothing deletes
        visit = PageRequest(self._gateway, self._pages, request, session, account, cookie, form, self._clock())
        if place.method == "POST":
            await self._check(visit, place)
        return visit

    async def _check(self, visit: PageRequest, place: Page) -> None:
        """Return when what was sent may be done. Raises TurnedAwayError, and records that."""
        if not is_proved(visit.request, visit.cookie, visit.path, b"", visit.form.text("proof")):
            reason, told = "no form of a page of this browser's", _STALE
        elif not place.for_all and (refusal := may_manage(visit.actor, ManagementAction.CHANGE)):
            reason, told = "not an admin", refusal.detail
        else:
            return
        await self._gateway.users.record_refusal(visit.user, visit.actor, reason, visit.path)
        raise PageError(HTTPStatus.FORBIDDEN, told)

    def _to_sign_in(self, request: Request) -> Response:
        base, here, is_part = base_path(request), console_path(request), "hx-request" in request.headers
        if is_part:  # what was asked for is no page by itself: the one that it is a part of is
            here = _path_in(request.headers.get("hx-current-url", "")).removeprefix(base)
        address = SIGN_IN + (f"?next={quote(here, safe='/')}" if request.method == "GET" else "")
        if is_part:  # else the page to sign in by would end up inside the other one
            return Response(status_code=HTTPStatus.NO_CONTENT, headers={"HX-Redirect": f"{base}{address}"})
        return redirect(request, address)
