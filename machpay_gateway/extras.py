"""Which extra of the package brings which libraries, and the error where one is not installed.

`pip install machpay-gateway` brings the middleware. Each other part is an extra of `pyproject.toml`, and checks here
that its libraries are installed before it imports them.
"""

import sys
from collections.abc import Mapping
from importlib.util import find_spec

from machpay_gateway.core.errors import ConfigurationError

__all__ = ["LIBRARIES", "MissingExtra", "missing_extra", "require_extra"]

_SERVER = "server"  # the extra that has all others but `fastapi`
_TOKENS = ("cryptography", "httpx2", "joserfc")
_API = (*_TOKENS, "pydantic")
_PAGES = (*_API, "argon2", "jinja2", "zxcvbn")
_UVLOOP = ("uvloop",) if sys.platform != "win32" and sys.implementation.name == "cpython" else ()

# By extra, the modules that its libraries are imported as. A test compares them with `pyproject.toml`.
LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "cli": ("prometheus_client", "rich"),
    "tokens": _TOKENS,
    "api": _API,
    "console": _PAGES,
    "oauth": _PAGES,
    "proxy": (*_API, "h2", "httptools", "prometheus_client", "structlog", "uvicorn", *_UVLOOP, "websockets"),
    "postgresql": ("asyncpg",),
    "otel": ("opentelemetry",),
    "fastapi": ("fastapi",),
}


class MissingExtra(ConfigurationError, ImportError):
    """An extra of the package is not installed. The message names the command that installs it."""


def require_extra(extra: str, part: str) -> None:
    """Raise MissingExtra, which names *part* as what needs it, unless the libraries of *extra* are installed."""
    if missing := [library for library in LIBRARIES[extra] if find_spec(library) is None]:
        raise missing_extra(extra, part, missing[0])


def missing_extra(extra: str, part: str, library: str) -> MissingExtra:
    """Return the error for *part*, which needs the *library* of *extra*."""
    whole = "" if extra == "fastapi" else f", or all that serves: pip install 'machpay-gateway[{_SERVER}]'"
    return MissingExtra(
        f"{part} needs {library}, of the extra {extra}: pip install 'machpay-gateway[{extra}]'{whole}", name=library
    )
