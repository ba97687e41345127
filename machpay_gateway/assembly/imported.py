"""What settings name by module and attribute, as in `main:app` or `my_hooks:has_paid`."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from machpay_gateway.core.errors import ConfigurationError


def import_named(place: str, folder: Path) -> object:
    """Return the object at *place*, `package.module:name` or `package.module:name.name`.

    Modules in *folder*, that of the settings file, are found too. Raises whatever the module raises.
    """
    module, _, names = place.partition(":")
    resolved = str(folder.resolve())
    if resolved not in sys.path:  # a program's own path starts where the program is
        sys.path.insert(0, resolved)
    value: object = import_module(module)
    for name in names.split("."):
        value = getattr(value, name)
    return value


def import_function(place: str, folder: Path) -> Callable[..., Any]:
    """Return the function at *place*. Raises ConfigurationError."""
    try:
        function = import_named(place, folder)
    except (ImportError, AttributeError) as exc:
        raise ConfigurationError(f"{place!r} cannot be imported ({exc}): is its folder on PYTHONPATH?") from exc
    if not callable(function):
        raise ConfigurationError(f"{place!r} is not a function")
    return function
