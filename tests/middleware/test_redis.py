"""Two gateways on one database and one Redis, as two workers or hosts: they share limits and see the same keys."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Literal

import pytest
from starlette.types import Message

from machpay_gateway import Gateway, MachPayAuth, Tier
from tests.applications import Held, ok
from tests.gateways import ROUTES, Guarded
from tests.limiters.state import read_state
from tests.redises.faults import FaultProxy
from tests.redises.servers import Server, running_server
from tests.redises.waiting import wait_until

TIERS = {"standard": Tier("10/minute", 4), "enterprise": Tier("100/minute", 8), "test": Tier("10/minute", 4)}


@dataclass(frozen=True)
class Setup:
    """How to open one more gateway on the same database and the same servers."""

    folder: Path
    stack: AsyncExitStack
    prefix: str

    async def gateway(self, redis: str, on_failure: Literal["local", "deny", "allow"] = "local") -> Guarded:
        gateway = Gateway(
            database=f"sqlite:///{self.folder / 'keys.db'}",
            redis=redis,
            redis_prefix=self.prefix,
            on_limiter_failure=on_failure,
            routes=ROUTES,
            tiers=TIERS,
        )
        await self.stack.enter_async_context(gateway)
        await gateway.lifecycle.serve()
        return Guarded(MachPayAuth(ok, gateway=gateway), gateway)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    async with AsyncExitStack() as stack:
        yield Setup(tmp_path, stack, f"test{token_hex(4)}")


@pytest.fixture
async def two(setup: Setup, server: Server) -> tuple[Guarded, Guarded]:
    return await setup.gateway(server.url), await setup.gateway(server.url)


async def status(api: Guarded, secret: str) -> int:
    return (await api.client(secret).get("/v1/skills")).status_code


async def slots_left(api: Guarded, secret: str) -> int:
    await asyncio.sleep(0.05)  # a release is sent a moment after the request has ended
    answer = await api.client(secret).get("/v1/skills")
    assert answer.status_code == 200  # a refusal holds no slot of its own: it would hide one that leaked
    return int(answer.headers["ratelimit"].rpartition("r=")[2])


async def test_each_decision_and_its_wait_for_redis_are_timed_separately(two: tuple[Guarded, Guarded]) -> None:
    api, _ = two
    _, secret = await api.key()
    for credential in (secret, secret, secret, None):
        await api.client(credential).get("/v1/skills")
    steps = api.gateway.steps
    assert sum(steps.decide[:-1]) == 4
    assert sum(steps.admission[:-1]) == 2  # the first one looks the key up, the last one has none
    assert 0 < steps.admission[-1] < steps.decide[-1]
    assert sum(api.gateway.limiter.batches.values()) >= 3


async def test_one_rate_limit_holds_over_both(two: tuple[Guarded, Guarded]) -> None:
    _, secret = await two[0].key()
    answers = [await two[number % 2].client(secret).get("/v1/skills") for number in range(10)]
    assert [answer.headers["ratelimit"].split(";")[1] for answer in answers] == [
        f"r={left}" for left in range(9, -1, -1)
    ]
    refusals = [await api.client(secret).get("/v1/skills") for api in two]
    assert [(refusal.status_code, refusal.json()["code"]) for refusal in refusals] == [(429, "rate_limited")] * 2
    assert all(1 <= int(refusal.headers["retry-after"]) <= 61 for refusal in refusals)


async def test_slots_are_held_over_both(two: tuple[Guarded, Guarded]) -> None:
    _, secret = await two[0].key()
    held = two[0].app.app = Held()
    inside = [asyncio.create_task(status(two[0], secret)) for _ in range(4)]
    for _ in inside:
        await held.entered.acquire()
    refused = await two[1].client(secret).get("/v1/skills")
    assert (refused.status_code, refused.json()["code"]) == (429, "concurrency_limited")
    assert (refused.headers["retry-after"], refused.json()["retry_after"]) == ("1", 1)  # and not when a unit frees
    assert int(refused.headers["ratelimit"].partition("t=")[2].partition(",")[0]) > 1
    held.let_go.set()
    assert await asyncio.gather(*inside) == [200] * 4
    assert await slots_left(two[1], secret) == 3


async def wait_for_version(server: Server, setup: Setup, version: int) -> None:
    """Wait until Redis holds the *version* of the only key, or of its account."""

    def versions() -> set[int]:
        keys = [key for key in server.command("KEYS", f"{setup.prefix}:*") if not key.endswith(":workers")]
        return {read_state(server.command("GET", key).encode(errors="surrogateescape")).version for key in keys}

    await asyncio.to_thread(
        wait_until,
        lambda: version in versions(),
        seconds=0.9,  # sooner than the second for which a record is trusted
        claim=f"the server holds version {version}",
    )


async def test_a_revoked_key_is_refused_by_the_other_as_soon_as_redis_knows(
    two: tuple[Guarded, Guarded], server: Server, setup: Setup
) -> None:
    key_id, secret = await two[0].key()
    assert [await status(api, secret) for api in two] == [200, 200]
    await two[0].gateway.keys.revoke(None, key_id)
    await wait_for_version(server, setup, 2)
    assert [await status(api, secret) for api in reversed(two)] == [401, 401]


async def test_a_rotated_secret_is_refused_by_the_other_as_soon_as_redis_knows(
    two: tuple[Guarded, Guarded], server: Server, setup: Setup
) -> None:
    key_id, secret = await two[0].key()
    assert [await status(api, secret) for api in two] == [200, 200]
    rotated = await two[0].gateway.keys.rotate(None, key_id, grace_seconds=0)
    assert rotated is not None
    await wait_for_version(server, setup, 2)
    assert await status(two[1], secret) == 401
    assert [await status(api, rotated[1]) for api in reversed(two)] == [200, 200]


async def test_a_tier_changed_by_one_holds_for_the_other_as_soon_as_redis_knows(
    two: tuple[Guarded, Guarded], server: Server, setup: Setup
) -> None:
    _, secret = await two[0].key()
    assert [await status(api, secret) for api in two] == [200, 200]
    await two[0].gateway.accounts.set_tier("standard", "enterprise")
    await wait_for_version(server, setup, (await two[0].gateway.store.audit_head()).sequence)
    answer = await two[1].client(secret).get("/v1/skills")
    assert answer.headers["ratelimit"].startswith('"minute";r=97;')
    assert answer.headers["ratelimit-policy"].startswith('"minute";q=100;')


async def test_a_finished_change_holds_for_the_next_request_to_the_other(setup: Setup, server: Server) -> None:
    proxy = setup.stack.enter_context(FaultProxy(server.port))
    api, other = await setup.gateway(proxy.url), await setup.gateway(server.url)
    key_id, secret = await api.key()
    assert await status(other, secret) == 200
    proxy.delay_seconds = 0.03  # or the race is won by luck
    await api.gateway.keys.revoke(None, key_id)
    assert await status(other, secret) == 401


@pytest.mark.parametrize("turns", range(8))  # not begun, not sent, in flight
async def test_a_request_canceled_before_its_answer_holds_no_slot(setup: Setup, server: Server, turns: int) -> None:
    proxy = setup.stack.enter_context(FaultProxy(server.port))
    api, other = await setup.gateway(proxy.url), await setup.gateway(server.url)
    _, secret = await api.key()
    await api.gateway.accounts.set_tier("standard", "enterprise")  # units for many looks
    assert [await slots_left(it, secret) for it in (api, other)] == [7, 7]
    proxy.delay_seconds = 0.02
    request = asyncio.create_task(status(api, secret))
    for _ in range(turns):
        await asyncio.sleep(0)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    await asyncio.sleep(0.05)  # past the answer to the canceled request
    async with asyncio.timeout(10):  # on a busy machine it comes later
        while await slots_left(other, secret) != 7:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.02)


async def test_a_request_canceled_between_its_answer_and_its_delivery_holds_no_slot(
    two: tuple[Guarded, Guarded],
) -> None:
    _, secret = await two[0].key()
    assert [await slots_left(api, secret) for api in two] == [3, 3]

    async def first() -> None:
        await status(two[0], secret)
        second.cancel()  # its answer came in the same turn of the loop, and it has not run since

    winning = asyncio.create_task(first())
    second = asyncio.create_task(status(two[0], secret))
    await winning
    with pytest.raises(asyncio.CancelledError):
        await second
    assert await slots_left(two[1], secret) == 3


async def test_deny_without_redis_is_a_503_with_retry_after(setup: Setup) -> None:
    with running_server() as server:
        api = await setup.gateway(server.url, "deny")
        _, secret = await api.key()
        assert await status(api, secret) == 200
        server.kill()
        answers = await asyncio.gather(*(api.client(secret).get("/v1/skills") for _ in range(20)))
        answers.append(await api.client(secret).get("/v1/skills"))
        assert {answer.status_code for answer in answers} == {503}
        assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
        assert (await api.client().get("/healthz")).status_code == 200
        assert await status(api, "sk_live_wrong") == 401
        server.restart()
        async with asyncio.timeout(5):
            while await status(api, secret) != 200:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.02)


async def test_local_the_headers_report_the_local_share(setup: Setup, server: Server) -> None:
    await setup.gateway(server.url)
    with FaultProxy(server.port) as proxy:
        api = await setup.gateway(proxy.url)
        _, secret = await api.key()
        assert await status(api, secret) == 200
        proxy.refuse()
        proxy.reset_all()
        answers = [await api.client(secret).get("/v1/skills") for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2  # of 5, one half of one was taken
        assert {answer.headers["ratelimit-policy"] for answer in answers} == {
            '"minute";q=5;w=60, "concurrency";q=2;qu="concurrent-requests"'
        }
        assert [answer.headers["ratelimit"].split(";")[1] for answer in answers] == ["r=3", "r=2", "r=1", "r=0"] + [
            "r=0"
        ] * 2
        assert int(answers[-1].headers["retry-after"]) > 1


async def test_a_websocket_holds_its_slot_over_both_while_it_is_open(two: tuple[Guarded, Guarded]) -> None:
    _, secret = await two[0].key()
    ends, opened = asyncio.Event(), asyncio.Semaphore(0)
    scope = {
        "type": "websocket",
        "path": "/v1/skills",
        "headers": [(b"authorization", f"Bearer {secret}".encode())],
        "client": None,
    }

    async def socket(_scope: object, _receive: object, send: object) -> None:
        assert callable(send)
        await send({"type": "websocket.accept"})
        opened.release()
        await ends.wait()
        await send({"type": "websocket.close"})

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        assert message["type"] in {"websocket.accept", "websocket.close"}

    two[0].app.app = socket
    open_ones = [asyncio.create_task(two[0].app(scope, receive, send)) for _ in range(4)]
    for _ in open_ones:
        await asyncio.wait_for(opened.acquire(), 5)
    assert await status(two[1], secret) == 429
    ends.set()
    await asyncio.gather(*open_ones)
    assert await slots_left(two[1], secret) == 3
