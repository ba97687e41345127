"""The Redis that budgets are counted in."""

from tests.redises.fixtures import redis_server

__all__ = ["redis_server"]
