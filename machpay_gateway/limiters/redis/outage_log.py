"""What the log says of outages: the first at once, and then one line a minute, however long or many they are.

A server that is full, or a network that flaps, would otherwise fill the log with the begins and ends of outages.
"""

import logging
import time
from collections.abc import Callable

from machpay_gateway.limiters.redis.refusals import ServerRefusal

logger = logging.getLogger(__name__)

_SECONDS = 60.0


class OutageLog:
    """Logs the outages of one server. Mutable."""

    def __init__(
        self, server: Callable[[], str] = lambda: "Redis", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Log what happens to *server*, which has that name now. *clock* is in seconds of a monotonic clock."""
        self._server = server
        self._clock = clock
        self._began_at: float | None = None  # None when there is no outage
        self._reason = ""
        self._is_logged = False  # whether a line says that this outage began
        self._is_refusal_logged = False
        self._quiet_until = float("-inf")  # outages that begin earlier are only counted
        self._reminded_at = 0.0
        self._decided = 0  # without the server, at the last reminder
        self._unlogged = 0  # outages
        self._unlogged_seconds = 0.0

    def begin(self, reason: str, refusal: ServerRefusal | None) -> None:
        """Note that there is an outage, by a *reason* that may be another one than before, or by a *refusal*."""
        now = self._clock()
        self._reason = reason if refusal is None else f"{refusal.message}. The way out: {refusal.way_out}."
        if self._began_at is None:
            self._began_at, self._is_refusal_logged = now, False
            self._is_logged = now >= self._quiet_until
            self._unlogged += not self._is_logged
            if self._is_logged and refusal is None:
                self._log(f"does not answer: limits are decided without it. {reason}")
        if self._is_logged and refusal is not None and not self._is_refusal_logged:  # it may be known only later
            self._is_refusal_logged = True
            self._log(f"does not serve the limits: {self._reason}")

    def end(self) -> None:
        """Note that the outage has ended."""
        seconds = 0.0 if self._began_at is None else self._clock() - self._began_at
        self._began_at = None
        if self._is_logged:
            self._log(f"answers again, after {seconds:.1f} s.")
        else:
            self._unlogged_seconds += seconds

    def remind(self, decided: int) -> None:
        """Log what no line has said for a minute. *decided* is how often limits were decided without the server."""
        now = self._clock()
        if now < self._reminded_at + _SECONDS:
            return
        if self._began_at is not None:
            more = f", and was away {self._unlogged} times in the last minute" if self._unlogged > 1 else ""
            decisions = f"{decided - self._decided} limits were decided without it since the last such line"
            self._log(f"has not answered for {now - self._began_at:.0f} s{more}: {decisions}. {self._reason}")
            self._is_logged = True
        elif self._unlogged:
            self._log(
                f"answers: in the last minute it was away {self._unlogged} times, for {self._unlogged_seconds:.1f} s. "
                f"{self._reason}"
            )
        self._decided, self._unlogged, self._unlogged_seconds = decided, 0, 0.0

    def _log(self, message: str) -> None:
        self._reminded_at = self._clock()
        self._quiet_until = self._reminded_at + _SECONDS
        logger.warning("%s %s", self._server(), message)
