"""Singleflight: concurrent calls with the same key share one fetch.

Canceling one caller does not cancel the fetch for the others.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from machpay_gateway.core.errors import Unavailable

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class SingleFlight(Generic[Key, Value]):
    """Runs *fetch* at most once at a time for each key."""

    def __init__(
        self, fetch: Callable[[Key], Coroutine[Any, Any, Value]], *, failed: Callable[[BaseException], None]
    ) -> None:
        """Share calls of *fetch*. *failed* gets every exception, because all callers may be canceled by then."""
        self._fetch = fetch
        self._failed = failed
        self._flights: dict[Key, asyncio.Task[Value]] = {}

    async def join(self, key: Key) -> Value:
        """Return the result for *key*, from a fetch in flight or a new one.

        Raises what the fetch raises, and Unavailable when `close` canceled it.
        """
        flight = self._flight(key)
        # `wait` does not propagate a cancellation: the fetch goes on for the other callers.
        await asyncio.wait([flight])
        if flight.cancelled():
            raise Unavailable("a fetch that was canceled by closing")
        return flight.result()

    def begin(self, key: Key) -> None:
        """Start fetching *key* in the background, unless a fetch is in flight."""
        _ = self._flight(key)

    def is_under_way(self, key: Key) -> bool:
        """Whether *key* is being fetched in this event loop."""
        flight = self._flights.get(key)
        return flight is not None and flight.get_loop() is asyncio.get_running_loop()

    async def close(self) -> None:
        """Cancel the fetches in flight in this event loop."""
        canceled = [flight for key, flight in self._flights.items() if self.is_under_way(key)]
        for flight in canceled:
            flight.cancel()
        if canceled:
            await asyncio.wait(canceled)

    def _flight(self, key: Key) -> asyncio.Task[Value]:
        # A task of another loop never completes: that loop is gone, as with test clients.
        if self.is_under_way(key):
            return self._flights[key]
        flight = self._flights[key] = asyncio.create_task(self._fetch(key))
        flight.add_done_callback(lambda done: self._land(key, done))
        return flight

    def _land(self, key: Key, flight: asyncio.Task[Value]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.cancelled() and (error := flight.exception()) is not None:
            self._failed(error)
