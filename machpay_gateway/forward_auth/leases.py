"""Slots of requests whose end nobody sees."""

import asyncio
from itertools import count

from machpay_gateway.core.limits.admission import Lease


class HeldLeases:
    """Holds each lease for the same time, and none past its own end."""

    def __init__(self, seconds: float) -> None:
        """Hold leases for *seconds*; with 0 they end at once."""
        self._seconds = seconds
        self._numbers = count()  # a limiter may hand out one lease many times over
        self._held: dict[int, tuple[Lease, asyncio.TimerHandle]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, lease: Lease) -> None:
        """Release *lease* when its time is over."""
        if not self._seconds:
            lease.release()
            return
        number = next(self._numbers)
        timer = asyncio.get_running_loop().call_later(self._seconds, self._end, number)
        self._held[number] = lease, timer

    async def serve(self) -> None:
        """Do nothing: there is nothing to make ready."""

    async def close(self) -> None:
        """Release what is held, before the limiter closes."""
        for number, (_, timer) in list(self._held.items()):
            timer.cancel()
            self._end(number)

    def _end(self, number: int) -> None:
        lease, _ = self._held.pop(number)
        lease.release()
