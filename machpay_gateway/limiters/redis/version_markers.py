"""Which records have changed: said to the servers as soon as they can be told, and again until they were.

Until then a change holds in this worker, and everywhere else within the second that a cached record is trusted for.
"""

import asyncio

from machpay_gateway.limiters.redis.batcher import ANSWER_SECONDS
from machpay_gateway.limiters.redis.link import bring
from machpay_gateway.limiters.redis.link_supervisor import FAILURES, LinkSupervisor, run
from machpay_gateway.limiters.redis.scripts import Script

MARK_SECONDS = 660  # longer than any worker keeps a record that it has not asked about; as IDLE in admit.lua
_RETRY_SECONDS = 0.1


class VersionMarkers:
    """The versions that are still to be told, by subject."""

    def __init__(self) -> None:
        self.pending: dict[str, tuple[bytes, int]] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._added: asyncio.Event | None = None  # of the loop in which they are written

    def add(self, subject: str, key: bytes, version: int) -> None:
        """Tell that *subject*, which the servers know by *key*, is at *version*."""
        _, known = self.pending.get(subject, (key, version))
        self.pending[subject] = key, max(known, version)
        if self._added is not None:
            self._added.set()

    async def told(self) -> None:
        """Wait until all is told, but no longer than a reply may take."""
        if self.pending:
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await asyncio.wait([waiting], timeout=ANSWER_SECONDS)

    def version(self, subject: str) -> int:
        """Return the version that is still to be told of *subject*, 0 when none is."""
        return self.pending[subject][1] if subject in self.pending else 0

    async def write(self, upkeep: LinkSupervisor, script: Script) -> None:
        """Tell the servers over the link of *upkeep*, for ever."""
        self._added, self._waiting = asyncio.Event(), []
        while True:
            await upkeep.linked.wait()
            await self._write_pending(upkeep, script)
            if self.pending:
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                for waiting in self._waiting:
                    bring(waiting, None)
                self._waiting.clear()
                self._added.clear()
                await self._added.wait()

    async def _write_pending(self, upkeep: LinkSupervisor, script: Script) -> None:
        for subject, (key, version) in list(self.pending.items()):
            link = upkeep.link
            if link is None:
                return
            try:
                await run(link, script, key, [MARK_SECONDS, version])
            except FAILURES as exc:
                link.end(exc)
                return
            if self.pending.get(subject) == (key, version):
                del self.pending[subject]
