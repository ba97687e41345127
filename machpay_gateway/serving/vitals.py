"""What a worker reports of itself: its policy, its clock, its event loop, its process and its connections."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from machpay_gateway.core.clock_skew import ClockSkew
from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.gateway import Gateway
from machpay_gateway.serving.heartbeat import Heartbeat
from machpay_gateway.settings.digest import policy_digest
from machpay_gateway.telemetry.metrics import Series

_CLOCK_SECONDS = 5.0  # between two questions for the database's time
_TIMEOUT_SECONDS = 2.0
_STATM, _FILES = Path("/proc/self/statm"), Path("/proc/self/fd")


class Vitals:
    """The figures of one worker, which serves *gateway* from now on."""

    def __init__(self, gateway: Gateway, *, clock: Callable[[], float] = time.time) -> None:
        """Start with nothing measured. *clock* is in seconds since the epoch."""
        self.heartbeat = Heartbeat()
        self._gateway = gateway
        self._clock = clock
        self._digest = policy_digest(gateway.settings)
        self._loaded_at = time.monotonic()
        self._database_skew = ClockSkew()
        self._measuring: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to ask the database for its time."""
        self._measuring = asyncio.create_task(self._measure())

    async def close(self) -> None:
        """Stop asking."""
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.wait([self._measuring])

    def counts(self) -> Iterator[tuple[Series, list[float]]]:
        """Yield the current figures."""
        yield ("machpay_policy_info", (self._digest,)), [1]
        yield ("machpay_policy_age_seconds", ()), [time.monotonic() - self._loaded_at]
        yield ("machpay_event_loop_lag_seconds", ()), [self.heartbeat.lag_seconds]
        skews = {"redis": self._gateway.limiter.clock_skew_seconds, "database": self._database_skew.seconds}
        for server, seconds in skews.items():
            if seconds is not None:
                yield ("machpay_clock_skew_seconds", (server,)), [seconds]
        for name, pool in self._gateway.store.pools.items():
            for part, number in pool._asdict().items():
                yield (f"machpay_database_pool_{part}", (name,)), [number]
        yield from _of_process()

    async def _measure(self) -> None:
        while True:
            sent_at = self._clock()
            with suppress(StoreUnavailable, TimeoutError):  # an outage is reported elsewhere
                async with asyncio.timeout(_TIMEOUT_SECONDS):
                    server_time = await self._gateway.store.server_time()
                if server_time is None:
                    return
                self._database_skew.add(sent_at, server_time, self._clock())
            await asyncio.sleep(_CLOCK_SECONDS)


def _of_process() -> Iterator[tuple[Series, list[float]]]:
    """Yield the figures of this process; memory and files only where the system has /proc."""
    yield ("process_cpu_seconds_total", ()), [time.process_time()]
    with suppress(OSError):
        resident_pages = int(_STATM.read_text().split()[1])
        yield ("process_resident_memory_bytes", ()), [resident_pages * os.sysconf("SC_PAGE_SIZE")]
        # Since Linux 6.2 their number; before, they have to be counted.
        yield ("process_open_fds", ()), [_FILES.stat().st_size or sum(1 for _ in _FILES.iterdir())]
