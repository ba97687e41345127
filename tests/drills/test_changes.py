"""A revoked key and a lowered tier hold on every worker: at once with Redis, within a second or so without."""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

import pytest
from httpx2 import AsyncClient

from machpay_gateway import Tier
from tests.drills.checker import Request
from tests.drills.clients import Client
from tests.drills.load import HOST, Answer, Plan
from tests.drills.loads import READY_SECONDS, notes_in, print_row, running_loads, window_requests
from tests.drills.tiers import Shape, in_every_shape
from tests.drills.workers import Fleet, running_workers, unknown_secret
from tests.redises.servers import running_server

MUCH, LITTLE = Tier("1000 per 4 second", 50), Tier("100 per 4 second", 10)
TIERS = {"much": MUCH, "little": LITTLE, "standard": Tier("1000000/minute", 50)}
KEYS, WORKERS = 100, 4
NEARLY_ALL_SECONDS, ALL_SECONDS = 1.0, 5.0
_POLL_SECONDS = 0.02
_AFTER = 5  # times asked again once refused: it must stay so


@pytest.mark.drill
@pytest.mark.timeout(60)
@in_every_shape
async def test_a_lowered_tier_holds_from_the_next_request(shape: Shape) -> None:
    with running_server() as server, running_workers(2, server.url, _in_shape(shape)) as fleet:
        answers, lowered_at = await _lowered(fleet)
        fleet.check_logs()
    taken = [request for request in window_requests(answers) if request.outcome == "admitted"]
    passed = [request.sent - lowered_at for request in taken if request.sent > lowered_at and _is_over(request, taken)]
    last = max(passed, default=0.0)
    print_row(
        f"tier lowered mid-window, {shape.__name__}",
        answers,
        f"{len(passed)} passed over the new limit, {last * 1000:.0f} ms after",
    )
    assert {answer.status for answer in answers} == {200, 429}
    assert sum(request.sent < lowered_at for request in taken) > 2 * LITTLE.limit, "the change came too early"
    assert sum(request.sent > lowered_at for request in taken) > LITTLE.limit // 2, "nothing was admitted any more"
    assert not passed


def _is_over(request: Request, taken: Sequence[Request]) -> bool:
    """Tell whether the whole new limit was surely taken within the window that ended with *request*."""
    begins_at = request.settled - LITTLE.window_seconds
    return sum(begins_at < other.sent and other.settled < request.sent for other in taken) >= LITTLE.limit


async def _lowered(fleet: Fleet) -> tuple[list[Answer], float]:
    """Lower the tier under load; return the answers, and when the change had been made."""
    [(_, secret)] = await fleet.keys(tier="much")
    began_at = time.monotonic() + READY_SECONDS
    plans = [
        Plan(fleet.ports, "/quick", [secret], notes_in(fleet), 4, began_at, began_at + 10, 0.01, 0.02) for _ in range(2)
    ]
    with running_loads(plans, fleet.folder) as loads:
        await asyncio.sleep(began_at + 1.5 - time.monotonic())
        async with fleet.gateway() as gateway:
            assert await gateway.accounts.set_tier("much", "little")
        lowered_at = time.monotonic()  # told to the servers: closing waits for that
        return [answer for load in loads for answer in await asyncio.to_thread(load.answers)], lowered_at


@pytest.mark.drill
@pytest.mark.timeout(120)
@in_every_shape
@pytest.mark.parametrize("redis", ["with", "without"])
async def test_a_revoked_key_is_refused_everywhere(redis: str, shape: Shape) -> None:
    with running_server() as server, running_workers(WORKERS, server.url, _in_shape(shape)) as fleet:
        keys = await fleet.keys(KEYS)
        [(_, admin)] = await fleet.keys(scopes=["keys:manage"])
        if redis == "without":
            server.kill()
        answers: list[Answer] = []
        async with _admin(fleet, admin) as client, asyncio.TaskGroup() as tasks:
            polls = []
            for key_id, secret in keys:
                polls.append(tasks.create_task(_revoked(client, fleet, key_id, secret, answers)))
                await asyncio.sleep(random.uniform(0.1, 0.3))  # noqa: S311 - spreads over the workers' own rhythm
        took = sorted(seconds for poll in polls for seconds in poll.result())
        fleet.check_logs()
    nearly_all = took[int(0.99 * len(took))]
    figure = f"99 % within {nearly_all * 1000:.0f} ms, all within {took[-1] * 1000:.0f} ms, on {WORKERS} workers"
    print_row(f"{KEYS} keys revoked {redis} Redis, {shape.__name__}", answers, figure)
    assert {answer.status for answer in answers} == {200, 401}
    assert nearly_all <= NEARLY_ALL_SECONDS
    assert took[-1] <= ALL_SECONDS


def _in_shape(shape: Shape) -> Mapping[str, Tier]:
    return {name: shape(tier) for name, tier in TIERS.items()}


def _admin(fleet: Fleet, secret: str) -> AsyncClient:
    """Return a client of one worker's key API."""
    return AsyncClient(base_url=f"http://{HOST}:{fleet.ports[0]}", headers={"Authorization": f"Bearer {secret}"})


async def _revoked(
    admin: AsyncClient, fleet: Fleet, key_id: str, secret: str, answers: list[Answer]
) -> Sequence[float]:
    """Revoke a key that every worker knows; return after how many seconds each refused it, for good."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client.to(port)) for port in fleet.ports]
        for client in clients:
            assert [await _send_requests(client, secret, answers) for _ in range(2)] == [200, 200]
            assert await client.ask("/quick", unknown_secret()) == 401
        assert (await admin.post(f"/v1/keys/{key_id}/revoke")).status_code == 200
        revoked_at = time.monotonic()
        return await asyncio.gather(*(_refused_after(client, secret, revoked_at, answers) for client in clients))


async def _refused_after(client: Client, secret: str, since: float, answers: list[Answer]) -> float:
    """Ask until the key is refused, and a few times more; return the seconds until the first refusal was asked for."""
    while True:
        asked_at = time.monotonic()
        if await _send_requests(client, secret, answers) == 401:
            break
        await asyncio.sleep(_POLL_SECONDS)
    for _ in range(_AFTER):
        assert await _send_requests(client, secret, answers) == 401, "a revoked key was let in again"
    return max(0.0, asked_at - since)


async def _send_requests(client: Client, secret: str, answers: list[Answer]) -> int:
    sent = time.monotonic()
    status = await client.ask("/quick", secret)
    came = time.monotonic()
    answers.append(Answer(sent, came, came, came, status, "-"))
    return status
