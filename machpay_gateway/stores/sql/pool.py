"""A connection pool that counts who waits for a connection."""

from typing import Any

from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry

from machpay_gateway.core.pool_use import PoolUse


class CountedPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's pool for asyncio, with the number of callers that wait for a connection or open one."""

    # Otherwise SQLAlchemy would take the names of its loggers from our package.
    _sqla_logger_namespace = "sqlalchemy.pool.impl.AsyncAdaptedQueuePool"

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - as SQLAlchemy creates it
        super().__init__(*arguments, **options)
        self._waiting = 0

    @property
    def use(self) -> PoolUse:
        """How much of it is in use now."""
        return PoolUse(self.checkedout(), self.size(), self._waiting)

    def _do_get(self) -> ConnectionPoolEntry:
        self._waiting += 1
        try:
            return super()._do_get()
        finally:
            self._waiting -= 1
