"""The authorization server as an ASGI application. MachPayAuth in front of it has parsed and checked the request."""

from collections.abc import Awaitable, Callable, Collection

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Endpoint
from starlette.types import ASGIApp, Receive, Scope, Send

from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import ConfigurationError, Unavailable
from machpay_gateway.core.network.cors import CORS_FOR_ALL, CORS_OFF, CorsSettings
from machpay_gateway.core.oauth.settings import (
    AUTHORIZE,
    CONSENT,
    INTROSPECT,
    REGISTER,
    REVOKE,
    SIGN_IN,
    SIGN_OUT,
    TOKEN,
    WELL_KNOWN,
    OAuthSettings,
)
from machpay_gateway.gateway import Gateway
from machpay_gateway.oauth.authorize import Authorization
from machpay_gateway.oauth.endpoints import introspection_endpoint, revocation_endpoint, token_endpoint
from machpay_gateway.oauth.metadata import metadata_document
from machpay_gateway.oauth.register import registration_endpoint
from machpay_gateway.oauth.responses import json_response
from machpay_gateway.web.request_facts import facts_of

Handler = Callable[[Request], Awaitable[Response]]
_METADATA_SECONDS = 300


def oauth_routes(settings: OAuthSettings) -> tuple[Route, ...]:
    """Return the routes of the authorization server. They are public: callers have no credential of ours yet."""
    cors: dict[str, CorsSettings | None] = dict.fromkeys(settings.page_paths, CORS_OFF)
    cors |= {settings.path + TOKEN: CORS_FOR_ALL, settings.path + REVOKE: CORS_FOR_ALL}
    cors[settings.path + INTROSPECT] = None  # for servers, unless the settings say otherwise
    if settings.registration_account is not None:
        cors[settings.path + REGISTER] = CORS_FOR_ALL
    cors[WELL_KNOWN + settings.path] = CORS_FOR_ALL  # RFC 8414 §3.1: the issuer's path comes after
    # All methods: a wrong one gets 405, not 404.
    return tuple(Route(f"* {path}", public=True, cors=each) for path, each in cors.items())


def oauth_app(gateway: Gateway) -> ASGIApp:
    """Return the application that serves `oauth_routes` by *gateway*. Raises ConfigurationError."""
    settings = gateway.oauth_settings
    _check_registration_scopes(settings, gateway.oauth_clients.grantable)
    pages, path = Authorization(gateway), settings.path
    same_origin = [
        Endpoint(f"{path}{AUTHORIZE}", _page(pages, pages.authorize), methods=["GET"]),
        Endpoint(f"{path}{SIGN_IN}", _page(pages, pages.sign_in), methods=["POST"]),
        Endpoint(f"{path}{CONSENT}", _page(pages, pages.consent), methods=["POST"]),
        Endpoint(f"{path}{SIGN_OUT}", _page(pages, pages.sign_out), methods=["POST"]),
        Endpoint(f"{path}{INTROSPECT}", introspection_endpoint(gateway), methods=["POST"]),
    ]
    cross_origin = [
        Endpoint(f"{path}{TOKEN}", token_endpoint(gateway), methods=["POST"]),
        Endpoint(f"{path}{REVOKE}", revocation_endpoint(gateway), methods=["POST"]),
        Endpoint(f"{WELL_KNOWN}{path}", _metadata_endpoint(gateway), methods=["GET"]),
    ]
    if settings.registration_account is not None:
        cross_origin.append(Endpoint(f"{path}{REGISTER}", registration_endpoint(gateway), methods=["POST"]))
    app = Starlette(routes=[*same_origin, *cross_origin])
    return _with_cors(app, frozenset(endpoint.path for endpoint in cross_origin))


def _check_registration_scopes(settings: OAuthSettings, grantable: Collection[str]) -> None:
    for name in settings.registration_scopes:
        if name not in grantable:
            raise ConfigurationError(
                f"oauth.registration_scopes: scope {name!r} does not exist; known: {', '.join(sorted(grantable))}"
            )


def _with_cors(app: ASGIApp, paths: frozenset[str]) -> ASGIApp:
    """Allow cross-origin requests to *paths*: apps that run in browsers get their tokens themselves.

    These endpoints use no cookies. The pages, which do, allow none (RFC 9700 §2.6). Where the settings turn CORS on,
    MachPayAuth answers the preflights of all endpoints, and replaces these headers.
    """
    with_cors = CORSMiddleware(
        app,
        allow_origins=["*"],
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "DPoP"],
        expose_headers=["WWW-Authenticate", "Retry-After"],
    )

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await (with_cors if facts_of(scope).path in paths else app)(scope, receive, send)

    return serve


def _page(pages: Authorization, handle: Handler) -> Handler:
    async def endpoint(request: Request) -> Response:
        try:
            return await handle(request)
        except Unavailable:
            return pages.unavailable()

    return endpoint


def _metadata_endpoint(gateway: Gateway) -> Handler:
    document = metadata_document(gateway.oauth_settings, gateway)

    async def describe(_request: Request) -> Response:
        response = json_response(document)
        response.headers["Cache-Control"] = f"public, max-age={_METADATA_SECONDS}"
        del response.headers["Pragma"]
        return response

    return describe
