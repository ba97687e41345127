"""The servers that paths are tried on."""

from tests.paths.fixtures import upstream

__all__ = ["upstream"]
