"""The control plane as an ASGI application: APIs and pages of the gateway, and beside them your own application.

All are behind the same `MachPayAuth`, except forward-auth: there the proxy asks on behalf of the caller.

Run it: `uvicorn machpay_gateway.server:create_app --factory --no-proxy-headers`.
"""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, Unpack

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose
from typing_extensions import override

from machpay_gateway.admin.app import key_api
from machpay_gateway.admin.operations import OWN_ROUTES
from machpay_gateway.assembly import ConfiguredGateway, with_own_routes
from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.route import ALL_THE_REST, Route
from machpay_gateway.core.errors import ConfigurationError, StoreUnavailable
from machpay_gateway.core.limits.admission import UNCOUNTED
from machpay_gateway.core.network.cookies import sets_own_cookie, split_own_cookies
from machpay_gateway.core.network.cors import CORS_FOR_ALL
from machpay_gateway.core.usage.outcome import outcome_of
from machpay_gateway.forward_auth.front import ForwardAuth
from machpay_gateway.gateway import Gateway
from machpay_gateway.middleware import MachPayAuth
from machpay_gateway.problem_pages import problem_paths
from machpay_gateway.settings import Options, Settings
from machpay_gateway.settings.console import CONSOLE_PATH
from machpay_gateway.settings.model import check_certified_routes
from machpay_gateway.telemetry.own_requests import OWN_REQUEST_HEADER, OwnRequests, note_decision
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

if TYPE_CHECKING:
    from machpay_gateway.core.oauth.settings import OAuthSettings

JWKS_PATH = "/.well-known/jwks.json"
_ALWAYS = (*OWN_ROUTES, Route(f"GET {JWKS_PATH}", public=True, cors=CORS_FOR_ALL))
_JWKS_SECONDS = 300
_FROM_OUR_PROXY = frozenset({PEER_HEADER, OWN_REQUEST_HEADER})

__all__ = ["BehindOurProxy", "control_plane", "create_app", "own_branches", "served_routes"]


def served_routes(settings: Settings) -> tuple[Route, ...]:
    """Return the routes of the APIs and pages that a gateway with these *settings* serves itself."""
    oauth = () if settings.oauth is None else _oauth_routes(settings.oauth)
    return (*_ALWAYS, *oauth, *(() if settings.console is None else _console_routes()))


def own_branches(settings: Settings) -> frozenset[str]:
    """Return the paths below which only the gateway serves.

    Whole branches: unknown paths below the key API's are 404, even if the application has them.
    """
    return _branches(settings) | problem_paths(settings.brand)


def create_app(
    app: ASGIApp | None = None,
    *,
    gateway: Gateway | None = None,
    trust: Trust | None = None,
    **options: Unpack[Options],
) -> MachPayAuth:
    """Return *app*, guarded, with the control plane and forward-auth beside it. The arguments are those of MachPayAuth.

    Without *app* there is only the control plane. Raises ConfigurationError, also for a route below `own_branches`.
    """
    if gateway is None:
        return control_plane(ConfiguredGateway(own_routes=served_routes, **options), app, trust=trust)
    if options:
        raise ConfigurationError(f"create_app takes a gateway or settings, not both: drop {', '.join(options)}")
    return control_plane(with_own_routes(gateway, served_routes), app, trust=trust)


def control_plane(gateway: Gateway, app: ASGIApp | None = None, *, trust: Trust | None = None) -> MachPayAuth:
    """Return the control plane of a *gateway* whose policy has `served_routes`, with *app* beside it if there is one.

    *trust* is in the proxies in front, by default as in the settings.
    """
    if app is not None:
        check_certified_routes(gateway.settings)
    own = key_api(gateway)
    own.add_route(JWKS_PATH, _jwks(gateway))
    at: dict[str, ASGIApp] = {}
    if gateway.settings.oauth is not None:
        from machpay_gateway.oauth.app import oauth_app  # noqa: PLC0415 - as for its routes

        # By exact path: an issuer at /v1 has endpoints below /v1/oauth, beside the key API.
        at = dict.fromkeys(map(_path, _oauth_routes(gateway.settings.oauth)), oauth_app(gateway))
    below = dict.fromkeys(_branches(gateway.settings), own)
    if gateway.settings.console is not None:
        from machpay_gateway.console.app import console_app  # noqa: PLC0415 - as for its routes

        below[CONSOLE_PATH] = console_app(gateway)
    branches = _Branches(at, below)
    forward_auth = ForwardAuth(gateway)
    router = _Router(gateway, branches, app or _without_websockets(own), forward_auth.leases)
    return _ControlPlaneApp(router, gateway, branches, forward_auth, trust)


