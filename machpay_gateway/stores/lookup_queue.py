"""Look-ups in bounded number: they share queries, wait for a second at most, and not for a store that is away."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from machpay_gateway.core.errors import StoreUnavailable, Unavailable, UnreadableRecord

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

LOOKUP_SECONDS = 1.0  # the longest that a look-up waits, in the queue and for its query
_KEYS = 100  # in a query
_QUERIES = 2  # in progress: while they take long, more keys share each
_WAITING = 5000  # look-ups; more would wait for longer than they may, at 5,000 keys a second
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 1.0


class Breaker:
    """A circuit breaker: after a failure nothing is tried for a while, and then by one query at a time."""

    def __init__(self) -> None:
        self._pause = 0.0
        self._retry_at = 0.0  # by the monotonic clock

    @property
    def is_open(self) -> bool:
        """Whether nothing should be tried now."""
        return self._pause > 0 and time.monotonic() < self._retry_at

    @property
    def is_closed(self) -> bool:
        """Whether the latest query succeeded."""
        return self._pause <= 0

    def check(self) -> None:
        """Raise StoreUnavailable while it is open."""
        if self.is_open:
            raise StoreUnavailable("the database did not answer a moment ago")

    def succeed(self) -> None:
        """Note an answer."""
        self._pause = 0.0

    def fail(self) -> None:
        """Note that there was none."""
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        self._retry_at = time.monotonic() + self._pause


class Found(NamedTuple, Generic[Value]):
    """What a look-up has found: the *value*, None if there is none, and the *mark* of when its query started."""

    value: Value | None
    mark: int


class _Lookup(NamedTuple, Generic[Key, Value]):
    key: Key
    future: asyncio.Future[Found[Value]]
    until: float  # by the event loop's clock


class LookupQueue(Generic[Key, Value]):
    """Looks values up by key, many in each query of *load*, which returns those that exist.

    Concurrent look-ups of one key share it. Canceling one caller does not cancel it for the others.
    """

    def __init__(
        self,
        load: Callable[[Sequence[Key]], Awaitable[Mapping[Key, Value]]],
        what: str,
        *,
        mark: Callable[[], int],
        failed: Callable[[BaseException], None],
    ) -> None:
        """Name a look-up *what* in errors. *failed* gets the exception of each query."""
        self._load = load
        self._what = what
        self._mark = mark
        self._failed = failed
        self._futures: dict[Key, asyncio.Future[Found[Value]]] = {}  # that wait, or whose query is in progress
        self._waiting: deque[_Lookup[Key, Value]] = deque()
        self._queries: set[asyncio.Task[None]] = set()
        self._breaker = Breaker()

    async def find(self, key: Key) -> Found[Value]:
        """Return what *key* has. Raises StoreUnavailable, at once if waiting is futile."""
        self._breaker.check()
        loop = asyncio.get_running_loop()
        future = self._futures.get(key)
        if future is None or future.get_loop() is not loop:  # that of another loop never completes: it is gone
            if self._queries and not self._breaker.is_closed:
                raise StoreUnavailable(f"{self._what}: another one tries whether the database answers again")
            if len(self._waiting) >= _WAITING:
                raise StoreUnavailable(f"{self._what}: too many wait already")
            future = self._futures[key] = loop.create_future()
            self._waiting.append(_Lookup(key, future, loop.time() + LOOKUP_SECONDS))
            self._start_queries()
        return await asyncio.shield(future)

    async def close(self) -> None:
        """Cancel the queries in progress."""
        here = asyncio.get_running_loop()
        waiting = [one for one in self._waiting if one.future.get_loop() is here]
        self._waiting.clear()
        self._end(waiting, _closed(self._what))
        queries = [query for query in self._queries if query.get_loop() is here]
        for query in queries:
            query.cancel()
        if queries:
            await asyncio.wait(queries)

    def _start_queries(self) -> None:
        here = asyncio.get_running_loop()
        # Those of another loop never end either.
        self._queries = {query for query in self._queries if query.get_loop() is here}
        most = _QUERIES if self._breaker.is_closed else 1
        while self._waiting and len(self._queries) < most:
            some = [self._waiting.popleft() for _ in range(min(_KEYS, len(self._waiting)))]
            lookups = [one for one in some if one.future.get_loop() is here]
            if lookups:
                query = asyncio.create_task(self._query(lookups))
                self._queries.add(query)
                # A timer, because a driver may try to say goodbye to a server that hangs: nobody waits for that.
                timer = here.call_at(lookups[0].until, self._give_up, query, lookups)
                query.add_done_callback(partial(self._end_query, timer))

    def _end_query(self, timer: asyncio.TimerHandle, query: "asyncio.Task[None]") -> None:
        timer.cancel()
        if query in self._queries:
            self._queries.discard(query)
            self._start_queries()

    def _give_up(self, query: "asyncio.Task[None]", lookups: Sequence[_Lookup[Key, Value]]) -> None:
        self._queries.discard(query)
        query.cancel()
        self._break(lookups, StoreUnavailable(f"{self._what}: no answer within {LOOKUP_SECONDS:.0f} s"))

    async def _query(self, lookups: Sequence[_Lookup[Key, Value]]) -> None:
        mark = self._mark()
        try:
            values = await self._load([one.key for one in lookups])
        except UnreadableRecord as exc:
            if len(lookups) == 1:
                self._fail(lookups, exc)
            for one in lookups if len(lookups) > 1 else ():  # one of them is, and the others need not suffer for it
                await self._query([one])
        except Unavailable as exc:
            self._break(lookups, exc)
        except asyncio.CancelledError:
            self._end(lookups, _closed(self._what))
            raise
        except Exception as exc:
            self._fail(lookups, exc)
            raise
        else:
            self._breaker.succeed()
            for one in lookups:
                self._forget(one)
                if not one.future.done():
                    one.future.set_result(Found(values.get(one.key), mark))

    def _break(self, lookups: Sequence[_Lookup[Key, Value]], error: Unavailable) -> None:
        """Let *lookups* and all that wait fail: the store does not answer."""
        self._breaker.fail()
        self._fail([*lookups, *self._waiting], error)
        self._waiting.clear()

    def _fail(self, lookups: Sequence[_Lookup[Key, Value]], error: Exception) -> None:
        self._end(lookups, error)
        self._failed(error)

    def _end(self, lookups: Sequence[_Lookup[Key, Value]], error: Exception) -> None:
        for one in lookups:
            self._forget(one)
            if not one.future.done():
                one.future.set_exception(error)
                one.future.exception()  # it is seen, even if every caller was canceled

    def _forget(self, lookup: _Lookup[Key, Value]) -> None:
        if self._futures.get(lookup.key) is lookup.future:
            del self._futures[lookup.key]


def _closed(what: str) -> StoreUnavailable:
    return StoreUnavailable(f"{what}: canceled by closing")


async def finish_within(seconds: float, work: Awaitable[Value], what: str) -> Value:
    """Return the result of *work*. Raises StoreUnavailable that names *what* after *seconds*.

    It does not wait for the end of what it cancels: a driver may try to say goodbye to a server that hangs.
    """
    running: asyncio.Future[Value] = asyncio.ensure_future(work)
    try:
        await asyncio.wait([running], timeout=max(0.0, seconds))
    except asyncio.CancelledError:
        running.cancel()
        raise
    if running.done():
        return running.result()
    running.cancel()
    raise StoreUnavailable(f"{what}: no answer within {seconds:.1f} s")
