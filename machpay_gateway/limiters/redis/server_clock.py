"""The clock of a server, beside that of this host."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from machpay_gateway.core.clock_skew import ClockSkew
from machpay_gateway.limiters.redis.connection import FAILURES, REPLY_TIMEOUT_SECONDS, PipelinedConnection, execute


async def measure_skew(
    connection: PipelinedConnection, key: bytes, skew: ClockSkew, wall_clock: Callable[[], float]
) -> None:
    """Add the server's time to *skew*. A failure, or a reply that is late, adds nothing."""
    sent_at = wall_clock()
    with suppress(*FAILURES):
        async with asyncio.timeout(REPLY_TIMEOUT_SECONDS):
            seconds, microseconds = cast("list[Any]", await execute(connection, key, ("TIME",)))
        skew.add(sent_at, int(seconds) + int(microseconds) / 1e6, wall_clock())
