"""An ASGI application with all that this gateway serves: its APIs and pages, and behind the same guard your own.

Proxies that ask are answered beside the guard: they are not who is calling.

Run it: `uvicorn machpay_gateway.server:create_app --factory --no-proxy-headers`.
"""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from time import perf_counter
from typing import NamedTuple, Unpack

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from machpay_gateway.admin.app import key_api
from machpay_gateway.admin.operations import OWN_ROUTES
from machpay_gateway.assembly import ConfiguredGateway
from machpay_gateway.console.app import CONSOLE_ROUTES, console_app
from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.route import ALL_THE_REST, Route
from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.network.cookies import sets_own_cookie, split_own_cookies
from machpay_gateway.forward_auth.front import ForwardAuth
from machpay_gateway.gateway import Gateway
from machpay_gateway.middleware import MachPayAuth
from machpay_gateway.oauth.app import oauth_app, oauth_routes
from machpay_gateway.settings import Options, Settings
from machpay_gateway.settings.console import CONSOLE_PATH
from machpay_gateway.web.lifespan import Resource, run_lifespan
from machpay_gateway.web.page_hosts import PageGuard
from machpay_gateway.web.path import matching_prefix
from machpay_gateway.web.request_facts import (
    BEHIND_OUR_PROXY,
    PEER_HEADER,
    Trust,
    facts_of,
    hosts_of,
    path_of,
    request_facts,
)

JWKS_PATH = "/.well-known/jwks.json"
_ALWAYS = (*OWN_ROUTES, Route(f"GET {JWKS_PATH}", public=True))
_JWKS_SECONDS = 300

__all__ = ["BehindOurProxy", "control_plane", "create_app", "own_branches", "served_routes"]


def served_routes(settings: Settings) -> tuple[Route, ...]:
    """Return the routes of the APIs and pages that a gateway with these *settings* serves itself."""
    oauth = () if settings.oauth is None else oauth_routes(settings.oauth)
    return (*_ALWAYS, *oauth, *(() if settings.console is None else CONSOLE_ROUTES))


def own_branches(settings: Settings) -> frozenset[str]:
    """Return the paths that nothing else is served beneath.

    Whole branches: what the key API does not know beneath its paths is not there, whatever the application has.
    """
    return frozenset("/".join(_path(route).split("/")[:3]) for route in served_routes(settings))


def create_app(app: ASGIApp | None = None, **options: Unpack[Options]) -> MachPayAuth:
    """Return *app*, guarded, with the key API and forward-auth beside it; every setting may be given here too.

    Without *app* there is the key API alone. Raises ConfigurationError, also when a configured route is the key API's.
    """
    return control_plane(ConfiguredGateway(own_routes=served_routes, **options), app)


def control_plane(gateway: Gateway, app: ASGIApp | None = None, *, trust: Trust | None = None) -> MachPayAuth:
    """Return the key API by a ready *gateway* that has `served_routes`, with *app* beside it if there is one.

    *trust* is in whom stands in front, the settings' unless it is given.
    """
    own = key_api(gateway)
    own.add_route(JWKS_PATH, _jwks(gateway))
    at: dict[str, ASGIApp] = {}
    if gateway.settings.oauth is not None:
        # By their whole paths: an issuer at /v1 has its endpoints beside the key API's own below /v1/oauth.
        at = dict.fromkeys(map(_path, oauth_routes(gateway.settings.oauth)), oauth_app(gateway))
    below = dict.fromkeys(own_branches(gateway.settings), own)
    if gateway.settings.console is not None:
        below[CONSOLE_PATH] = console_app(gateway)
    ours = _Ours(at, below)
    asked = ForwardAuth(gateway)
    return _Fronts(_Beside(ours, app or _only(own), asked.leases), gateway, ours, asked, trust)


