"""What was counted is in the database: all of it after a stop, all but the last `usage_seconds` after a kill."""

import asyncio
import time

import pytest

from machpay_gateway import Tier
from machpay_gateway.core.usage.counters import DAY
from machpay_gateway.settings import Settings
from tests.drills.clients import Client
from tests.drills.tiers import Shape, in_every_shape
from tests.drills.workers import Fleet, running_workers
from tests.redises.servers import running_server

TIER = Tier("1000000/minute", 50)
_USAGE_SECONDS = Settings().usage_seconds
_ASKED_SECONDS = _USAGE_SECONDS + 3.6
_STORING_SECONDS = 0.25  # what a batch may take from when it is due until its commit, on a busy machine


@pytest.mark.drill
@pytest.mark.timeout(60)
@in_every_shape
@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_usage_outlives_the_process_that_counted_it(end: str, shape: Shape) -> None:
    with running_server() as server, running_workers(1, server.url, {"standard": shape(TIER)}) as fleet:
        [(key_id, secret)] = await fleet.keys()
        answered = await _answered(fleet, secret)
        ended_at = time.monotonic()
        await asyncio.to_thread(fleet.workers[0].kill if end == "kill" else fleet.workers[0].stop)
        async with fleet.gateway() as gateway:
            rows = await gateway.store.usage(key_id, DAY, 0, 2**40)
            record = await gateway.keys.get(None, key_id)
    counted = sum(row.count for row in rows)
    due = sum(at < ended_at - _USAGE_SECONDS - _STORING_SECONDS for at in answered)
    print(
        f"\n{end}, {shape.__name__}: "
        f"{len(answered)} requests, {counted} counted, {due} of them more than {_USAGE_SECONDS:g} s before"
    )
    assert due > 100
    assert {(row.key.route, row.key.outcome, row.key.status) for row in rows} == {("GET /quick", "allowed", 200)}
    assert due <= counted <= len(answered)
    assert end == "kill" or counted == len(answered)
    assert record is not None
    assert record.last_used_at is not None


async def _answered(fleet: Fleet, secret: str) -> list[float]:
    """Ask one request after the other, and return when each was answered."""
    answered, ends_at = [], time.monotonic() + _ASKED_SECONDS
    async with Client.to(fleet.ports[0]) as client:
        while time.monotonic() < ends_at:
            assert await client.ask("/quick", secret) == 200
            answered.append(time.monotonic())
    return answered
