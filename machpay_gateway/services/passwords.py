"""Passwords: argon2id (RFC 9106), in threads of their own, of which there are few."""

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

# Each takes a thread a tenth of a second: whoever comes later would wait for longer than they will.
_MOST_WAITING, _MOST_OF_ONE = 32, 8


@dataclass(frozen=True, slots=True)
class HashingClient:
    """Whose work waits for a thread: an address block's, a known browser's or an operator's, by *name*.

    Strangers share half of the threads' time and are fair to one another; those who are known have the other half, so
    that no number of strangers keeps them waiting.
    """

    name: str
    is_known: bool = False


OPERATOR = HashingClient("operator", is_known=True)


@dataclass(eq=False, slots=True)
class _Job:
    work: Callable[[], Any]
    answer: "asyncio.Future[Any]"


class Passwords:
    """Makes and checks hashes: 64 MiB and a tenth of a second of one processor each.

    So no more of them run at once than there are processors but one, and whoever finds too many waiting is told to
    come again. Raises StoreUnavailable then.
    """

    def __init__(self) -> None:
        self._hasher = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
        self._most_running = max(1, (os.cpu_count() or 1) - 1)
        self._threads = ThreadPoolExecutor(self._most_running, thread_name_prefix="machpay-password")
        self._running = 0
        # Who comes first now is last next time.
        self._lanes = [FairQueue[_Job](total=_MOST_WAITING, each=_MOST_OF_ONE) for _ in range(2)]
        # Checked for whoever is not known: that takes as long, so that time tells nothing of who is.
        self._nobodys: str | None = None
        self._known = self._lanes[0]

    async def hashed(self, password: str, owner: HashingClient = OPERATOR) -> str:
        """Return the hash of *password* in PHC form."""
        return await self.in_thread(partial(self._hasher.hash, password), owner)

    async def is_right(self, password: str, kept: str | None, owner: HashingClient = OPERATOR) -> bool:
        """Tell whether *password* is the one of the *kept* hash; with None it is none, after the same time."""
        if kept is None:
            if self._nobodys is None:
                self._nobodys = await self.hashed(os.urandom(16).hex(), owner)
            await self.in_thread(partial(_verified, self._hasher, self._nobodys, password), owner)
            return False
        return await self.in_thread(partial(_verified, self._hasher, kept, password), owner)

    async def in_thread(self, work: Callable[[], Result], owner: HashingClient = OPERATOR) -> Result:
        """Return what *work* returns, once it is the turn of its *owner*. A canceled wait frees its place."""
        job = _Job(work, asyncio.get_running_loop().create_future())
        lane = self._known if owner.is_known else next(each for each in self._lanes if each is not self._known)
        refused = lane.push(owner.name, job)
        if refused is job:
            raise StoreUnavailable("passwords: too many are being checked")
        if refused is not None and not refused.answer.done():
            refused.answer.set_exception(StoreUnavailable("passwords: too many are being checked"))
        self._start_waiting()
        try:
            result: Result = await job.answer
        finally:
            lane.discard(owner.name, job)
        return result

    def _start_waiting(self) -> None:
        while self._running < self._most_running and (lane := next(filter(len, self._lanes), None)) is not None:
            self._lanes.remove(lane)
            self._lanes.append(lane)
            job, loop = lane.pop(), asyncio.get_running_loop()
            if job.answer.done():
                continue
            self._running += 1
            future = self._threads.submit(job.work)
            future.add_done_callback(partial(self._tell, loop, job))

    def _tell(self, loop: asyncio.AbstractEventLoop, job: _Job, future: "Future[Any]") -> None:
        """Hand the result from its thread to the event loop that waits for it."""
        try:
            loop.call_soon_threadsafe(self._end, job, future)
        except RuntimeError:  # the loop has closed: nobody waits, and the next one must find the thread free
            self._running -= 1

    def _end(self, job: _Job, future: "Future[Any]") -> None:
        self._running -= 1
        with suppress(asyncio.InvalidStateError):  # canceled, and nobody is told
            error = future.exception()
            if error is None:
                job.answer.set_result(future.result())
            else:
                job.answer.set_exception(error)
        self._start_waiting()


def _verified(hasher: PasswordHasher, kept: str, password: str) -> bool:
    try:
        return hasher.verify(kept, password)
    except (VerificationError, InvalidHashError):
        return False
