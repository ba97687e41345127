"""The application that the setting `application` names, imported for the scopes that its routes require.

Only commands import it. A process that guards the application has it already, and `serve` may run where it is not.
"""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from machpay_gateway.assembly.imported import import_named
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.web.application_scopes import ApplicationScopes


def scopes_of(place: str, folder: Path) -> Sequence[str]:
    """Return the scopes that the application at *place* requires: `main:app`, or `main:create_app()`.

    Modules in *folder* are found too. Raises ConfigurationError if it cannot be imported.
    """
    return tuple(ApplicationScopes(_load(place, folder)).names())


def _load(place: str, folder: Path) -> object:
    try:
        with redirect_stdout(sys.stderr):  # what it prints is not the command's output
            value = import_named(place.removesuffix("()"), folder)
            return value() if place.endswith("()") and callable(value) else value
    except (Exception, SystemExit) as exc:
        reason = f"{type(exc).__name__}: {exc}"
        raise ConfigurationError(
            f"application: {place!r} cannot be imported ({reason}): name it as in main:app"
        ) from exc
