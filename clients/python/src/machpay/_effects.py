"""The side effects of a client other than the network: clocks and randomness, which tests replace."""

import os
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

AsyncSleep = Callable[[float], Awaitable[None]]
Sleep = Callable[[float], None]


def _new_idempotency_key() -> str:
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class Effects:
    """Clocks in seconds, *now* since the epoch. *draw* returns from [0, 1), *entropy* is cryptographically secure."""

    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    draw: Callable[[], float] = random.random
    new_idempotency_key: Callable[[], str] = _new_idempotency_key
    entropy: Callable[[int], bytes] = os.urandom
