"""The metrics of all workers, from any of them: each writes down what it counts, and reads what the others wrote."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from machpay_gateway.telemetry.exposition import exposition
from machpay_gateway.telemetry.metrics import Counts
from machpay_gateway.telemetry.snapshots import Snapshots, WorkerTotals

logger = logging.getLogger(__name__)

_WRITE_SECONDS = 1.0


class Metrics:
    """Writes what *tally* returns to *folder* once a second, from `start` until `close`."""

    def __init__(self, folder: Path, tally: Callable[[], Counts]) -> None:
        """Write nothing yet."""
        self._snapshots = Snapshots(folder)
        self._tally = tally
        self._version = version("machpay-gateway")
        self._files = asyncio.Lock()  # a file is written by one thread at a time, and never by older counts
        self._closing = asyncio.Event()
        self._is_failing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Write what was counted to the last, which others go on to tell."""
        self._closing.set()
        if self._task is not None:
            await self._task

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics of all workers in the format that an *accept* header asks for, and its media type.

        Raises OSError when what others wrote cannot be read.
        """
        async with self._files:
            await self._write()
            reading = await asyncio.get_running_loop().run_in_executor(None, self._snapshots.read)
        return exposition(self._with_own(reading), accept)

    def _with_own(self, reading: WorkerTotals) -> Counts:
        return reading.counts | {
            ("machpay_workers", ()): [reading.living],
            ("machpay_worker_snapshots_unreadable", ()): [reading.unreadable],
            ("machpay_build_info", (self._version,)): [1.0],
        }

    async def _run(self) -> None:
        while not self._closing.is_set():
            async with self._files:
                await self._write()
            with suppress(TimeoutError):
                async with asyncio.timeout(_WRITE_SECONDS):
                    await self._closing.wait()
        async with self._files:
            await self._write(is_last=True)

    async def _write(self, *, is_last: bool = False) -> None:
        counts = self._tally()
        try:
            await asyncio.get_running_loop().run_in_executor(
                None, lambda: self._snapshots.write(counts, is_last=is_last)
            )
        except OSError as exc:
            if not self._is_failing:  # once for an outage, not once a second
                self._is_failing = True
                logger.warning("What this worker counts cannot be written down, so metrics are out of date: %s", exc)
        else:
            self._is_failing = False