def _oauth_routes(settings: "OAuthSettings") -> tuple[Route, ...]:
    # Pages and their templates take 0.2 s to import: a gateway without them starts without that.
    from machpay_gateway.oauth.app import oauth_routes  # noqa: PLC0415 - see above

    return oauth_routes(settings)


def _console_routes() -> tuple[Route, ...]:
    from machpay_gateway.console.app import CONSOLE_ROUTES  # noqa: PLC0415 - as for the authorization server

    return CONSOLE_ROUTES


def _jwks(gateway: Gateway) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint with the keys that verify our signatures (RFC 7517)."""
    assertion_keys = () if gateway.assertions is None else orjson.loads(gateway.assertions.jwks)["keys"]

    async def answer(_request: Request) -> Response:
        try:
            keys = [*assertion_keys, *await gateway.signing.jwks()]
        except StoreUnavailable:
            return Response(status_code=HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": "1"})
        headers = {"Cache-Control": f"public, max-age={_JWKS_SECONDS}", "Access-Control-Allow-Origin": "*"}
        return Response(orjson.dumps({"keys": keys}), headers=headers, media_type="application/jwk-set+json")

    return answer


class _ControlPlaneApp(MachPayAuth):
    """Guards *app*, binds pages to their hosts, and answers forward-auth requests of proxies."""

    def __init__(
        self, app: ASGIApp, gateway: Gateway, branches: "_Branches", forward_auth: ForwardAuth, trust: Trust | None
    ) -> None:
        super().__init__(app, gateway=gateway, trust=trust)
        self._branches = branches
        self._forward_auth = forward_auth
        self._pages = gateway.page_guard
        self._problem_paths = problem_paths(gateway.brand)

    @override
    def _warn(self) -> None:
        pass  # all of it is served here, or by the proxy in front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of any ASGI type."""
        if self._forward_auth.handles(scope):
            await self._forward_auth(scope, receive, send)
        elif self._pages is not None and (detail := self._misplaced(scope, self._pages)) is not None:
            await self._refuse_page(scope, receive, send, detail)
        else:
            await super().__call__(scope, receive, send)

    def _misplaced(self, scope: Scope, pages: PageGuard) -> str | None:
        """Return why *scope* is not served at its host, if so. This precedes the decision, and takes no quota."""
        if scope["type"] not in {"http", "websocket"}:
            return None
        path = path_of(scope)
        host, forwarded_host = hosts_of(scope, self.trust)
        return pages.refusal(path, host, forwarded_host, is_ours=self._is_ours(path or ""))

    def _is_ours(self, path: str) -> bool:
        return self._branches.app_for(path) is not None or path in self._problem_paths

    async def _refuse_page(self, scope: Scope, receive: Receive, send: Send, detail: str) -> None:
        began_at = perf_counter()
        facts = request_facts(scope, self.trust, self.gateway.request_ids)
        denied = Denied(Reason.ROUTE_NOT_FOUND, detail)
        await self._refuse(scope, receive, send, facts, denied, record=self.gateway.recorder.record, began_at=began_at)