def _jwks(gateway: Gateway) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint with the keys that our own signatures are verified by (RFC 7517)."""
    ours = () if gateway.assertions is None else orjson.loads(gateway.assertions.jwks)["keys"]

    async def answer(_request: Request) -> Response:
        try:
            keys = [*ours, *await gateway.signing.jwks()]
        except StoreUnavailable:
            return Response(status_code=HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": "1"})
        headers = {"Cache-Control": f"public, max-age={_JWKS_SECONDS}", "Access-Control-Allow-Origin": "*"}
        return Response(orjson.dumps({"keys": keys}), headers=headers, media_type="application/jwk-set+json")

    return answer


class _Fronts(MachPayAuth):
    """Guards what is behind it, keeps pages to their hosts, and lets proxies ask what it would say."""

    def __init__(self, app: ASGIApp, gateway: Gateway, ours: "_Ours", asked: ForwardAuth, trust: Trust | None) -> None:
        super().__init__(app, gateway=gateway, trust=trust)
        self._ours = ours
        self._asked = asked
        self._pages = gateway.page_guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of any ASGI type."""
        if self._asked.handles(scope):
            await self._asked(scope, receive, send)
        elif self._pages is not None and (detail := self._misplaced(scope, self._pages)) is not None:
            await self._refuse_page(scope, receive, send, detail)
        else:
            await super().__call__(scope, receive, send)

    def _misplaced(self, scope: Scope, pages: PageGuard) -> str | None:
        """Return why *scope* is not answered at the host that it came to: before anything is decided or spent."""
        if scope["type"] not in {"http", "websocket"}:
            return None
        path = path_of(scope)
        host, forwarded_host = hosts_of(scope, self.trust)
        return pages.refusal(path, host, forwarded_host, is_ours=self._ours.app_for(path or "") is not None)

    async def _refuse_page(self, scope: Scope, receive: Receive, send: Send, detail: str) -> None:
        began_at = perf_counter()
        facts = request_facts(scope, self.trust, self.gateway.request_ids)
        denied = Denied(Reason.ROUTE_NOT_FOUND, detail)
        await self._refuse(scope, receive, send, facts, denied, record=self.gateway.recorder.record, began_at=began_at)


class BehindOurProxy:
    """The control plane of a process that has a proxy in front of it: its callers are the proxy's, and nobody else.

    The proxy says who its own peer is where that peer asks something; else it has done the walk to the client itself.
    """

    def __init__(self, gateway: Gateway) -> None:
        """Serve by *gateway*."""
        self._app = control_plane(gateway, trust=BEHIND_OUR_PROXY)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of any ASGI type."""
        if scope["type"] != "lifespan":
            peers = [value.decode() for name, value in scope["headers"] if name == PEER_HEADER]
            headers = [field for field in scope["headers"] if field[0] != PEER_HEADER]
            scope = dict(scope, client=(peers[0] if peers else "127.0.0.1", 0), headers=headers)
        await self._app(scope, receive, send)


class _Ours(NamedTuple):
    """What is served here: something *at* each of some paths, and something *below* each of some branches."""

    at: Mapping[str, ASGIApp]
    below: Mapping[str, ASGIApp]

    def app_for(self, path: str) -> ASGIApp | None:
        """Return what serves *path*, None when that is not for us to serve."""
        branch = matching_prefix(path, self.below)
        return self.at.get(path) or (None if branch is None else self.below[branch])


class _Beside:
    """Sends requests for what is served here there, and everything else to the application."""

    def __init__(self, ours: _Ours, app: ASGIApp, leases: Resource) -> None:
        self._ours = ours
        self._app = app
        self._leases = leases

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of any ASGI type."""
        if scope["type"] == "lifespan":
            await run_lifespan(self._app, scope, receive, send, self._leases)
            return
        # The path that was authorised, not one read anew.
        ours = self._ours.app_for(facts_of(scope).path or "")
        if scope["type"] == "websocket":
            # We have none. Where we ask for no credential, the application's would be open to anybody.
            is_open = ours is not None and scope["machpay"] is None
            ours = WebSocketClose() if is_open else None
        if ours is not None:
            await ours(scope, receive, send)
            return
        await self._app(_without_own_cookies(scope), receive, _setting_no_own_cookies(send))


def _without_own_cookies(scope: Scope) -> Scope:
    """Return *scope* as the application gets it: what knows our users is not for it."""
    if not any(name == b"cookie" and split_own_cookies(value) is not None for name, value in scope["headers"]):
        return scope
    headers = []
    for name, value in scope["headers"]:
        divided = split_own_cookies(value) if name == b"cookie" else None
        others = value if divided is None else divided[0]
        if divided is None or others:
            headers.append((name, others))
    return dict(scope, headers=headers)


def _setting_no_own_cookies(send: Send) -> Send:
    """Return *send* for the application, which does not decide who our users are."""

    def send_on(message: Message) -> Awaitable[None]:
        if "headers" in message:
            headers = message["headers"]
            kept = [
                (name, value) for name, value in headers if name.lower() != b"set-cookie" or not sets_own_cookie(value)
            ]
            message = dict(message, headers=kept)
        return send(message)

    return send_on


def _path(route: Route) -> str:
    return "/" + "/".join(segment for segment in route.segments if segment != ALL_THE_REST)


def _only(own: ASGIApp) -> ASGIApp:
    """Return *own* as a whole application: it has no WebSockets."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await (WebSocketClose() if scope["type"] == "websocket" else own)(scope, receive, send)

    return serve
