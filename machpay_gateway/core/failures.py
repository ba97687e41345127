"""How often one address may present bad credentials before it is slowed: a leaky bucket an address (GCRA)."""

from collections import OrderedDict

from machpay_gateway.core.address import address_block

_ADDRESSES = 8192  # about 1 MB; beyond it the address that failed longest ago is forgiven

_ROUNDING_SECONDS = 1e-5  # seconds since the epoch are exact to 2e-7 in a float; sums of them drift by a few of those


class Failures:
    """Counts failures by address, an IPv6 /64 being one. An address that cannot be read is never slowed.

    All who cannot be told apart would share one bucket, and any of them could shut the others out. Mutable: it is
    the memory of what happened. Times are seconds on the caller's clock.
    """

    def __init__(self, limit: int, window_seconds: int) -> None:
        """Allow *limit* failures at once, and as many again over each *window_seconds*."""
        self._spacing = window_seconds / limit
        self._window = window_seconds
        self._drained_at: OrderedDict[int, float] = OrderedDict()

    def wait(self, address: int | None, now: float) -> float:
        """Return the seconds until *address* may fail again; 0.0 when it may now."""
        if address is None:
            return 0.0
        over = self._level(address_block(address), now) + self._spacing - self._window
        return over if over > _ROUNDING_SECONDS else 0.0

    def note(self, address: int | None, now: float) -> float:
        """Count a failure of *address*; when it may not fail now, count nothing and return what `wait` does."""
        if address is None:
            return 0.0
        if wait := self.wait(address, now):
            return wait
        block = address_block(address)
        self._drained_at[block] = now + self._level(block, now) + self._spacing
        self._drained_at.move_to_end(block)
        if len(self._drained_at) > _ADDRESSES:
            self._drained_at.popitem(last=False)
        return 0.0

    def __len__(self) -> int:
        return len(self._drained_at)

    def _level(self, block: int, now: float) -> float:
        # Never more than full: a clock that steps back must not shut an address out for as long as the step.
        return min(max(0.0, self._drained_at.get(block, 0.0) - now), self._window)