class BehindOurProxy:
    """The control plane behind the proxy of the same process, which is its only peer.

    The proxy passes its own peer in `PEER_HEADER` for forward-auth; otherwise it has determined the client itself.
    """

    def __init__(self, gateway: Gateway, requests: OwnRequests) -> None:
        """Serve the control plane of *gateway*, and note in *requests* what it decides, for the proxy's access log."""
        self._app = control_plane(gateway, trust=BEHIND_OUR_PROXY)
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of any ASGI type."""
        if scope["type"] != "lifespan":
            ours = {name: value for name, value in scope["headers"] if name in _FROM_OUR_PROXY}
            headers = [field for field in scope["headers"] if field[0] not in _FROM_OUR_PROXY]
            peer = ours.get(PEER_HEADER, b"127.0.0.1").decode()
            scope = dict(scope, client=(peer, 0), headers=headers)
            self._requests.mark(scope, ours.get(OWN_REQUEST_HEADER, b""))
        await self._app(scope, receive, send)


class _Branches(NamedTuple):
    """The applications of the control plane, *at* exact paths and *below* branches of paths."""

    at: Mapping[str, ASGIApp]
    below: Mapping[str, ASGIApp]

    def app_for(self, path: str) -> ASGIApp | None:
        """Return the application that serves *path*, None when it is not the control plane's."""
        branch = matching_prefix(path, self.below)
        return self.at.get(path) or (None if branch is None else self.below[branch])


class _Router:
    """Routes requests to the control plane by path, and all others to the application."""

    def __init__(self, gateway: Gateway, branches: _Branches, app: ASGIApp, leases: Resource) -> None:
        self._policy = gateway.policy
        self._branches = branches
        self.app = app
        self._leases = leases

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of any ASGI type."""
        if scope["type"] == "lifespan":
            await run_lifespan(self.app, scope, receive, send, self._leases)
            return
        # The path that was authorized, not one that is parsed again.
        facts = facts_of(scope)
        own = self._branches.app_for(facts.path or "")
        if isinstance(route := self._policy.route_for(facts), Route):
            admission = scope["machpay_admission"]
            outcome = outcome_of(None if admission is UNCOUNTED else admission, route)
            note_decision(scope, facts, scope["machpay"], route, outcome)
        if scope["type"] == "websocket":
            # The control plane has no WebSockets. Below its public routes, the application's would be unguarded.
            is_public = own is not None and scope["machpay"] is None
            own = WebSocketClose() if is_public else None
        if own is not None:
            await own(_with_stripped_values(scope), receive, send)
            return
        await self.app(_without_our_cookies(scope), receive, _setting_none_of_our_cookies(send))


def _with_stripped_values(scope: Scope) -> Scope:
    """Return *scope* without whitespace around header values, which is no part of them (RFC 9110 §5.5).

    uvicorn with httptools leaves what is behind a value.
    """
    if all(value == value.strip(b" \t") for _, value in scope["headers"]):
        return scope
    return dict(scope, headers=[(name, value.strip(b" \t")) for name, value in scope["headers"]])


def _without_our_cookies(scope: Scope) -> Scope:
    """Return *scope* for the application, without the cookies that identify our users."""
    if not any(name == b"cookie" and split_own_cookies(value) is not None for name, value in scope["headers"]):
        return scope
    headers = []
    for name, value in scope["headers"]:
        divided = split_own_cookies(value) if name == b"cookie" else None
        others = value if divided is None else divided[0]
        if divided is None or others:
            headers.append((name, others))
    return dict(scope, headers=headers)


def _setting_none_of_our_cookies(send: Send) -> Send:
    """Return *send* for the application, which may not set the cookies that identify our users."""

    def send_on(message: Message) -> Awaitable[None]:
        if "headers" in message:
            headers = message["headers"]
            allowed = [
                (name, value) for name, value in headers if name.lower() != b"set-cookie" or not sets_own_cookie(value)
            ]
            message = dict(message, headers=allowed)
        return send(message)

    return send_on


def _branches(settings: Settings) -> frozenset[str]:
    return frozenset("/".join(_path(route).split("/")[:3]) for route in served_routes(settings))


def _path(route: Route) -> str:
    return "/" + "/".join(segment for segment in route.segments if segment != ALL_THE_REST)


def _without_websockets(own: ASGIApp) -> ASGIApp:
    """Return *own* as an application that refuses WebSockets."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await (WebSocketClose() if scope["type"] == "websocket" else own)(scope, receive, send)

    return serve
