"""Polls a condition of another process, which sends no event when it holds."""

import time
from collections.abc import Callable

from redis.exceptions import RedisError

_PAUSE_SECONDS = 0.02


def wait_until(condition: Callable[[], bool], *, seconds: float, claim: str) -> None:
    """Return as soon as *condition* holds, or raise TimeoutError with *claim*; an error from Redis counts as false."""
    deadline = time.monotonic() + seconds
    last: RedisError | None = None
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except RedisError as exc:
            last = exc
        time.sleep(_PAUSE_SECONDS)
    raise TimeoutError(f"Not within {seconds:g} s: {claim} (last error: {last!r})") from last
