"""A PostgreSQL that goes away, hangs or refuses is a store that is unavailable, and one that is back serves again."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import asyncpg
import pytest

from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.keys.audit import AuditHead, verify_chain
from machpay_gateway.stores.sql import SqlStore
from tests.keyrings import ACME, GLOBEX, logged, stored_key
from tests.postgres.servers import Server, running_server
from tests.redises.waiting import wait_until

KEY = stored_key(1)
CHANGED = replace(KEY, version=2, name="changed")
USES: dict[str, Callable[[SqlStore], Awaitable[object]]] = {
    "opening": lambda store: store.open(),
    "migrating": lambda store: store.migrate(),
    "finding": lambda store: store.find_by_digest(KEY.secrets[0].digest),
    "changes": lambda store: store.changes_after(None),
    "adding": lambda store: store.add_key(replace(KEY, id="key_2"), logged()),
    "reading": lambda store: store.key(None, KEY.id),
    "listing": lambda store: store.keys(None),
    "replacing": lambda store: store.replace_key(CHANGED, logged()),
    "stored response": lambda store: store.stored_response(b"n", 0),
    "new account": lambda store: store.add_account(GLOBEX, logged()),
    "account": lambda store: store.account(ACME.id),
    "accounts": lambda store: store.accounts(),
    "tier": lambda store: store.set_tier(ACME, "enterprise", logged()),
    "log": lambda store: store.audit_page(None),
}


async def filled(url: str) -> SqlStore:
    store = SqlStore(url)
    await store.open(upgrade=True)
    assert await store.add_account(ACME, logged())
    await store.add_key(KEY, logged())
    return store


@asynccontextmanager
async def locked_log(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Keep every change waiting, as another process that hangs in the middle of one would."""
    connection = await asyncpg.connect(url)
    await connection.execute("BEGIN; SELECT 1 FROM audit_head FOR UPDATE")
    try:
        yield connection
    finally:
        await connection.close()


async def waiting(connection: asyncpg.Connection, count: int = 1) -> None:
    """Return when *count* others wait for a lock in this database."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    while await connection.fetchval(query) < count:  # noqa: ASYNC110 - the server has no event to tell of it
        await asyncio.sleep(0.01)


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


async def test_a_server_that_is_gone_is_told_by_every_use_and_serves_again_when_it_is_back(server: Server) -> None:
    store = await filled(server.make_database("outage"))
    for end in (server.stop, server.crash):
        end()
        for name, use in USES.items():
            with pytest.raises(StoreUnavailable):
                await use(store)
            assert name
        server.start()
        assert await store.find_by_digest(KEY.secrets[0].digest) == KEY
    assert await store.replace_key(CHANGED, logged())
    assert verify_chain(AuditHead(), await store.audit_rows(0)) == (await store.audit_head(), None)
    await store.close()


async def test_a_change_that_was_under_way_when_the_server_died_was_not_made(server: Server) -> None:
    url = server.make_database("outage")
    store = await filled(url)
    async with locked_log(url) as lock:
        change = asyncio.create_task(store.replace_key(CHANGED, logged()))
        await waiting(lock)
        server.crash()
        with pytest.raises(StoreUnavailable, match="key change"):
            await change
    server.start()
    assert await store.key(None, KEY.id) == KEY
    assert await store.replace_key(CHANGED, logged())
    await store.close()


async def test_connections_that_the_server_has_ended_are_not_used(postgres_server: Server, postgres_url: str) -> None:
    store = await filled(postgres_url)
    assert await asyncio.gather(*(store.key(None, KEY.id) for _ in range(8))) == [KEY] * 8
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")  # noqa: S608 - a name of ours
    assert await asyncio.gather(*(store.key(None, KEY.id) for _ in range(8))) == [KEY] * 8
    await store.close()


async def test_a_statement_that_hangs_ends_as_unavailable(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machpay_gateway.stores.sql.engine._STATEMENT_SECONDS", 0.1)
    store = await filled(postgres_url)
    async with locked_log(postgres_url):
        with pytest.raises(StoreUnavailable, match="key change"):
            await store.replace_key(CHANGED, logged())
        assert await store.key(None, KEY.id) == KEY  # who only reads does not wait
    assert await store.replace_key(CHANGED, logged())
    await store.close()


async def test_a_pool_that_is_used_up_ends_as_unavailable(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machpay_gateway.stores.sql.engine._WAIT_SECONDS", 0.1)
    monkeypatch.setattr("machpay_gateway.stores.sql.engine._SERVER_POOL", 1)
    store = await filled(postgres_url)
    async with locked_log(postgres_url) as lock:
        change = asyncio.create_task(store.replace_key(CHANGED, logged()))
        await waiting(lock)
        with pytest.raises(StoreUnavailable, match=r"^key$"):
            await store.key(None, KEY.id)
    assert await change
    await store.close()


@pytest.mark.parametrize("place", ["{user}@{host}/missing", "nobody@{host}/{name}"])
async def test_a_server_that_does_not_let_us_in_is_unavailable(postgres_url: str, place: str) -> None:
    user_host, name = postgres_url.removeprefix("postgresql://").split("/")
    user, host = user_host.split("@")
    store = SqlStore("postgresql://" + place.format(user=user, host=host, name=name))
    with pytest.raises(StoreUnavailable, match="schema revision"):
        await store.open()
    await store.close()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"R\0\0\0\x08\0\0\0\0", None])
async def test_what_is_no_postgresql_is_unavailable(answer: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machpay_gateway.stores.sql.engine._WAIT_SECONDS", 0.3)
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if answer is None:
            await done.wait()
        else:
            writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        store = SqlStore(f"postgresql://gate@127.0.0.1:{port}/keys?ssl=disable")
        with pytest.raises(StoreUnavailable, match="schema revision"):
            await store.open()
        done.set()
        await store.close()


async def test_a_cancelled_caller_loses_nothing_and_blocks_nobody(postgres_url: str) -> None:
    store = await filled(postgres_url)
    for steps in range(0, 60, 3):  # after so many turns of the loop, wherever the change is by then
        task = asyncio.create_task(store.replace_key(CHANGED, logged()))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    stored = await store.key(None, KEY.id)
    assert stored in (KEY, CHANGED)
    assert stored is not None
    assert await store.replace_key(replace(stored, version=stored.version + 1, name="last"), logged())
    assert verify_chain(AuditHead(), await store.audit_rows(0)) == (await store.audit_head(), None)
    await store.close()


# A socket can be closed in order on its own loop only, so those of a loop that has ended are left to the collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_store_serves_one_event_loop_after_the_other(postgres_server: Server, postgres_url: str) -> None:
    store = SqlStore(postgres_url)

    async def many_reads() -> None:
        assert await asyncio.gather(*(store.account(ACME.id) for _ in range(20))) == [ACME] * 20

    asyncio.run(store.open())
    assert asyncio.run(store.add_account(ACME, logged()))
    asyncio.run(many_reads())
    asyncio.run(many_reads())
    asyncio.run(store.close())
    gc.collect()
    name = postgres_url.rpartition("/")[2]
    query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608 - a name of ours
    wait_until(lambda: postgres_server.execute(query) == [["0"]], seconds=5, claim="every connection has ended")
