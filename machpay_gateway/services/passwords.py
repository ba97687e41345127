"""Password hashing with argon2id (RFC 9106), in a small thread pool of its own."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.services.fair_queue import FairQueue

Result = TypeVar("Result")

# Each job takes a thread a tenth of a second: with more jobs, the last ones would wait too long to be of use.
_MOST_WAITING, _MOST_OF_ONE = 32, 8


@dataclass(frozen=True, slots=True)
class HashingClient:
    """The client that a hashing job is for: an address block, a known browser or an operator, by *name*.

    Known clients have half of the threads' time for themselves, so that no number of unknown ones delays them.
    """

    name: str
    is_known: bool = False


OPERATOR = HashingClient("operator", is_known=True)


@dataclass(eq=False, slots=True)
class _Job:
    work: Callable[[], Any]
    result: "asyncio.Future[Any]"


class Passwords:
    """Computes and verifies hashes: 64 MiB and a tenth of a second of one processor each.

    Concurrent jobs are limited to the number of processors minus one, and so is the queue: when it is full, further
    calls raise StoreUnavailable.
    """

    def __init__(self) -> None:
        self._hasher = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
        self._most_running = max(1, (os.cpu_count() or 1) - 1)
        self._threads = ThreadPoolExecutor(self._most_running, thread_name_prefix="machpay-password")
        self._running = 0
        # The lanes take turns: the first one moves to the end.
        self._lanes = [FairQueue[_Job](total=_MOST_WAITING, each=_MOST_OF_ONE) for _ in range(2)]
        # Verified for unknown users too, so that the time of a response does not tell whether a user exists.
        self._dummy_hash: str | None = None
        self._lane_of_known = self._lanes[0]

    async def compute_hash(self, password: str, owner: HashingClient = OPERATOR) -> str:
        """Return the hash of *password* in PHC form."""
        return await self.in_thread(partial(self._hasher.hash, password), owner)

    async def is_right(self, password: str, stored_hash: str | None, owner: HashingClient = OPERATOR) -> bool:
        """Tell whether *password* matches *stored_hash*; False for None, after the same time."""
        if stored_hash is None:
            if self._dummy_hash is None:
                self._dummy_hash = await self.compute_hash(os.urandom(16).hex(), owner)
            await self.in_thread(partial(_verify, self._hasher, self._dummy_hash, password), owner)
            return False
        return await self.in_thread(partial(_verify, self._hasher, stored_hash, password), owner)

    async def in_thread(self, work: Callable[[], Result], owner: HashingClient = OPERATOR) -> Result:
        """Run *work* in a thread when it is the turn of *owner*, and return its result. Canceling frees its slot."""
        job = _Job(work, asyncio.get_running_loop().create_future())
        lane = next(each for each in self._lanes if (each is self._lane_of_known) == owner.is_known)
        evicted = lane.push(owner.name, job)
        if evicted is job:
            raise StoreUnavailable("passwords: too many are being checked")
        if evicted is not None and not evicted.result.done():
            evicted.result.set_exception(StoreUnavailable("passwords: too many are being checked"))
        self._start_jobs()
        try:
            result: Result = await job.result
        finally:
            lane.discard(owner.name, job)
        return result

    def _start_jobs(self) -> None:
        while self._running < self._most_running and (lane := next(filter(len, self._lanes), None)) is not None:
            self._lanes.remove(lane)
            self._lanes.append(lane)
            job, loop = lane.pop(), asyncio.get_running_loop()
            if job.result.done():
                continue
            self._running += 1
            future = self._threads.submit(job.work)
            future.add_done_callback(partial(self._notify_loop, loop, job))

    def _notify_loop(self, loop: asyncio.AbstractEventLoop, job: _Job, future: "Future[Any]") -> None:
        """Pass the result from its thread to the event loop that waits for it."""
        try:
            loop.call_soon_threadsafe(self._finish, job, future)
        except RuntimeError:  # the loop is closed: nothing waits, and the thread is free for the next loop
            self._running -= 1

    def _finish(self, job: _Job, future: "Future[Any]") -> None:
        self._running -= 1
        with suppress(asyncio.InvalidStateError):  # canceled: nothing waits for the result
            error = future.exception()
            if error is None:
                job.result.set_result(future.result())
            else:
                job.result.set_exception(error)
        self._start_jobs()


def _verify(hasher: PasswordHasher, stored_hash: str, password: str) -> bool:
    try:
        return hasher.verify(stored_hash, password)
    except (VerificationError, InvalidHashError):
        return False
