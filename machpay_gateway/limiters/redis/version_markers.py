"""Version markers: which records have changed, written to the servers as soon as possible and until they have them.

Until then a change holds in this worker, and in the others within the second for which they trust a cached record.
"""

import asyncio

from machpay_gateway.limiters.redis.connection import REPLY_TIMEOUT_SECONDS, set_result
from machpay_gateway.limiters.redis.connection_supervisor import FAILURES, ConnectionSupervisor
from machpay_gateway.limiters.redis.scripts import Script, run_script

MARKER_SECONDS = 660  # longer than any worker caches a record without a check of its version; as in admit.lua
_RETRY_SECONDS = 0.1


class VersionMarkers:
    """The versions that are not written yet, by subject."""

    def __init__(self) -> None:
        self.pending: dict[str, tuple[bytes, int]] = {}
        self._futures: list[asyncio.Future[None]] = []
        self._added: asyncio.Event | None = None  # of the event loop in which they are written

    def add(self, subject: str, key: bytes, version: int) -> None:
        """Write that *subject*, whose key on the servers is *key*, is at *version*."""
        _, pending = self.pending.get(subject, (key, version))
        self.pending[subject] = key, max(pending, version)
        if self._added is not None:
            self._added.set()

    async def wait_written(self) -> None:
        """Wait until all are written, but no longer than a reply may take."""
        if self.pending:
            written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._futures.append(written)
            await asyncio.wait([written], timeout=REPLY_TIMEOUT_SECONDS)

    def version(self, subject: str) -> int:
        """Return the pending version of *subject*, 0 without one."""
        return self.pending[subject][1] if subject in self.pending else 0

    async def run(self, supervisor: ConnectionSupervisor, script: Script) -> None:
        """Write pending versions over the connection of *supervisor*, forever."""
        self._added, self._futures = asyncio.Event(), []
        while True:
            await supervisor.connected.wait()
            await self._write_pending(supervisor, script)
            if self.pending:
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                for future in self._futures:
                    set_result(future, None)
                self._futures.clear()
                self._added.clear()
                await self._added.wait()

    async def _write_pending(self, supervisor: ConnectionSupervisor, script: Script) -> None:
        for subject, (key, version) in list(self.pending.items()):
            connection = supervisor.connection
            if connection is None:
                return
            try:
                await run_script(connection, script, key, [MARKER_SECONDS, version])
            except FAILURES as exc:
                connection.fail(exc)
                return
            if self.pending.get(subject) == (key, version):
                del self.pending[subject]
