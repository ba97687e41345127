"""A database of many keys answers frequent queries from its indexes, without reading other rows."""

import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from sqlalchemy import event, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Engine

from machpay_gateway.stores.schema import ACCOUNTS, KEY_SECRETS, KEYS
from machpay_gateway.stores.sql import SqlStore
from machpay_gateway.stores.sql.collation import bytewise
from machpay_gateway.stores.sql.engine import Database
from machpay_gateway.stores.sql.keys import SqlKeys

COUNT = 5000
Use = Callable[[SqlKeys], Awaitable[object]]


def key_id(number: int) -> str:
    return f"key_{number * 7919 % COUNT:05}"  # no order that the creation follows


def page(account_id: str | None, after: int | None) -> Use:
    cursor = None if after is None else key_id(after)
    return lambda keys: keys.keys(account_id, after=cursor, limit=10)


USES: Sequence[tuple[Use, str]] = [
    (lambda keys: keys.find_by_digest(digest(7)), r"pk_key_secrets|sqlite_autoindex_key_secrets_1"),
    (lambda keys: keys.key("acct_7", key_id(7)), r"pk_keys|sqlite_autoindex_keys_1"),
    (lambda keys: keys.find_by_digests([digest(7)]), r"pk_key_secrets|sqlite_autoindex_key_secrets_1"),
    (lambda keys: keys.find_by_ids([key_id(n) for n in range(10)]), r"pk_keys|sqlite_autoindex_keys_1"),
    (page("acct_7", None), r"ix_keys_account_id_created_at_id"),
    (page("acct_7", 2507), r"ix_keys_account_id_created_at_id"),
    (page(None, None), r"ix_keys_created_at_id"),
    (page(None, 2507), r"ix_keys_created_at_id"),
]


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/keys.db"
    return str(request.getfixturevalue("postgres_url"))


async def filled(url: str) -> Database:
    store = SqlStore(url)
    await store.open()
    await store.close()
    database = Database(url, busy_timeout_seconds=5.0)
    numbers = range(COUNT)
    texts = {"scopes": "[]", "allowed_ips": "[]", "metadata": "{}", "environment": "live", "name": "k", "version": 1}
    async with database.write_transaction("many keys") as connection:
        accounts = [{"id": f"acct_{n}", "name": f"{n}", "tier": "standard", "created_at": 1.0} for n in range(100)]
        await connection.execute(insert(ACCOUNTS), accounts)
        moments = [{"created_at": float(n), "changed_at": float(n)} for n in numbers]
        made = [{"id": key_id(n), "account_id": f"acct_{n % 100}", **moments[n], **texts} for n in numbers]
        await connection.execute(insert(KEYS), made)
        secret = {"position": 0, "masked": "m", "created_at": 1.0}
        await connection.execute(
            insert(KEY_SECRETS), [{"digest": digest(n), "key_id": key_id(n), **secret} for n in numbers]
        )
        await connection.exec_driver_sql("ANALYZE")
    return database


async def plan(database: Database, use: Use) -> str:
    """Return the database's query plan of the one statement of *use*."""
    statements: list[tuple[str, object]] = []

    def record(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        statements.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", record)
    try:
        assert await use(SqlKeys(database))
    finally:
        event.remove(Engine, "before_cursor_execute", record)
    ((statement, parameters),) = statements
    explain = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
    async with database.read_connection("plan") as connection:
        rows = await connection.exec_driver_sql(f"{explain} {statement}", parameters)  # type: ignore[arg-type]  # as recorded
        return "\n".join(str(row[-1]) for row in rows)


async def test_every_frequent_query_uses_an_index(url: str) -> None:
    database = await filled(url)
    for use, index in USES:
        steps = await plan(database, use)
        assert re.search(index, steps), steps
        # Accounts are few, and SQLite says SCAN of what it walks along an index from the end.
        assert not re.search(r"Seq Scan on (keys|key_secrets)|SCAN (keys|key_secrets)(?! USING)", steps), steps
    await database.close()


async def test_a_page_begins_in_the_index_and_does_not_read_up_to_its_cursor(url: str) -> None:
    database = await filled(url)
    for account_id in (None, "acct_7"):
        steps = await plan(database, page(account_id, 2507))
        assert re.search(r"created_at<\?|Index Cond: .*created_at <= ", steps), steps
    await database.close()


def test_text_is_compared_by_its_bytes_whatever_the_databases_language() -> None:
    spelt = [str(bytewise(KEYS.c.id).compile(dialect=dialect.dialect())) for dialect in (sqlite, postgresql)]
    assert spelt == ["keys.id", 'keys.id COLLATE "C"']
