"""How many bad credentials an address may present before it is slowed down: a leaky bucket (GCRA) for each address."""

from itertools import islice
from typing import Self

from machpay_gateway.core.network.address import address_block

_ADDRESSES = 8192  # about 1 MB; beyond it and `_SURPLUS`, the addresses that failed longest ago are forgotten
_SURPLUS = 1024  # forgotten at once: a dict takes half the memory of an OrderedDict, but is slow to find its first
_ROUNDING_SECONDS = 1e-5  # a float holds seconds since the epoch to 2e-7; sums of them are off by a few of those
_NO_ADDRESS = -1  # the bucket of requests without a readable address


class Failures:
    """Counts failures by address, all of an IPv6 /64 together. Mutable: it is a record of the past.

    Requests without a readable address share one bucket of ten times the size. One client could fill it for all of
    them; but without it, a client that makes its address unreadable could fail without limit. Times are seconds on the
    caller's clock.
    """

    def __init__(self, limit: int, window_seconds: int) -> None:
        """Allow *limit* failures at once, and as many again over each *window_seconds*."""
        self._spacing = window_seconds / limit
        self._window = window_seconds
        self._drained_at: dict[int, float] = {}

    def scaled(self, factor: int) -> Self:
        """Return an empty counter that allows *factor* times as many failures."""
        return type(self)(round(self._window / self._spacing) * factor, self._window)

    def wait(self, address: int | None, now: float) -> float:
        """Return the seconds until *address* may fail again; 0.0 when it may now."""
        block, spacing = self._bucket(address)
        over = self._level(block, now) + spacing - self._window
        return over if over > _ROUNDING_SECONDS else 0.0

    def count(self, address: int | None, now: float) -> float:
        """Count a failure of *address* and return 0.0; over the limit, count nothing and return `wait`."""
        if wait := self.wait(address, now):
            return wait
        block, spacing = self._bucket(address)
        drained_at = now + self._level(block, now) + spacing
        self._drained_at.pop(block, None)  # its new entry is the last one
        self._drained_at[block] = drained_at
        if len(self._drained_at) > _ADDRESSES + _SURPLUS:
            self._drained_at = dict(islice(self._drained_at.items(), _SURPLUS, None))
        return 0.0

    def forgive(self, address: int | None, now: float) -> None:
        """Take back one counted failure of *address*."""
        block, spacing = self._bucket(address)
        if (drained_at := self._drained_at.pop(block, 0.0) - spacing) > now + _ROUNDING_SECONDS:
            self._drained_at[block] = drained_at

    def __len__(self) -> int:
        return len(self._drained_at)

    def _bucket(self, address: int | None) -> tuple[int, float]:
        """Return the key of the bucket, and how many seconds of it one failure fills."""
        if address is None:
            return _NO_ADDRESS, self._spacing / 10
        return address_block(address), self._spacing

    def _level(self, block: int, now: float) -> float:
        # At most full: a clock that is set back must not lock an address out for as long as it was set back.
        return min(max(0.0, self._drained_at.get(block, 0.0) - now), self._window)
