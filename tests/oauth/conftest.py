"""An authorization server on SQLite in memory."""

from collections.abc import AsyncIterator

import pytest

from tests.oauth.harness import Rig, serving_oauth


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with serving_oauth() as rig:
        yield rig
