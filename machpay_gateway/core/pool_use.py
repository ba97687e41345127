"""How much of a pool of database connections is in use."""

from typing import NamedTuple


class PoolUse(NamedTuple):
    """Connections *in use*, of at most *size*, and callers that are *waiting* for one."""

    in_use: int
    size: int
    waiting: int
