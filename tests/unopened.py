"""Each store once, before it is opened: what a suite that holds for all of them runs on."""

from pathlib import Path

import pytest

from machpay_gateway.stores.memory import MemoryStore
from machpay_gateway.stores.sql import SqlStore


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def unopened_store(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryStore | SqlStore:
    match request.param:
        case "memory":
            return MemoryStore()
        case "sqlite-in-memory":
            return SqlStore("sqlite://")
        case "sqlite":
            return SqlStore(f"sqlite:///{tmp_path}/keys.db")
    return SqlStore(request.getfixturevalue("postgres_url"))
