"""The pytest plugin: the fixture `as_principal`.

pytest imports it at every start where this package is installed. So it imports the rest when a test uses it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from machpay_gateway.testing import PrincipalOverride


@pytest.fixture(name="as_principal")
def _as_principal() -> Iterator["Callable[..., PrincipalOverride]"]:
    """Have requests to an application come from one caller: `as_principal(app, scopes="skills:list")`.

    The arguments are those of `machpay_gateway.testing.as_principal`. It begins at once, and ends with the test, or
    with the block if it is used in `with`.
    """
    from machpay_gateway.testing import as_principal  # noqa: PLC0415 - it imports the gateway

    with ExitStack() as stack:

        def begin(*args: Any, **options: Any) -> "PrincipalOverride":  # noqa: ANN401 - those of the function
            override = as_principal(*args, **options)
            override.start()
            stack.callback(override.stop)
            return override

        yield begin
