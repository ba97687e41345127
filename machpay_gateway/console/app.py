"""The Console as an ASGI application: the table of its pages."""

import time
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Endpoint

from machpay_gateway.console import audit, keys, oauth_clients, password, sessions, start, usage
from machpay_gateway.console.assets import Assets
from machpay_gateway.console.guard import Guard, Page
from machpay_gateway.console.pages import redirect
from machpay_gateway.console.sign_in import SIGN_IN, SIGN_OUT, SignInPages
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.network.cors import CORS_OFF
from machpay_gateway.gateway import Gateway
from machpay_gateway.settings.console import CONSOLE_PATH

# Public for the gateway, which knows API credentials only: the Guard authenticates users by their session cookie.
CONSOLE_ROUTES = (Route(f"* {CONSOLE_PATH}/{{rest:path}}", public=True, cors=CORS_OFF),)

PAGES = (
    Page("GET", "/keys", keys.index),
    Page("GET", "/keys/new", keys.new),
    Page("POST", "/keys/new", keys.create, confirms_password=True),
    Page("GET", "/keys/{id}", keys.show),
    Page("POST", "/keys/{id}", keys.update),
    Page("POST", "/keys/{id}/rotate", keys.rotate, confirms_password=True),
    Page("POST", "/keys/{id}/end-grace", keys.end_grace),
    Page("GET", "/keys/{id}/revoke", keys.confirm_revoke),
    Page("POST", "/keys/{id}/revoke", keys.revoke),
    Page("GET", "/addresses", keys.check_addresses),
    Page("GET", "/usage", usage.show),
    Page("GET", "/usage.json", usage.show_json, is_background=True),
    Page("GET", "/usage.csv", usage.export_csv),
    Page("GET", "/apps", oauth_clients.index),
    Page("GET", "/apps/new", oauth_clients.new),
    Page("POST", "/apps/new", oauth_clients.create, confirms_password=True),
    Page("GET", "/apps/{id}", oauth_clients.show),
    Page("POST", "/apps/{id}", oauth_clients.update),
    Page("POST", "/apps/{id}/rotate", oauth_clients.rotate_secret, confirms_password=True),
    Page("GET", "/apps/{id}/delete", oauth_clients.confirm_delete),
    Page("POST", "/apps/{id}/delete", oauth_clients.delete),
    Page("POST", "/apps/{id}/grants/{grant}/end", oauth_clients.revoke_grant),
    Page("GET", "/redirects", oauth_clients.check_redirect_uris),
    Page("GET", "/audit", audit.index),
    Page("GET", "/audit.csv", audit.export_csv),
    Page("GET", "/start", start.show),
    Page("GET", "/password", password.show),
    Page("POST", "/password", password.update, allows_viewers=True),  # asks for the current password itself
    Page("GET", "/sessions", sessions.index),
    Page("POST", "/sessions/{id}/end", sessions.sign_out_session, allows_viewers=True),
    Page("POST", "/sessions/pass", sessions.create_pass, allows_viewers=True, confirms_password=True),
    Page("POST", "/sessions/end-others", sessions.sign_out_others, allows_viewers=True),
)


def console_app(gateway: Gateway, *, clock: Callable[[], float] = time.time) -> Starlette:
    """Return the application that serves `CONSOLE_ROUTES`. *clock* is in seconds since the epoch."""
    settings = gateway.settings.console
    assert settings is not None  # noqa: S101 - the caller serves a Console only where one is configured
    sign_in = SignInPages(gateway, settings)
    guard = Guard(gateway, sign_in, clock)
    by_path: dict[str, dict[str, Page]] = {}
    for page in PAGES:
        by_path.setdefault(page.path, {})[page.method] = page
    routes = [
        Endpoint(f"{CONSOLE_PATH}/static/{{name:path}}", Assets().serve, methods=["GET"]),
        Endpoint(f"{CONSOLE_PATH}{SIGN_IN}", guard.with_error_pages(sign_in.sign_in), methods=["GET", "POST"]),
        Endpoint(f"{CONSOLE_PATH}{SIGN_OUT}", guard.with_error_pages(sign_in.sign_out), methods=["POST"]),
        *(
            Endpoint(f"{CONSOLE_PATH}{path}", guard.endpoint(pages), methods=list(pages))
            for path, pages in by_path.items()
        ),
        *(Endpoint(path, _home, methods=["GET"]) for path in (CONSOLE_PATH, f"{CONSOLE_PATH}/")),
        Endpoint(f"{CONSOLE_PATH}/{{rest:path}}", guard.with_error_pages(guard.unknown_path)),
    ]
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False
    return app


async def _home(request: Request) -> Response:
    return redirect(request, "/keys")
