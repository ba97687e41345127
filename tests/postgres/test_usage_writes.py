"""What counting costs a database server: rows written and bytes of its log, by the server's own counters."""

import asyncio
from dataclasses import replace
from itertools import cycle, islice

import pytest

from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.usage.counters import BUCKETS
from machpay_gateway.stores.sql import SqlStore
from machpay_gateway.telemetry.usage import UsageRecorder
from tests.clocks import FixedClock
from tests.gates import principal
from tests.postgres.servers import Server
from tests.redises.waiting import wait_until

ROUTE = Route("GET /v1/skills")
NOON = 1_700_049_600.0
PER_SECOND, KEYS = 270, 200


def written(server: Server, name: str) -> tuple[int, int]:
    """Return the rows that were written in the database, and the bytes of the log of the whole server."""
    rows = "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) FROM pg_stat_user_tables"
    log = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
    [[count], [position]] = server.execute(rows, log, database=name)
    return int(count), int(position)


@pytest.mark.parametrize("workers", [1, 2, 4])
async def test_two_hundred_keys_cost_a_row_write_for_ten_requests_at_most(
    postgres_server: Server, postgres_url: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UsageRecorder, "_schedule_flush", lambda _: None)  # by the test's clock instead
    clock, name = FixedClock(NOON), postgres_url.rpartition("/")[2]
    stores = [SqlStore(postgres_url) for _ in range(workers)]
    fleet = [UsageRecorder(store, clock=clock, timer=clock) for store in stores]
    callers = [
        replace(principal(), id=f"key_{number}", subject=f"key_{number}", secret_digest=number.to_bytes(32, "big"))
        for number in range(KEYS)
    ]
    turns = cycle([(recorder, caller) for caller in callers for recorder in fleet])
    before = written(postgres_server, name)
    minutes = 3
    for _ in range(minutes * 60):
        for recorder, caller in islice(turns, PER_SECOND):
            recorder.record(caller, ROUTE, "allowed", 200, clock() - 0.001)
        clock.advance(1.0)
        if clock.now % 5 == 0:
            await asyncio.gather(*(recorder._flushes.join(None) for recorder in fleet))  # noqa: SLF001 - as its timer does
    requests = minutes * 60 * PER_SECOND
    for store in stores:
        await store.close()
    sessions = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608 - a name of ours
    wait_until(  # a session has reported what it wrote when it has ended
        lambda: postgres_server.execute(sessions) == [["0"]], seconds=10, claim="every session has ended"
    )
    rows, log = (now - then for now, then in zip(written(postgres_server, name), before, strict=True))
    reader = SqlStore(postgres_url)
    for bucket in BUCKETS.values():
        counts = [
            sum(row.count for row in await reader.usage(f"key_{number}", bucket, 0, 2**40)) for number in range(KEYS)
        ]
        assert sum(counts) == requests
    await reader.close()
    assert rows <= 0.1 * requests
    assert log <= 70 * requests
