"""Allows only one process to count: without a shared server each of several would admit the whole limit."""

import asyncio
from pathlib import Path

from filelock import FileLock, Timeout

from machpay_gateway.core.errors import ConfigurationError

_PATIENCE_SECONDS = 3.0  # the process before this one may still be shutting down
_POLL_SECONDS = 0.05


class ProcessLock:
    """A file lock that one process holds at a time, whatever number of gateways it runs; it ends with the process."""

    def __init__(self, path: Path, *, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        """Prepare a lock on the file *path*."""
        self._path = path
        self._patience_seconds = patience_seconds
        # One object for the process, which counts how often it was acquired.
        self._lock = FileLock(path, is_singleton=True, thread_local=False)

    async def acquire(self) -> None:
        """Acquire the lock. Raises ConfigurationError when another process does not release it."""
        try:
            await asyncio.to_thread(self._lock.acquire, timeout=self._patience_seconds, poll_interval=_POLL_SECONDS)
        except Timeout as exc:
            raise ConfigurationError(
                "Another process serves with this database, and without Redis each would admit the whole limit: "
                'set redis = "redis://host:6379/0", or serve with one worker '
                f"(the lock is on {self._path})"
            ) from exc
        except OSError as exc:
            # In a folder shared by all users, another user may own the file.
            raise ConfigurationError(
                f"{self._path} cannot be locked ({exc.strerror}), so another process may be serving with this "
                'database: remove it, or set redis = "redis://host:6379/0"'
            ) from exc

    def release(self) -> None:
        """Release the lock for another process."""
        self._lock.release()
