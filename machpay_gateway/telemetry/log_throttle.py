"""A limit on log lines about what goes wrong with each request."""

import time
from collections.abc import Callable

_SECONDS = 60.0


class LogThrottle:
    """Lets one line a minute pass. Mutable."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Let the first line pass. *clock* is in seconds of a monotonic clock."""
        self._clock = clock
        self._next_at = float("-inf")

    def passes(self) -> bool:
        """Return whether a line may be logged now; then none may for a minute."""
        if (now := self._clock()) < self._next_at:
            return False
        self._next_at = now + _SECONDS
        return True
