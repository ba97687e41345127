"""Several servers in one URL: the gateway uses the one that takes writes, and follows it to another."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.errors import ConfigurationError, StoreUnavailable
from machpay_gateway.stores.sql import SqlStore
from machpay_gateway.stores.sql.engine import database_url
from machpay_gateway.stores.sql.health_checks import database_findings
from machpay_gateway.stores.sql.server_connection import Server as Address
from machpay_gateway.stores.sql.server_connection import servers_of
from tests.keyrings import ACME, logged
from tests.postgres.fixtures import migrate
from tests.postgres.servers import USER, Server, running_server, running_standby
from tests.redises.ports import HOST, free_port

NAME = "keys"


@pytest.fixture
def server() -> Iterator[Server]:
    yield from _migrated_server()


@pytest.fixture
def other() -> Iterator[Server]:
    yield from _migrated_server()


def _migrated_server() -> Iterator[Server]:
    with running_server() as server:
        asyncio.run(migrate(server.make_database(NAME)))
        yield server


def url_of(*servers: Server | int, query: str = "?target_session_attrs=read-write") -> str:
    hosts = ",".join(f"{HOST}:{server if isinstance(server, int) else server.port}" for server in servers)
    return f"postgresql://{USER}@{hosts}/{NAME}{query}"


@asynccontextmanager
async def opened(url: str, url_file: Path | None = None) -> AsyncIterator[SqlStore]:
    store = SqlStore(url, url_file=url_file)
    await store.open()
    yield store
    await store.close()


def set_read_only(server: Server, value: str) -> None:
    server.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}", "SELECT pg_reload_conf()")


def accounts(server: Server) -> list[str]:
    return [name for (name,) in server.execute("SELECT name FROM accounts ORDER BY name", database=NAME)]


async def add(store: SqlStore, name: str) -> None:
    assert await store.add_account(Account(f"acct_{name}", name, "standard", 1.0), logged())


async def eventually_add(store: SqlStore, name: str) -> int:
    """Add an account as soon as it can be, and return how often it could not."""
    for failures in range(100):
        try:
            await add(store, name)
        except StoreUnavailable:
            await asyncio.sleep(0.05)
        else:
            return failures
    raise AssertionError("no server takes writes")


@pytest.mark.timeout(120)
async def test_writes_follow_the_primary_through_a_failover(server: Server) -> None:
    with running_standby(server) as standby:
        for order in ((server, standby), (standby, server)):
            async with opened(url_of(*order)) as store:
                await add(store, f"by {order.index(server)}")
        async with opened(url_of(server, standby)) as store, opened(url_of(standby, server)) as second:
            await add(store, "before")
            assert await second.account("before") is not None
            server.crash()
            standby.execute("SELECT pg_promote()")
            assert await eventually_add(store, "after") < 50
            assert await eventually_add(second, "later") < 50
            assert accounts(standby) == ["after", "before", "by 0", "by 1", "later"]


async def test_a_server_that_turned_read_only_is_left_for_one_that_takes_writes(server: Server, other: Server) -> None:
    async with opened(url_of(server, other)) as store:
        await asyncio.gather(*(store.account("x") for _ in range(5)))
        await add(store, "first")
        set_read_only(server, "on")
        await eventually_add(store, "second")
        assert await store.account("first") is None  # reads are of the other server, too
        set_read_only(other, "on")
        set_read_only(server, "off")
        await eventually_add(store, "third")
        assert (accounts(server), accounts(other)) == (["first", "third"], ["second"])


async def test_a_single_server_that_turned_read_only_is_read_and_said_to_be_so(server: Server) -> None:
    async with opened(url_of(server, query="")) as store:
        assert await store.add_account(ACME, logged())
        before = store.is_read_only
        set_read_only(server, "on")
        with pytest.raises(StoreUnavailable):
            await add(store, "refused")
        assert (before, store.is_read_only) == (False, True)
        assert await store.account(ACME.id) == ACME
        (finding,) = [
            it for it in await database_findings(url_of(server, query=""), {"standard"}) if it.subject == "database"
        ]
        assert finding.status.value == "wrong"
        assert finding.message.startswith(f"{HOST}/{NAME} is read-only")
        assert finding.way_out is not None
        assert "target_session_attrs=read-write" in finding.way_out
        set_read_only(server, "off")
        assert await eventually_add(store, "taken") < 5
        assert store.is_read_only is False


async def test_a_server_that_does_not_report_what_it_is_shows_it_by_what_it_does(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncpg.Connection.get_settings", lambda _: None)  # as before PostgreSQL 14
    async with opened(url_of(server, query="")) as store:
        set_read_only(server, "on")
        with pytest.raises(StoreUnavailable):
            await add(store, "refused")
        assert await store.account("any") is None
        before = store.is_read_only
        set_read_only(server, "off")
        await eventually_add(store, "taken")
        assert (before, store.is_read_only) == (True, False)


async def test_servers_that_all_refuse_writes_are_unavailable_and_named(server: Server) -> None:
    set_read_only(server, "on")
    store = SqlStore(url_of(free_port(), server))
    with pytest.raises(StoreUnavailable) as failure:
        await store.open()
    assert f"{HOST}:{server.port} is not read-write" in str(failure.value.__cause__)
    await store.close()


async def test_a_server_that_is_down_is_skipped(server: Server) -> None:
    async with opened(url_of(free_port(), server, query="")) as store:
        await add(store, "first")
        connector = store._database._connector  # noqa: SLF001
        assert connector is not None
        assert connector._first == 1  # noqa: SLF001 - and not tried first again


@pytest.mark.parametrize("is_url", [False, True])
async def test_a_password_is_read_from_its_file_at_each_connection(
    server: Server, tmp_path: Path, *, is_url: bool
) -> None:
    file, passwords = tmp_path / "password", [secrets.token_hex(8) for _ in range(3)]
    whole = f"postgresql://rotated:{{}}@{HOST}:{server.port}/{NAME}" if is_url else "{}"
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotated'"
    file.write_text(f"{whole.format(passwords[0])}\n")
    server.execute("DROP ROLE IF EXISTS rotated", f"CREATE ROLE rotated LOGIN SUPERUSER PASSWORD '{passwords[0]}'")
    server.allow("host all rotated 127.0.0.1/32 scram-sha-256")
    url = f"postgresql://rotated@{HOST}:{server.port}/{NAME}?password_file={file}"
    async with opened(whole.format(passwords[0]), file) if is_url else opened(url) as store:
        await add(store, "first")
        for number, password in enumerate(passwords[1:]):
            server.execute(f"ALTER ROLE rotated PASSWORD '{password}'")
            file.write_text(whole.format(password))
            await add(store, f"open {number}")  # what is connected stays so
            server.execute(ended)
            await add(store, f"new {number}")
        file.write_text(whole.format("another one"))
        server.execute(ended)
        with pytest.raises(StoreUnavailable):
            await add(store, "refused")
        file.unlink()
        with pytest.raises(StoreUnavailable) as failure:
            await add(store, "refused")
        assert os.fspath(file) in str(failure.value.__cause__)
        file.write_text(whole.format(passwords[-1]))
        await add(store, "last")


@pytest.mark.parametrize(
    "text, servers",
    [
        ("postgresql://gate@a,b/keys", [("a", 5432), ("b", 5432)]),
        ("postgresql://gate:w@rd@a:1,b:2,[::1]:3/keys", None),
        ("postgresql://gate:word@a:1,b,[::1]:3/keys?sslmode=require", [("a", 1), ("b", 5432), ("::1", 3)]),
        ("postgresql://a:1,b:2", [("a", 1), ("b", 2)]),
        ("postgresql://gate@/keys?host=a,b&port=1,2", [("a", 1), ("b", 2)]),
        ("postgresql://gate@/keys?host=a:1&host=b:2", [("a", 1), ("b", 2)]),
        ("postgresql://gate@/keys?host=a&host=b&port=7", [("a", 7), ("b", 7)]),
        ("postgresql://gate@/keys?host=/run/postgresql", [("/run/postgresql", 5432)]),
        ("postgresql://gate@db/keys?port=7", [("db", 7)]),
        ("postgresql://gate@[::1]:5/keys", [("::1", 5)]),
        ("postgresql:///keys", []),
    ],
)
def test_the_servers_of_a_url(text: str, servers: list[tuple[str, int]] | None) -> None:
    if servers is None:
        with pytest.raises(ConfigurationError):
            database_url(text)
        return
    url = database_url(text)
    assert servers_of(url) == [Address(*server) for server in servers]
    assert url.database in ("keys", None)
    assert url.username in ("gate", None)


@pytest.mark.parametrize(
    "text, way_out",
    [
        ("postgresql://a,,b/keys", "host1:5432,host2:5432"),
        ("postgresql://a:1,b:x/keys", "host1:5432,host2:5432"),
        ("postgresql://a,b:99999/keys", "host1:5432,host2:5432"),
        ("postgresql://a,b/keys?host=c", "not both"),
        ("postgresql:///keys?host=a,b,c&port=1,2", "one for each host"),
        ("postgresql://a,b/keys?target_session_attrs=standby", "any, primary, read-write"),
        ("postgresql://gate:word@a/keys?password_file=/run/secrets/word", "not both"),
    ],
)
def test_a_url_of_servers_that_cannot_be_meant_is_refused(text: str, way_out: str) -> None:
    with pytest.raises(ConfigurationError, match=way_out) as refusal:
        SqlStore(text)
    assert "word@" not in str(refusal.value)
