"""The Console's pages: HTML from templates, and paths that hold wherever the Console is mounted."""

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from machpay_gateway.console.assets import asset_path
from machpay_gateway.console.formatting import FILTERS
from machpay_gateway.core.brand import Brand
from machpay_gateway.settings.console import ConsoleSettings
from machpay_gateway.web.request_facts import facts_of
from machpay_gateway.web.templates import Pages

_TEMPLATES = Path(__file__).with_name("templates")
_LOADS = {"script-src": "'self'", "style-src": "'self'", "img-src": "'self'", "connect-src": "'self'"}


class ConsolePages:
    """Renders the templates of a Console with these *settings*, under the name of *brand*."""

    def __init__(self, settings: ConsoleSettings, brand: Brand) -> None:
        self.settings = settings
        self._pages = Pages(_TEMPLATES, loads=_LOADS, filters=FILTERS, brand=brand.name)

    def render(
        self, request: Request, template: str, values: Mapping[str, object], *, status: int = HTTPStatus.OK
    ) -> Response:
        """Return the page of *template* with *values*, and with `base` and `asset` for its links."""
        base = base_path(request)

        def asset(name: str) -> str:
            return base + asset_path(name)

        return self._pages.page(
            template,
            {"base": base, "asset": asset, **values},
            status=status,
            is_secure=self.settings.is_secure,
        )


def base_path(request: Request) -> str:
    """Return the path of the Console as the browser sees it, with the mount point if there is one."""
    return f"{request.scope.get('root_path', '').rstrip('/')}/console"


def console_path(request: Request) -> str:
    """Return the path of *request* below the Console, wherever the Console is mounted."""
    return (facts_of(request.scope).path or "").removeprefix("/console")


def redirect(request: Request, path: str) -> Response:
    """Return a 303 redirect to *path* below the Console."""
    return RedirectResponse(f"{base_path(request)}{path}", HTTPStatus.SEE_OTHER, {"Cache-Control": "no-store"})
