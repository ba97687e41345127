"""Each store once, before it is opened: what a suite that holds for all of them runs on."""

from pathlib import Path

import pytest

from machpay_gateway.stores.sql import SqlStore
from tests.prepared import new_sqlite


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def unopened_store(request: pytest.FixtureRequest, tmp_path: Path) -> SqlStore:
    match request.param:
        case "memory":
            return SqlStore("memory://")
        case "sqlite-in-memory":
            return SqlStore("sqlite://")
        case "sqlite":
            return SqlStore(new_sqlite(tmp_path / "keys.db"))
    return SqlStore(request.getfixturevalue("postgres_url"))
