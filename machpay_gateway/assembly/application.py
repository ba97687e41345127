"""The application that the setting `application` names, imported for the scopes that its routes require.

Only commands import it. A process that guards the application has it already, and `serve` may run where it is not.
"""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.web.application_scopes import ApplicationScopes


def scopes_of(place: str) -> Sequence[str]:
    """Return the scopes that the application at *place* requires: `main:app`, or `main:create_app()`.

    Raises ConfigurationError if it cannot be imported.
    """
    return tuple(ApplicationScopes(_load(place)).names())


def _load(place: str) -> object:
    module, _, names = place.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:  # as uvicorn does; a program's own path starts where the program is
        sys.path.insert(0, folder)
    try:
        with redirect_stdout(sys.stderr):  # what it prints is not the command's output
            value: object = import_module(module)
            for name in names.removesuffix("()").split("."):
                value = getattr(value, name)
            return value() if names.endswith("()") and callable(value) else value
    except (Exception, SystemExit) as exc:
        reason = f"{type(exc).__name__}: {exc}"
        raise ConfigurationError(
            f"application: {place!r} cannot be imported ({reason}): name it as in main:app"
        ) from exc
