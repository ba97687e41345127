"""How often one address may present bad credentials before it is slowed: a leaky bucket an address (GCRA)."""

from collections import OrderedDict
from typing import Self

from machpay_gateway.core.network.address import address_block

_ADDRESSES = 8192  # about 1 MB; beyond it the address that failed longest ago is forgiven

_ROUNDING_SECONDS = 1e-5  # seconds since the epoch are exact to 2e-7 in a float; sums of them drift by a few of those
_UNREADABLE = -1  # the bucket of no address


class Failures:
    """Counts failures by address, an IPv6 /64 being one. Mutable: it is the memory of what happened.

    All whose address cannot be read share one bucket of ten times the size: any of them could shut the others out,
    but being unreadable, which a client may bring about, must not be a way around. Times are seconds on the caller's
    clock.
    """

    def __init__(self, limit: int, window_seconds: int) -> None:
        """Allow *limit* failures at once, and as many again over each *window_seconds*."""
        self._spacing = window_seconds / limit
        self._window = window_seconds
        self._drained_at: OrderedDict[int, float] = OrderedDict()

    def times(self, factor: int) -> Self:
        """Return an empty count that allows *factor* times as many failures."""
        return type(self)(round(self._window / self._spacing) * factor, self._window)

    def wait(self, address: int | None, now: float) -> float:
        """Return the seconds until *address* may fail again; 0.0 when it may now."""
        block, spacing = self._bucket(address)
        over = self._level(block, now) + spacing - self._window
        return over if over > _ROUNDING_SECONDS else 0.0

    def note(self, address: int | None, now: float) -> float:
        """Count a failure of *address*; when it may not fail now, count nothing and return what `wait` does."""
        if wait := self.wait(address, now):
            return wait
        block, spacing = self._bucket(address)
        self._drained_at[block] = now + self._level(block, now) + spacing
        self._drained_at.move_to_end(block)
        if len(self._drained_at) > _ADDRESSES:
            self._drained_at.popitem(last=False)
        return 0.0

    def forgive(self, address: int | None, now: float) -> None:
        """Take a noted failure of *address* back: it was none."""
        block, spacing = self._bucket(address)
        if (drained_at := self._drained_at.pop(block, 0.0) - spacing) > now + _ROUNDING_SECONDS:
            self._drained_at[block] = drained_at

    def __len__(self) -> int:
        return len(self._drained_at)

    def _bucket(self, address: int | None) -> tuple[int, float]:
        """Return which bucket is filled, and how much of it one failure takes, in seconds."""
        if address is None:
            return _UNREADABLE, self._spacing / 10
        return address_block(address), self._spacing

    def _level(self, block: int, now: float) -> float:
        # Never more than full: a clock that steps back must not shut an address out for as long as the step.
        return min(max(0.0, self._drained_at.get(block, 0.0) - now), self._window)
