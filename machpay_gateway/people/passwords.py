"""Passwords: argon2id (RFC 9106), in threads of their own, of which there are few."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from machpay_gateway.core.errors import StoreUnavailable

Result = TypeVar("Result")

_MOST_WAITING = 32  # each takes a thread a tenth of a second: whoever comes later would wait for longer than they will


class Passwords:
    """Makes and checks hashes: 64 MiB and a tenth of a second of one processor each.

    So no more of them run at once than there are processors but one, and whoever finds too many waiting is told to
    come again. Raises StoreUnavailable then.
    """

    def __init__(self) -> None:
        self._hasher = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
        self._threads = ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="machpay-password")
        self._waiting = 0
        # Checked for whoever is not known: that takes as long, so that time tells nothing of who is.
        self._nobodys: str | None = None

    async def hashed(self, password: str) -> str:
        """Return the hash of *password* in PHC form."""
        return await self._in_thread(partial(self._hasher.hash, password))

    async def is_right(self, password: str, kept: str | None) -> bool:
        """Tell whether *password* is the one of the *kept* hash; with None it is none, after the same time."""
        if kept is None:
            if self._nobodys is None:
                self._nobodys = await self.hashed(os.urandom(16).hex())
            await self._in_thread(partial(_verified, self._hasher, self._nobodys, password))
            return False
        return await self._in_thread(partial(_verified, self._hasher, kept, password))

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        if self._waiting >= _MOST_WAITING:
            raise StoreUnavailable("passwords: too many are being checked")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


def _verified(hasher: PasswordHasher, kept: str, password: str) -> bool:
    try:
        return hasher.verify(kept, password)
    except (VerificationError, InvalidHashError):
        return False
