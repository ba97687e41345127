"""Concurrency slots of requests whose end the gateway does not see."""

import asyncio
from itertools import count

from machpay_gateway.core.limits.admission import Lease


class HeldLeases:
    """Holds each lease for a fixed time, and releases all of them on close."""

    def __init__(self, seconds: float) -> None:
        """Hold leases for *seconds*; 0 releases them at once."""
        self._seconds = seconds
        self._numbers = count()  # a limiter may return the same lease object many times
        self._held: dict[int, tuple[Lease, asyncio.TimerHandle]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, lease: Lease) -> None:
        """Release *lease* after the time."""
        if not self._seconds:
            lease.release()
            return
        number = next(self._numbers)
        timer = asyncio.get_running_loop().call_later(self._seconds, self._end, number)
        self._held[number] = lease, timer

    async def serve(self) -> None:
        """Do nothing: there is nothing to open."""

    async def close(self) -> None:
        """Release all leases, before the limiter closes."""
        for number, (_, timer) in list(self._held.items()):
            timer.cancel()
            self._end(number)

    def _end(self, number: int) -> None:
        lease, _ = self._held.pop(number)
        lease.release()
