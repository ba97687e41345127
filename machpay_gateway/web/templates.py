"""HTML pages from templates: values are escaped, and a Content-Security-Policy forbids what the page does not need."""

from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import cache
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

STYLE = "style.css"


class Pages:
    """The templates in *folder*.

    Each page has the folder's `style.css` inline, or loads what the policy directives in *loads* allow, as in
    `{"script-src": "'self'"}`. *filters* are for the templates. *brand* is the name on
    every page.
    """

    def __init__(
        self,
        folder: Path,
        *,
        loads: Mapping[str, str] | None = None,
        filters: Mapping[str, Callable[..., str]] | None = None,
        brand: str,
    ) -> None:
        self._templates = _templates_in(folder, tuple((filters or {}).items()))
        self._brand = brand
        self._style = "" if loads is not None else (folder / STYLE).read_text(encoding="utf-8")
        digest = b64encode(sha256(self._style.encode()).digest()).decode()
        self._loads = {"style-src": f"'sha256-{digest}'"} if loads is None else loads

    def page(
        self,
        name: str,
        values: Mapping[str, object],
        *,
        status: int = HTTPStatus.OK,
        sends_to: str = "",
        is_secure: bool = True,
    ) -> HTMLResponse:
        """Return the page of the template *name* with *values*.

        *sends_to* is an additional form target: browsers apply the policy to redirects after a form too.
        """
        html = self._templates.get_template(name).render(values, style=self._style, brand=self._brand)
        return HTMLResponse(html, status, self._headers(sends_to, is_secure=is_secure))

    def _headers(self, sends_to: str, *, is_secure: bool) -> dict[str, str]:
        policy = {
            "default-src": "'none'",
            **self._loads,
            "form-action": f"'self' {sends_to}".strip(),
            "frame-ancestors": "'none'",  # RFC 9700 §4.16
            "base-uri": "'none'",
        }
        headers = {
            "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
            "X-Frame-Options": "DENY",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",  # RFC 9700 §4.2.4: the URL may contain confidential values
            "Cache-Control": "no-store",
            "Permissions-Policy": "interest-cohort=(), camera=(), geolocation=(), microphone=()",
        }
        return headers | ({"Strict-Transport-Security": "max-age=31536000; includeSubDomains"} if is_secure else {})


@cache
def _templates_in(folder: Path, filters: tuple[tuple[str, Callable[..., str]], ...]) -> Environment:
    """Return the templates in *folder*. All gateways of a process share them: compiling one takes some milliseconds."""
    templates = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(filters)
    return templates
