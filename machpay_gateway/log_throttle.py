"""A limit on log lines that callers, or an outage, can cause any number of times.

The first line of a kind is written at once. Those that follow within a minute are counted, and the latest of them is
written at the end of the minute with their number.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial

from machpay_gateway.core.errors import Unavailable, describe_error

_SECONDS = 60.0
_MOST_KINDS = 64  # callers choose what they are refused for; the rest share one
_OTHERS = "others"

Write = Callable[[int], None]


@dataclass(slots=True)
class _RepeatedLine:
    until: float
    write: Write
    count: int = 0


class LogThrottle:
    """Writes one line a minute of each kind, with the number of those that it stands for. Mutable."""

    def __init__(self, logger: logging.Logger, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to *logger*. *clock* is in seconds of a monotonic clock."""
        self._logger = logger
        self._clock = clock
        self._lines: dict[Hashable, _RepeatedLine] = {}
        self._timer: asyncio.TimerHandle | None = None

    def log(
        self, level: int, message: str, *arguments: object, kind: Hashable = None, error: BaseException | None = None
    ) -> None:
        """Log a line, now or with the next ones of its *kind*: by default, of its *message*.

        An outage as *error* is explained in the line, and any other error by its traceback.
        """
        if self._logger.isEnabledFor(level):
            self.add(message if kind is None else kind, partial(self._log, level, message, arguments, error))

    def add(self, kind: Hashable, write: Write) -> None:
        """Call *write* with 1 now, or within a minute with the number of calls for this *kind* until then."""
        now = self._clock()
        line = self._lines.get(kind)
        if line is None and len(self._lines) >= _MOST_KINDS:
            self._write_repeated()
            if len(self._lines) >= _MOST_KINDS:
                kind = _OTHERS
                line = self._lines.get(kind)
        if line is not None and now < line.until:
            line.count += 1
            line.write = write
            self._set_timer(line.until - now)
            return
        # Without an event loop no timer has written what was counted in the minute before.
        count = 1 if line is None else line.count + 1
        self._lines[kind] = _RepeatedLine(now + _SECONDS, write)
        write(count)

    def _log(
        self, level: int, message: str, arguments: tuple[object, ...], error: BaseException | None, count: int
    ) -> None:
        if isinstance(error, Unavailable):
            message, arguments, error = f"{message} %s", (*arguments, describe_error(error)), None
        line = f"{message}{times(count)}"
        self._logger.log(level, line, *arguments, exc_info=error)

    def _set_timer(self, seconds: float) -> None:
        if self._timer is not None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # in another thread
            return
        self._timer = loop.call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._write_repeated()
        if waiting := [line.until for line in self._lines.values() if line.count]:
            self._set_timer(max(0.0, min(waiting) - self._clock()))

    def _write_repeated(self) -> None:
        """Write the lines whose minute is over, and forget those that were not repeated."""
        now = self._clock()
        for kind, line in list(self._lines.items()):
            if now < line.until:
                continue
            count, line.count = line.count, 0
            line.until = now + _SECONDS
            if count:
                line.write(count)
            else:
                del self._lines[kind]


def times(count: int) -> str:
    """Return how often a line occurred, to be appended to it; nothing for once."""
    return "" if count == 1 else f" ({count} times in the last minute)"
