"""Waiting for what becomes true by itself, without a sleep that hopes that it has."""

import asyncio
from collections.abc import Callable

PATIENCE_SECONDS = 10.0


async def until(claim: Callable[[], object]) -> None:
    """Return once *claim* holds. Raises TimeoutError if it does not become true."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not claim():  # noqa: ASYNC110 - what is waited for knows of no event
            await asyncio.sleep(0.001)
