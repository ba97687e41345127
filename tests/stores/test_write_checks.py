"""What `doctor` says of a database that is full, read-only, a replica, or has another time."""

import asyncio
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from machpay_gateway.core.check_result import CheckResult, CheckStatus
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.stores.sql.health_checks import database_findings
from machpay_gateway.stores.sql.store import SqlStore
from tests.postgres.servers import Server, running_server, running_standby
from tests.prepared import new_sqlite
from tests.redises.waiting import wait_until

WRITES = "database writes"


async def found(url: str, subject: str = WRITES) -> tuple[CheckStatus, str]:
    (result,) = [result for result in await database_findings(url, ()) if result.subject == subject]
    assert isinstance(result, CheckResult)
    assert result.status is CheckStatus.OK or result.way_out
    return result.status, result.message


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 24 MB, where the tests may mount one."""
    with TemporaryDirectory() as folder:
        if not mount("-t", "tmpfs", "-o", "size=24m,mode=755", "none", folder):
            pytest.skip("only root can mount a file system")
        yield Path(folder)
        subprocess.run([str(shutil.which("umount")), "-l", folder], check=True)


def mount(*arguments: str) -> bool:
    tool = shutil.which("mount")
    return tool is not None and subprocess.run([tool, *arguments], check=False).returncode == 0


def fill(folder: Path) -> None:
    with (folder / "filler").open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            return


async def test_a_healthy_database_takes_writes(tmp_path: Path, postgres_url: str) -> None:
    for url in (new_sqlite(tmp_path / "machpay.db"), postgres_url):
        assert await found(url) == (CheckStatus.OK, "it takes writes")
    assert await found(postgres_url, "database clock") == (CheckStatus.OK, "within 1 s of this host's")


async def test_a_full_disk_under_sqlite_is_found(small_disk: Path) -> None:
    url = new_sqlite(small_disk / "machpay.db")
    status, message = await found(url)
    assert (status, "MB left: once it is full" in message) == (CheckStatus.WARNING, True)
    fill(small_disk)
    status, message = await found(url)
    assert status is CheckStatus.WRONG
    assert message == f"the disk of {small_disk} is full: no change and no usage can be stored"


async def test_a_read_only_disk_under_sqlite_is_found(small_disk: Path) -> None:
    url = new_sqlite(small_disk / "machpay.db")
    assert mount("-o", "remount,ro", str(small_disk))
    with pytest.raises(ConfigurationError, match="Read-only file system"):
        await found(url)


async def test_a_full_disk_of_a_server_is_found_and_nothing_remains(small_disk: Path) -> None:
    with running_server() as server:
        os.chown(small_disk, *owner_of(server))
        server.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
        server.make_database("small")
        server.execute("ALTER DATABASE small SET TABLESPACE small")
        url = server.url("small")
        store = SqlStore(url)
        await store.open(upgrade=True)
        await store.close()
        assert await found(url) == (CheckStatus.OK, "it takes writes")
        left = "SELECT count(*) FROM pg_class WHERE relname = 'machpay_doctor'"
        assert server.execute(left, database="small") == [["0"]]
        fill(small_disk)
        message = "the server's disk is full: no change and no usage can be stored"
        assert await found(url) == (CheckStatus.WRONG, message)


def owner_of(server: Server) -> tuple[int, int]:
    data = (server.folder / "data").stat()
    return data.st_uid, data.st_gid


async def test_a_read_only_server_is_found(postgres_url: str, postgres_server: Server) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    status, message = await found(postgres_url, "database")
    assert status is CheckStatus.WRONG
    assert "is read-only (by default_transaction_read_only): keys are verified" in message


async def test_without_the_right_to_temporary_tables_it_says_that_it_cannot_tell(
    postgres_url: str, postgres_server: Server
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC", f"CREATE ROLE {name}_user LOGIN")
    postgres_server.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}_user", database=name)
    try:
        status, message = await found(postgres_url.replace("postgres@", f"{name}_user@"))
    finally:
        postgres_server.execute(f"DROP OWNED BY {name}_user", database=name)
        postgres_server.execute(f"DROP ROLE {name}_user")
    assert status is CheckStatus.WARNING
    assert "permission denied to create temporary tables" in message


async def test_a_server_whose_clock_is_off_is_found(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 3600.0)
    status, message = await found(postgres_url, "database clock")
    assert (status, message.partition(":")[0]) == (CheckStatus.WARNING, "3600.0 s ahead of this host's")


async def test_a_replica_is_found_with_how_far_it_is_behind() -> None:
    with running_server() as primary:
        url = primary.make_database("replicated")
        store = SqlStore(url)
        await store.open(upgrade=True)
        await store.close()
        with running_standby(primary) as replica:
            copy = replica.url("replicated")
            status, message = await found(copy, "database")
            assert (status, REPLICA.format("0.0 s") in message) == (CheckStatus.WRONG, True)
            primary.execute("CREATE TABLE more (a int)", database="replicated")
            await asyncio.to_thread(wait_until, lambda: has_replayed(replica), seconds=10, claim="it has replayed that")
            replica.execute("SELECT pg_wal_replay_pause()", database="replicated")
            primary.execute("DROP TABLE more", database="replicated")
            await asyncio.to_thread(wait_until, lambda: is_behind(replica), seconds=10, claim="it is behind")
            _, message = await found(copy, "database")
            assert re.search(REPLICA.format(r"(?!0\.0)\d+\.\d s").replace("(a", r"\(a"), message)


REPLICA = "is read-only (a replica, {} behind its primary"


def has_replayed(replica: Server) -> bool:
    return replica.execute("SELECT pg_last_xact_replay_timestamp() IS NOT NULL") == [["t"]]


def is_behind(replica: Server) -> bool:
    waits = "SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()"
    late = "SELECT clock_timestamp() - pg_last_xact_replay_timestamp() > '0.1 s'"
    return replica.execute(waits, late) == [["t"], ["t"]]
