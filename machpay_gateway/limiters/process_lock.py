"""Being the only process that counts: without a server in common each of several would admit the whole limit."""

import asyncio
from pathlib import Path

from filelock import FileLock, Timeout

from machpay_gateway.core.errors import ConfigurationError

_PATIENCE_SECONDS = 3.0  # for the process before this one, which may be on its way out
_POLL_SECONDS = 0.05


class ProcessLock:
    """A right that one process has at a time, however many gateways are in it; it ends with the process."""

    def __init__(self, path: Path, *, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        """Mean the right that goes with a lock on *path*."""
        self._path = path
        self._patience_seconds = patience_seconds
        # One for the process: it counts how often it was taken.
        self._lock = FileLock(path, is_singleton=True, thread_local=False)

    async def take(self) -> None:
        """Take the right. Raises ConfigurationError when another process has it and keeps it."""
        try:
            await asyncio.to_thread(self._lock.acquire, timeout=self._patience_seconds, poll_interval=_POLL_SECONDS)
        except Timeout as exc:
            raise ConfigurationError(
                "Another process serves with this database, and without Redis each would admit the whole limit: "
                'set redis = "redis://host:6379/0", or serve with one worker '
                f"(the lock is on {self._path})"
            ) from exc
        except OSError as exc:
            # In a folder that all users share, somebody else may have made the file: then it is not ours to open.
            raise ConfigurationError(
                f"{self._path} cannot be locked ({exc.strerror}), so that nobody knows who else serves with this "
                'database: remove it, or set redis = "redis://host:6379/0"'
            ) from exc

    def give_back(self) -> None:
        """Let another process have it."""
        self._lock.release()
