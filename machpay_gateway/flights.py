"""Single flight: however many ask for the same thing at once, it is fetched once.

Knows nothing of what is fetched. A caller that is cancelled does not take the others down with it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

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
        """Return what is fetched for *key*, fetching unless that is under way. Raises what the fetch raises."""
        return await asyncio.shield(self._flight(key))

    def begin(self, key: Key) -> None:
        """Fetch *key* in the background, unless that is under way."""
        _ = self._flight(key)

    def _flight(self, key: Key) -> asyncio.Task[Value]:
        loop = asyncio.get_running_loop()
        flight = self._flights.get(key)
        # A task of another loop is one that was abandoned with its loop, as test clients do: it will never land.
        if flight is None or flight.get_loop() is not loop:
            flight = self._flights[key] = loop.create_task(self._fetch(key))
            flight.add_done_callback(lambda done: self._land(key, done))
        return flight

    def _land(self, key: Key, flight: asyncio.Task[Value]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.cancelled() and (error := flight.exception()) is not None:
            self._failed(error)
