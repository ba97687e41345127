"""The authorization server as an ASGI application. It believes what MachPayAuth in front of it found of the request."""

from collections.abc import Awaitable, Callable, Collection

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Endpoint
from starlette.types import ASGIApp, Receive, Scope, Send

from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import ConfigurationError, Unavailable
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

Answer = Callable[[Request], Awaitable[Response]]
_METADATA_SECONDS = 300


def oauth_routes(settings: OAuthSettings) -> tuple[Route, ...]:
    """Return the routes of the authorization server: whoever asks has no credential of ours yet."""
    paths = [*settings.page_paths, *(settings.path + path for path in (TOKEN, REVOKE, INTROSPECT))]
    if settings.registration_account is not None:
        paths.append(settings.path + REGISTER)
    paths.append(WELL_KNOWN + settings.path)  # RFC 8414 §3.1: the issuer's path comes after
    # All methods: a wrong one gets 405, not 404.
    return tuple(Route(f"* {path}", public=True) for path in paths)


def oauth_app(gateway: Gateway) -> ASGIApp:
    """Return the application that serves `oauth_routes` by *gateway*. Raises ConfigurationError."""
    settings = gateway.oauth_settings
    _check_registration_scopes(settings, gateway.oauth_clients.grantable)
    pages, at = Authorization(gateway), settings.path
    for_pages = [
        Endpoint(f"{at}{AUTHORIZE}", _page(pages, pages.authorize), methods=["GET"]),
        Endpoint(f"{at}{SIGN_IN}", _page(pages, pages.sign_in), methods=["POST"]),
        Endpoint(f"{at}{CONSENT}", _page(pages, pages.consent), methods=["POST"]),
        Endpoint(f"{at}{SIGN_OUT}", _page(pages, pages.sign_out), methods=["POST"]),
        Endpoint(f"{at}{INTROSPECT}", introspection_endpoint(gateway), methods=["POST"]),
    ]
    for_scripts = [
        Endpoint(f"{at}{TOKEN}", token_endpoint(gateway), methods=["POST"]),
        Endpoint(f"{at}{REVOKE}", revocation_endpoint(gateway), methods=["POST"]),
        Endpoint(f"{WELL_KNOWN}{at}", _describing(gateway), methods=["GET"]),
    ]
    if settings.registration_account is not None:
        for_scripts.append(Endpoint(f"{at}{REGISTER}", registration_endpoint(gateway), methods=["POST"]))
    app = Starlette(routes=[*for_pages, *for_scripts])
    return _open_to_scripts(app, frozenset(endpoint.path for endpoint in for_scripts))


def _check_registration_scopes(settings: OAuthSettings, grantable: Collection[str]) -> None:
    for name in settings.registration_scopes:
        if name not in grantable:
            raise ConfigurationError(
                f"oauth.registration_scopes: scope {name!r} does not exist; known: {', '.join(sorted(grantable))}"
            )


def _open_to_scripts(app: ASGIApp, paths: frozenset[str]) -> ASGIApp:
    """Let scripts of any origin ask at *paths*: apps that run in browsers get their tokens themselves.

    No cookie counts there. Pages that know users by one are for no script at all (RFC 9700 §2.6).
    """
    opened = CORSMiddleware(
        app,
        allow_origins=["*"],
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "DPoP"],
        expose_headers=["WWW-Authenticate", "Retry-After"],
    )

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await (opened if facts_of(scope).path in paths else app)(scope, receive, send)

    return serve


def _page(pages: Authorization, answer: Answer) -> Answer:
    async def endpoint(request: Request) -> Response:
        try:
            return await answer(request)
        except Unavailable:
            return pages.unavailable()

    return endpoint


def _describing(gateway: Gateway) -> Answer:
    document = metadata_document(gateway.oauth_settings, gateway)

    async def describe(_request: Request) -> Response:
        response = json_response(document)
        response.headers["Cache-Control"] = f"public, max-age={_METADATA_SECONDS}"
        del response.headers["Pragma"]
        return response

    return describe
