"""The metrics of all workers, from any of them: each writes snapshots of its counts, and reads those of the others."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from machpay_gateway.log_throttle import LogThrottle
from machpay_gateway.telemetry.exposition import exposition
from machpay_gateway.telemetry.metrics import Counts
from machpay_gateway.telemetry.snapshots import Snapshots, WorkerTotals

logger = logging.getLogger(__name__)

_WRITE_SECONDS = 1.0


class Metrics:
    """Writes the result of *collect* to *folder* once a second, from `start` until `close`."""

    def __init__(self, folder: Path, collect: Callable[[], Counts], *, wanted: int = 1) -> None:
        """Write nothing yet. *wanted* is the number of workers that the settings ask for."""
        self._wanted = wanted
        self._snapshots = Snapshots(folder)
        self._collect = collect
        self._version = version("machpay-gateway")
        self._files = asyncio.Lock()  # one thread at a time writes, so that older counts never replace newer ones
        self._closing = asyncio.Event()
        self._is_failing = False
        self._throttle = LogThrottle(logger)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start writing."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Write the final counts, which the other workers go on to report."""
        self._closing.set()
        if self._task is not None:
            await self._task

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics of all workers in the format that an *accept* header names, and its media type.

        Raises OSError when the snapshots of the others cannot be read.
        """
        async with self._files:
            await self._write()
            reading = await asyncio.get_running_loop().run_in_executor(None, self._snapshots.read)
        return exposition(self._with_own(reading), accept)

    def _with_own(self, reading: WorkerTotals) -> Counts:
        return reading.counts | {
            ("machpay_workers", ()): [reading.living],
            ("machpay_workers_wanted", ()): [self._wanted],
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
        counts = self._collect()
        try:
            await asyncio.get_running_loop().run_in_executor(
                None, lambda: self._snapshots.write(counts, is_last=is_last)
            )
        except OSError as exc:
            if not self._is_failing:  # once for an outage, not once a second
                self._is_failing = True
                self._throttle.log(
                    logging.WARNING, "This worker's metrics cannot be written, so they are out of date: %s", exc
                )
        else:
            self._is_failing = False
