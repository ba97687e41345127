"""A process that is killed in the middle of changes loses none that it was told of, and leaves none by halves.

One database lives through all kills, so that each finds what the others have left.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

import orjson
import pytest

from machpay_gateway import Gateway
from machpay_gateway.core.keys.audit import AuditHead, AuditRow, verify_chain
from machpay_gateway.core.keys.key import KeyRecord, key_state
from machpay_gateway.stores.sql import SqlStore
from tests.drills.workers import ROOT
from tests.drills.writer import ACCOUNT, Told
from tests.postgres.servers import running_server
from tests.redises.waiting import wait_until

KILLS = int(os.environ.get("DRILL_KILLS", "200"))
FEW_KILLS = 5
LONGEST_SECONDS = 0.3  # from a writer's first change to its end
_PAGE = 1000
_OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'drill' AND backend_type = 'client backend'"


@dataclass(frozen=True, slots=True)
class Place:
    """A database, and what waits until a server has noticed that a client is dead."""

    url: str
    settle: Callable[[], None]


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        yield Place(f"sqlite:///{tmp_path}/keys.db", lambda: None)
        return
    with running_server() as server:
        yield Place(
            server.make_database("drill"),
            lambda: wait_until(lambda: server.execute(_OTHERS) == [["0"]], seconds=10, claim="the dead client is gone"),
        )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_few_kills_lose_nothing_and_leave_nothing_by_halves(place: Place) -> None:
    _killed_over_and_over(place, FEW_KILLS)


@pytest.mark.drill
@pytest.mark.timeout(3600)
def test_no_kill_loses_a_change_or_leaves_one_by_halves(place: Place) -> None:
    _killed_over_and_over(place, KILLS)


def _killed_over_and_over(place: Place, kills: int) -> None:
    began_at, changes, unheard = time.monotonic(), list[Told](), 0
    asyncio.run(_prepare(place.url))
    draw = random.SystemRandom()
    with _nursery(place.url) as nursery:
        for _ in range(kills):
            changes += _told_until_killed(nursery, draw.uniform(0, LONGEST_SECONDS), draw.getrandbits(32))
            place.settle()
            unheard = asyncio.run(_unheard(place.url, changes))
    change = ", ".join(f"{count} {action}" for action, count in sorted(Counter(t.action for t in changes).items()))
    print(
        f"\n{place.url.split(':')[0]}: {kills} kills in {time.monotonic() - began_at:.0f} s; acknowledged: {change}; "
        f"made and not heard of: {unheard}; lost: 0, by halves: 0"
    )
    assert len(changes) > kills, "the writers have hardly written"


async def _prepare(url: str) -> None:
    gateway = Gateway(database=url)
    await gateway.lifecycle.open(upgrade=True)
    await gateway.accounts.create(ACCOUNT, "standard")
    await gateway.lifecycle.close()


@contextmanager
def _nursery(url: str) -> Iterator[subprocess.Popen[str]]:
    """Run the process that makes writers; it ends with its pipe, when no writer is left."""
    command = [sys.executable, "-m", "tests.drills.writer", url]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as nursery:
        yield nursery


def _told_until_killed(nursery: subprocess.Popen[str], seconds: float, seed: int) -> list[Told]:
    """Let a writer write for so many *seconds*, kill it, and return what it has told till then."""
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    print(seed, file=nursery.stdin, flush=True)
    ready, pid = nursery.stdout.readline().split()
    assert ready == "ready"
    kill = Timer(seconds, os.kill, (int(pid), signal.SIGKILL))
    kill.start()
    lines = list(iter(nursery.stdout.readline, "dead\n"))
    kill.join()
    assert "" not in lines, f"the writer of seed {seed} has failed: see its traceback above"
    return [Told.read(line.rstrip("\n")) for line in lines]


async def _unheard(url: str, changes: Sequence[Told]) -> int:
    """Check that what was told is there and that all is whole; return how many changes are there that nobody told."""
    store = SqlStore(url)
    await store.open()
    rows, records = await _rows(store), await _records(store)
    assert verify_chain(AuditHead(), rows) == (await store.audit_head(), None)
    await store.close()
    history = defaultdict[str, list[AuditRow]](list)
    for row in rows:
        if row.action.startswith("key."):
            history[row.object_id].append(row)
    assert history.keys() == records.keys(), "a key without its rows, or rows without their key"
    for key_id, record in records.items():
        _check_history(record, history[key_id])
    _check_told(changes, records, history)
    return sum(map(len, history.values())) - len(changes)


def _check_history(record: KeyRecord, rows: Sequence[AuditRow]) -> None:
    """Check that there is one row for each version, and that together they tell what the key is."""
    assert len(rows) == record.version
    assert [row.action == "key.create" for row in rows] == [True] + [False] * (record.version - 1)
    state: dict[str, object] = {}
    for row in rows:
        assert orjson.loads(row.before).items() <= state.items() or row.action == "key.create"
        state |= orjson.loads(row.after)
    assert state == orjson.loads(orjson.dumps(key_state(record)))


def _check_told(
    changes: Sequence[Told], records: Mapping[str, KeyRecord], history: Mapping[str, Sequence[AuditRow]]
) -> None:
    """Check that every change that was told is the one of its version, and that the last secret told is still known."""
    last = {change.key_id: change for change in changes if change.digest}
    for change in changes:
        assert history[change.key_id][change.version - 1].action == f"key.{change.action}"
    for change in last.values():
        later = [row.action for row in history[change.key_id][change.version :]].count("key.rotate")
        if later < 2:  # each rotation that nobody told moves it back by one, and the third secret ends
            assert records[change.key_id].secrets[later].digest.hex() == change.digest


async def _rows(store: SqlStore) -> list[AuditRow]:
    rows: list[AuditRow] = []
    while page := await store.audit_rows(len(rows), limit=_PAGE):
        rows += page
    return rows


async def _records(store: SqlStore) -> dict[str, KeyRecord]:
    records: dict[str, KeyRecord] = {}
    after: str | None = None
    while page := await store.keys(None, after=after, limit=_PAGE):
        records |= {record.id: record for record in page}
        after = page[-1].id
    return records
