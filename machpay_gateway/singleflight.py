"""Single flight: however many ask for the same thing at once, it is fetched once.

Knows nothing of what is fetched. A caller that is cancelled does not take the others down with it.
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
        """Share calls of *fetch*. *failed* is told of every exception, because all who asked may have gone by then."""
        self._fetch = fetch
        self._failed = failed
        self._flights: dict[Key, asyncio.Task[Value]] = {}

    async def join(self, key: Key) -> Value:
        """Return what is fetched for *key*, fetching unless that is under way.

        Raises what the fetch raises, and Unavailable when it was abandoned by `close`.
        """
        flight = self._flight(key)
        # `wait` does not hand a cancellation on: a caller who hangs up ends the fetch for nobody else.
        await asyncio.wait([flight])
        if flight.cancelled():
            raise Unavailable("what was being fetched when this closed")
        return flight.result()

    def begin(self, key: Key) -> None:
        """Fetch *key* in the background, unless that is under way."""
        _ = self._flight(key)

    def is_under_way(self, key: Key) -> bool:
        """Whether *key* is being fetched in this event loop."""
        flight = self._flights.get(key)
        return flight is not None and flight.get_loop() is asyncio.get_running_loop()

    async def close(self) -> None:
        """Abandon what is under way in this event loop."""
        abandoned = [flight for key, flight in self._flights.items() if self.is_under_way(key)]
        for flight in abandoned:
            flight.cancel()
        if abandoned:
            await asyncio.wait(abandoned)

    def _flight(self, key: Key) -> asyncio.Task[Value]:
        # A task of another loop is one that was abandoned with its loop, as test clients do: it will never land.
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
