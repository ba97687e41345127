"""Clocks that go only when they are told to."""

import asyncio
from collections.abc import Callable
from contextvars import Context


class FixedClock:
    """Returns the same moment until it is moved: seconds since the epoch, or on any other scale."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Alarms:
    """Stands for the event loop's clock: what is set goes off when a test says so."""

    def __init__(self, clock: FixedClock) -> None:
        self.clock = clock
        self.set: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, ring: Callable[[], None], context: Context | None = None) -> asyncio.TimerHandle:
        self.set.append((delay, ring))
        return asyncio.TimerHandle(0.0, lambda: None, (), asyncio.get_running_loop(), context)

    async def go_off(self) -> None:
        """Let the one alarm that is set go off in its time, and what it begins run as far as it can."""
        [(delay, ring)] = self.set
        self.set.clear()
        self.clock.advance(delay)
        ring()
        for _ in range(5):
            await asyncio.sleep(0)
