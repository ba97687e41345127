"""The authorization server as an ASGI application. It believes what MachPayAuth in front of it found of the request."""

from collections.abc import Awaitable, Callable, Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.routing import Route as Endpoint

from machpay_gateway.assembly import Gateway
from machpay_gateway.core.errors import Unavailable
from machpay_gateway.core.oauth.authority import Authority
from machpay_gateway.core.route import Route
from machpay_gateway.oauth.answers import json_answer
from machpay_gateway.oauth.authorize import CONSENT, SIGN_IN, SIGN_OUT, Authorization
from machpay_gateway.oauth.endpoints import introspection_endpoint, revocation_endpoint, token_endpoint
from machpay_gateway.oauth.metadata import (
    AUTHORIZE,
    INTROSPECT,
    REGISTER,
    REVOKE,
    TOKEN,
    WELL_KNOWN,
    metadata,
)
from machpay_gateway.oauth.register import registration_endpoint

Answer = Callable[[Request], Awaitable[Response]]
_METADATA_SECONDS = 300


def oauth_routes(authority: Authority) -> tuple[Route, ...]:
    """Return the routes of the authorization server: whoever asks has no credential of ours yet."""
    at = authority.path
    matches = [
        f"GET {at}{AUTHORIZE}",
        f"POST {at}{SIGN_IN}",
        f"POST {at}{CONSENT}",
        f"POST {at}{SIGN_OUT}",
        f"POST {at}{TOKEN}",
        f"POST {at}{REVOKE}",
        f"POST {at}{INTROSPECT}",
        f"GET {WELL_KNOWN}{at}",  # RFC 8414 §3.1: the issuer's path comes after
    ]
    if authority.registration_account is not None:
        matches.append(f"POST {at}{REGISTER}")
    return tuple(Route(match, public=True) for match in matches)


def oauth_app(gateway: Gateway) -> Starlette:
    """Return the application that serves `oauth_routes` by *gateway*."""
    authority = gateway.issuing.authority
    pages, at = Authorization(gateway), authority.path
    for_apps = [
        Endpoint(f"{at}{TOKEN}", token_endpoint(gateway), methods=["POST"]),
        Endpoint(f"{at}{REVOKE}", revocation_endpoint(gateway), methods=["POST"]),
        Endpoint(f"{WELL_KNOWN}{at}", _describing(gateway), methods=["GET"]),
    ]
    if authority.registration_account is not None:
        for_apps.append(Endpoint(f"{at}{REGISTER}", registration_endpoint(gateway), methods=["POST"]))
    return Starlette(
        routes=[
            Endpoint(f"{at}{AUTHORIZE}", _page(pages, pages.authorize), methods=["GET"]),
            Endpoint(f"{at}{SIGN_IN}", _page(pages, pages.sign_in), methods=["POST"]),
            Endpoint(f"{at}{CONSENT}", _page(pages, pages.consent), methods=["POST"]),
            Endpoint(f"{at}{SIGN_OUT}", _page(pages, pages.sign_out), methods=["POST"]),
            Endpoint(f"{at}{INTROSPECT}", introspection_endpoint(gateway), methods=["POST"]),
            Mount("", Starlette(routes=for_apps, middleware=_for_scripts())),
        ]
    )


def _for_scripts() -> Sequence[Middleware]:
    # Apps that run in browsers get their tokens themselves. No cookie counts here, so that any origin may ask; pages
    # that know users by a cookie are for no script at all (RFC 9700 §2.6).
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=["*"],
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "DPoP"],
            expose_headers=["WWW-Authenticate", "DPoP-Nonce"],
        )
    ]


def _page(pages: Authorization, answer: Answer) -> Answer:
    async def endpoint(request: Request) -> Response:
        try:
            return await answer(request)
        except Unavailable:
            return pages.unavailable()

    return endpoint


def _describing(gateway: Gateway) -> Answer:
    document = metadata(gateway.issuing.authority, gateway)

    async def describe(_request: Request) -> Response:
        response = json_answer(document)
        response.headers["Cache-Control"] = f"public, max-age={_METADATA_SECONDS}"
        del response.headers["Pragma"]
        return response

    return describe
