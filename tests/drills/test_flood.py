"""One account floods a worker; another one is served."""

import asyncio
import time

import pytest

from machpay_gateway import Tier
from tests.drills.load import Plan
from tests.drills.loads import READY_SECONDS, notes_in, print_row, running_loads
from tests.drills.workers import running_workers
from tests.redises.servers import running_server

TIERS = {"standard": Tier("10000000/minute", 5000)}
_FLOOD_CONNECTIONS, _OTHERS = 300, 10
_SECONDS = 15
_PATH = "/work?seconds=0.002"


@pytest.mark.drill
@pytest.mark.timeout(120)
async def test_an_account_that_floods_a_worker_does_not_keep_the_others_from_it() -> None:
    with running_server() as redis, running_workers(1, redis.url, TIERS) as fleet:
        floods = [secret for _, secret in await fleet.keys(20, account="flood")]
        others = [secret for _, secret in await fleet.keys(_OTHERS, account="other")]
        began_at = time.monotonic() + READY_SECONDS
        ends_at = began_at + _SECONDS
        plans = [
            Plan(
                fleet.ports,
                _PATH,
                others,
                notes_in(fleet),
                _OTHERS,
                began_at,
                ends_at,
                pause_seconds=0.05,
            ),
            Plan(fleet.ports, _PATH, floods, notes_in(fleet), _FLOOD_CONNECTIONS, began_at + 5, ends_at),
        ]
        with running_loads(plans, fleet.folder) as loads:
            await asyncio.sleep(READY_SECONDS + _SECONDS)
            of_others, of_flood = (load.answers() for load in loads)
        fleet.check_logs()
    before = sorted(answer.came - answer.sent for answer in of_others if answer.sent < began_at + 5)
    during = sorted(answer.came - answer.sent for answer in of_others if began_at + 9 < answer.sent < ends_at - 1)
    p99 = [waits[int(0.99 * (len(waits) - 1))] * 1000 for waits in (before, during)]
    print_row("flood", of_flood, f"others: p99 {p99[0]:.0f} ms before, {p99[1]:.0f} ms during, of {len(during)}")
    assert {answer.status for answer in of_others} == {200}
    assert {answer.status for answer in of_flood} <= {200, 503}
    assert any(answer.status == 503 for answer in of_flood)
