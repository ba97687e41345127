"""Marks of tests for what only newer versions of a library do: `make test-lowest` runs them with older ones."""

from importlib.metadata import version

import pytest


def _is_older(library: str, *first: int) -> bool:
    numbers = tuple(int(part) for part in version(library).split(".")[:2])
    return numbers < first


shows_scopes = pytest.mark.skipif(
    _is_older("fastapi", 0, 128), reason="this FastAPI shows the scopes of OAuth 2.0 alone in OpenAPI"
)
raises_as_ever = pytest.mark.skipif(
    _is_older("starlette", 0, 38), reason="this Starlette wraps exceptions of streams in groups, and drops some"
)
