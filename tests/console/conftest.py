"""A Console of its own for each test."""

from collections.abc import AsyncIterator

import pytest

from tests.console.harness import Rig, serving_console


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with serving_console() as rig:
        yield rig
