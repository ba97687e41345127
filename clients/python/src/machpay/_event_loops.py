"""What belongs to one event loop: connections and locks cannot be used from another one."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Generic, TypeVar

from machpay.errors import APITimeoutError

_T = TypeVar("_T")


class PerLoop(Generic[_T]):
    """A value for each event loop, made when it is first needed. Those of closed event loops are dropped."""

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._values: dict[asyncio.AbstractEventLoop, _T] = {}

    def get(self) -> _T:
        """Return the value of the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._values:
            open_ones = {each: value for each, value in self._values.items() if not each.is_closed()}
            self._values = open_ones | {loop: self._make()}
        return self._values[loop]

    def pop(self) -> _T | None:
        """Remove and return the value of the running event loop, None if there is none."""
        return self._values.pop(asyncio.get_running_loop(), None)


class AsyncLock:
    """A lock for the tasks of an event loop, with a limit to the wait for it."""

    def __init__(self) -> None:
        self._locks = PerLoop(asyncio.Lock)

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """Hold the lock. Raises APITimeoutError if it is not free *seconds* later."""
        lock = self._locks.get()
        try:
            async with asyncio.timeout(seconds):
                await lock.acquire()
        except TimeoutError:
            raise _too_late(seconds) from None
        try:
            yield
        finally:
            lock.release()


class Lock:
    """A lock for threads, with a limit to the wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Hold the lock. Raises APITimeoutError if it is not free *seconds* later."""
        if not self._lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX)):
            raise _too_late(seconds)
        try:
            yield
        finally:
            self._lock.release()


def _too_late(seconds: float) -> APITimeoutError:
    return APITimeoutError(
        f"The access token was not refreshed in {seconds:g} s. "
        "If on_tokens or load_tokens waits for another thread, that thread must not use this client."
    )
