"""What the counts of quotas are after a server lost them."""

from collections.abc import AsyncIterator

import pytest

from machpay_gateway.core.limits.admission import AdmissionRequest, Admitted
from machpay_gateway.core.limits.plan import Part, plan_of
from machpay_gateway.core.limits.rate import Limits
from tests.limiters.harness import Harness, redis_at
from tests.redises.servers import Server, running_server

pytestmark = pytest.mark.usefixtures("no_deadlines")
ASKED = AdmissionRequest("key_1", 1, plan_of((Part("key", Limits.parse("99/minute", 9, "20/day")),)), 1)


@pytest.fixture
async def own_server() -> AsyncIterator[tuple[Server, Harness]]:
    with running_server() as server:
        async with redis_at(server.url) as harness:
            yield server, harness


async def test_a_charge_that_was_not_reported_yet_counts_once(own_server: tuple[Server, Harness]) -> None:
    server, harness = own_server
    answer = await harness.answer(ASKED)
    assert isinstance(answer, Admitted)
    answer.charge(7)
    server.command("FLUSHALL")  # in the same turn of the loop: the charge waits to be reported
    answer = await harness.answer(ASKED)
    assert isinstance(answer, Admitted)
    assert answer.levels[2] == 20 - 1 - 7 - 1
