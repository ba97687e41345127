"""How late the event loop is to run a timer: for as long as everything that is ready before it takes."""

import asyncio
import time
from collections.abc import Callable


class LoopLag:
    """Measures it every *seconds* while it is open, and calls *report* with the lateness in seconds. Mutable."""

    def __init__(self, seconds: float, report: Callable[[float], None]) -> None:
        self._seconds = seconds
        self._report = report
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Measure in the running event loop from now on. Idempotent."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # a timer of another loop never runs: that loop is gone, as with test clients
            self._loop = loop
            self._schedule(loop)

    async def close(self) -> None:
        """Stop measuring."""
        if self._timer is not None and self._loop is asyncio.get_running_loop():
            self._timer.cancel()
        self._timer = self._loop = None

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not by the loop's clock: uvloop's is the moment in which its current turn began.
        self._timer = loop.call_later(self._seconds, self._probe, loop, time.monotonic() + self._seconds)

    def _probe(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._report(max(0.0, time.monotonic() - due))
        if self._loop is loop:
            self._schedule(loop)
