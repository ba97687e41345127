"""What only the SQL store has: URLs, files, event loops, processes, and a database that goes away."""

import asyncio
import gc
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.errors import ConfigurationError, StoreUnavailable
from machpay_gateway.stores.sql import SqlStore
from machpay_gateway.stores.sql.engine import database_url
from tests.keyrings import logged, stored_key

ACME = Account("acct_acme", "Acme", "standard", 100.0)
GLOBEX = Account("acct_globex", "Globex", "standard", 200.0)
KEY = stored_key(1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.db"


async def opened(path: Path, *, busy_timeout_seconds: float = 5.0) -> SqlStore:
    store = SqlStore(f"sqlite:///{path}", busy_timeout_seconds=busy_timeout_seconds)
    await store.open()
    return store


async def made(path: Path) -> None:
    await (await opened(path)).close()


@pytest.mark.parametrize(
    "text, driver, database",
    [
        ("sqlite:////var/lib/machpay.db", "sqlite+aiosqlite", "/var/lib/machpay.db"),
        ("sqlite:///machpay.db", "sqlite+aiosqlite", str(Path("machpay.db").absolute())),  # whatever chdir follows
        ("postgresql://gate:word@db:5433/keys", "postgresql+asyncpg", "keys"),
    ],
)
def test_a_url_names_its_driver_and_database(text: str, driver: str, database: str) -> None:
    url = database_url(text)
    assert (url.drivername, url.database) == (driver, database)


@pytest.mark.parametrize("text", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_database_in_memory_is_never_shared_with_another(text: str) -> None:
    assert database_url(text).database != database_url(text).database


def test_libpqs_sslmode_is_understood() -> None:
    assert dict(database_url("postgresql://db/keys?sslmode=require").query) == {"ssl": "require"}


@pytest.mark.parametrize(
    "text, way_out",
    [
        ("", "sqlite:///machpay.db"),
        ("machpay.db", "sqlite:///machpay.db"),
        ("mysql://db/keys", "postgresql://"),
        ("postgres://db/keys", "postgresql://"),
        ("postgresql+psycopg://db/keys", "postgresql://"),  # the driver is ours to choose
        ("sqlite://machpay.db", "three slashes"),  # would be a host
        ("sqlite:///machpay.db?mode=ro", "no options"),
        ("postgresql://db:port/keys", "postgresql://"),
        ("postgresql://db/keys?pool_size=5", "prepared_statement_cache_size"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_with_the_way_out(text: str, way_out: str) -> None:
    with pytest.raises(ConfigurationError, match=way_out):
        SqlStore(text)


@pytest.mark.parametrize("text", ["mysql://root:hunter2@db/keys", "postgresql://root:hunter2@db:x/keys", "hunter2"])
def test_a_refused_url_is_not_repeated_because_it_may_hold_a_password(text: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        database_url(text)
    assert "hunter2" not in str(refusal.value)


async def test_a_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ConfigurationError, match=r"pip install .machpay-gateway\[postgresql\]"):
        await SqlStore("postgresql://db/keys").open()


async def test_a_file_in_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a directory"):
        await opened(tmp_path / "missing" / "keys.db")


def test_a_file_that_is_no_database_is_refused_and_kept(path: Path) -> None:
    path.write_text("[[routes]] and much more than sixteen bytes")
    with pytest.raises(ConfigurationError, match="not a SQLite database"):
        asyncio.run(made(path))
    assert path.read_text().startswith("[[routes]]")


def test_a_new_file_is_for_its_owner_only(path: Path) -> None:
    asyncio.run(made(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_what_one_store_writes_the_next_read_of_another_sees(path: Path) -> None:
    writer, reader = await opened(path), await opened(path)
    await writer.add_account(ACME, logged())
    await writer.add_key(KEY, logged())
    assert await reader.key(None, KEY.id) == KEY
    assert await writer.replace_key(replace(KEY, version=2, revoked_at=2000.0), logged(2000.0))
    assert [record.version for record in await reader.find_by_ids([KEY.id])] == [2]
    assert not await reader.replace_key(replace(KEY, version=2), logged(2001.0))
    await writer.close()
    await reader.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///{path}"])
def test_a_store_serves_one_event_loop_after_the_other(url: str, path: Path) -> None:
    store = SqlStore(url.format(path=path))

    async def many_reads() -> None:  # more than there are connections: some have to wait, which ties them to the loop
        assert await asyncio.gather(*(store.account("Acme") for _ in range(20))) == [ACME] * 20

    asyncio.run(store.open())
    assert asyncio.run(store.add_account(ACME, logged()))
    asyncio.run(many_reads())
    asyncio.run(many_reads())
    asyncio.run(store.close())


def test_a_process_that_never_closes_its_store_ends(path: Path) -> None:
    program = f"""
import asyncio
from machpay_gateway.stores.sql import SqlStore
store = SqlStore("sqlite:///{path}")
asyncio.run(store.open())
print(asyncio.run(store.accounts()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_uses_connections_of_its_own(path: Path) -> None:
    program = f"""
import asyncio, os, sys
from machpay_gateway.stores.sql import SqlStore
store = SqlStore("sqlite:///{path}")
asyncio.run(store.open())
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
asyncio.run(store.accounts())
asyncio.run(store.close())
os._exit(7)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 7


@pytest.mark.parametrize("module", ["cli.main", "stores.cache", "services.keys", "services.accounts"])
def test_sqlalchemy_is_imported_only_with_the_sql_store(module: str) -> None:
    program = f"import sys, machpay_gateway.{module}; sys.exit('sqlalchemy' in sys.modules or 'alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


def test_a_database_that_is_up_to_date_is_opened_without_alembic_and_the_other_dialect(path: Path) -> None:
    asyncio.run(made(path))
    program = f"""
import asyncio, sys
from machpay_gateway.stores.sql import SqlStore
asyncio.run(SqlStore("sqlite:///{path}").open())
sys.exit(bool({{"alembic", "sqlalchemy.dialects.postgresql"}} & sys.modules.keys()))
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(
    "named, use",
    [
        ("key lookup", lambda store: store.find_by_digest(KEY.secrets[0].digest)),
        ("key", lambda store: store.key(None, KEY.id)),
        ("keys", lambda store: store.keys(None)),
        ("changes", lambda store: store.changes_after(None)),
        ("key creation", lambda store: store.add_key(KEY, logged())),
        ("key change", lambda store: store.replace_key(KEY, logged(1.0))),
        ("account creation", lambda store: store.add_account(ACME, logged())),
        ("account", lambda store: store.account("Acme")),
        ("accounts", lambda store: store.accounts()),
        ("tier change", lambda store: store.set_tier(ACME, "standard", logged(1.0))),
        ("schema upgrade", lambda store: store.migrate()),
    ],
)
async def test_a_database_that_went_away_is_unavailable(
    tmp_path: Path, named: str, use: Callable[[SqlStore], Awaitable[object]]
) -> None:
    folder = tmp_path / "mounted"
    folder.mkdir()
    store = await opened(folder / "keys.db")
    await store.close()
    folder.rename(tmp_path / "unmounted")
    with pytest.raises(StoreUnavailable, match=f"^{named}$"):
        await use(store)
    (tmp_path / "unmounted").rename(folder)
    assert list(await store.accounts()) == []  # and it is back without a restart
    await store.close()


def test_a_process_whose_database_is_away_ends_without_a_traceback(tmp_path: Path) -> None:
    program = f"""
import asyncio, threading
from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.stores.sql import SqlStore

closed = threading.Event()

def late(frame, event, _argument):
    if event == "return" and frame.f_code.co_name == "close_and_stop":
        closed.wait(0.2)  # the worst moment to be told of it

async def main():
    threading.setprofile(late)
    try:
        await SqlStore("sqlite:///{tmp_path}/nowhere/keys.db").account("Acme")
    except StoreUnavailable:
        print("away")

asyncio.run(main())
closed.set()
for thread in set(threading.enumerate()) - {{threading.main_thread()}}:
    thread.join()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout, ended.stderr) == ("away\n", "")


async def test_while_another_process_writes_reads_go_on_and_writes_end_as_unavailable(path: Path) -> None:
    store = await opened(path, busy_timeout_seconds=0.01)
    await store.add_account(ACME, logged())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await store.account("Acme") == ACME
        with pytest.raises(StoreUnavailable, match="key creation"):
            await store.add_key(KEY, logged())
        other.execute("ROLLBACK")
    await store.add_key(KEY, logged())
    assert await store.key(None, KEY.id) == KEY
    await store.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///{path}"])
async def test_a_cancelled_caller_loses_nothing_and_blocks_nobody(url: str, path: Path) -> None:
    store = SqlStore(url.format(path=path))
    await store.open()
    await store.add_account(ACME, logged())
    await store.add_key(KEY, logged())
    for steps in range(12):  # after so many turns of the loop, wherever the change is by then
        task = asyncio.create_task(store.replace_key(replace(KEY, version=2, name="changed"), logged(2000.0)))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await store.add_account(GLOBEX, logged())  # a commit that was under way is over when another writer had its turn
    stored = await store.key(None, KEY.id)
    assert stored in (KEY, replace(KEY, version=2, name="changed"))
    assert stored is not None
    assert await store.replace_key(replace(stored, version=stored.version + 1, name="last"), logged(3000.0))
    await store.close()


@pytest.mark.parametrize("url", ["memory://", "sqlite://"])
async def test_a_closed_store_in_memory_keeps_its_records_as_long_as_it_exists(url: str) -> None:
    store = SqlStore(url)
    await store.open()
    await store.add_account(ACME, logged())
    await store.close()
    await store.open()
    assert list(await store.accounts()) == [ACME]
    await store.close()
    assert list(await SqlStore(url).accounts()) == []


def test_stores_in_memory_have_a_secret_key_each() -> None:
    stores = [SqlStore("memory://"), SqlStore("memory://")]
    one, other = [store.secret_key() for store in stores]
    assert one != other
    assert [store.secret_key() for store in stores] == [one, other]


async def test_a_store_in_memory_is_freed_with_its_connections_though_nobody_closed_it() -> None:
    before = set(threading.enumerate())
    store = SqlStore("memory://")
    await store.add_account(ACME, logged())
    database = weakref.ref(store._database)  # noqa: SLF001 - what must not leak
    connections = set(threading.enumerate()) - before
    assert connections
    del store
    gc.collect()
    assert database() is None
    for thread in connections:
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()


@pytest.fixture
def being_written(tmp_path: Path) -> Iterator[tuple[Path, sqlite3.Connection]]:
    """A new file that another process is writing to before anybody has given it a journal."""
    path = tmp_path / "keys.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("CREATE TABLE theirs (id)")
        yield path, writer


async def test_a_start_waits_for_another_that_writes_to_the_same_new_file(
    being_written: tuple[Path, sqlite3.Connection],
) -> None:
    path, writer = being_written
    store = SqlStore(f"sqlite:///{path}")
    opening = asyncio.create_task(store.open())
    done, _ = await asyncio.wait([opening], timeout=0.1)
    assert not done
    writer.execute("ROLLBACK")
    await opening
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    await store.close()


async def test_a_start_does_not_wait_for_ever(being_written: tuple[Path, sqlite3.Connection]) -> None:
    store = SqlStore(f"sqlite:///{being_written[0]}", busy_timeout_seconds=0.1)
    with pytest.raises(StoreUnavailable, match="journal mode"):
        await store.open()
    await store.close()
