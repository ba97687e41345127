"""What a client takes from the world besides the network, in one place so that a test can put its own there."""

import asyncio
import os
import random
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

AsyncSleep = Callable[[float], Awaitable[None]]
Sleep = Callable[[float], None]
AsyncLock = asyncio.Lock
Lock = threading.Lock


def _new_idempotency_key() -> str:
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class Effects:
    """Clocks in seconds, *now* since the epoch; *draw* is from [0, 1), *entropy* fit for secrets."""

    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    draw: Callable[[], float] = random.random
    new_idempotency_key: Callable[[], str] = _new_idempotency_key
    entropy: Callable[[int], bytes] = os.urandom
