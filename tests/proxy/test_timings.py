"""Each request's times: when it was decided, and when its upstream responded."""

import asyncio

import pytest

from machpay_gateway.core.limits.admission import AdmissionRequest, Admitted, Answer
from machpay_gateway.core.limits.ports import Limiter
from tests.proxy.harness import OK, Rig, Upstream, deaf, proxied, request


class SlowLimiter:
    """A limiter whose answers wait until `answer` is called."""

    def __init__(self, limiter: Limiter) -> None:
        self.waiting: list[tuple[asyncio.Future[Answer], Answer]] = []
        self._limiter = limiter

    def admit(self, demand: AdmissionRequest) -> asyncio.Future[Answer]:
        answer = self._limiter.admit(demand)
        assert isinstance(answer, Admitted)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.waiting.append((future, answer))
        return future

    def answer(self) -> None:
        future, answer = self.waiting.pop()
        future.set_result(answer)


async def ended(rig: Rig, sent: bytes) -> None:
    await rig.exchange(sent)
    await rig.until(lambda: rig.ended)


async def end_after_a_wait_for_the_limiter(rig: Rig, secret: str) -> None:
    """Send the second request of *rig*, for which the limiter answers late, and wait until it has ended."""
    rig.gateway.gate.limiter = limiter = SlowLimiter(rig.gateway.limiter)  # type: ignore[assignment]  # one method
    async with rig.client() as client:
        await client.send(request("GET", "/v1/x", "Connection: close", secret=secret))
        await rig.until(lambda: limiter.waiting)
        limiter.answer()
        await client.rest()
    await rig.until(lambda: len(rig.ended) == 2)


async def test_the_decision_is_timed_between_the_head_and_the_response() -> None:
    async with Upstream() as upstream, proxied(upstream) as rig:
        await ended(rig, request("GET", "/v1/x", "Connection: close", secret=await rig.secret()))
    [it] = rig.ended
    steps = it.steps
    assert steps.decided_at is not None
    assert steps.answered_at is not None
    assert steps.began_at < steps.decided_at < steps.answered_at < steps.ended_at


async def test_the_wait_for_the_limiter_is_timed_separately() -> None:
    async with Upstream() as upstream, proxied(upstream) as rig:
        secret = await rig.secret()
        await ended(rig, request("GET", "/v1/x", "Connection: close", secret=secret))  # so that the key is known
        await end_after_a_wait_for_the_limiter(rig, secret)
    first, second = (it.steps for it in rig.ended)
    assert first.asked_at is None
    assert second.asked_at is not None
    assert second.decided_at is not None
    assert second.began_at < second.asked_at < second.decided_at
    assert sum(rig.gateway.steps.admission[:-1]) == 1


@pytest.mark.parametrize(
    "path, status, is_decided, is_answered",
    [
        ("/public/x", 200, True, True),
        ("/v1/x", 401, True, False),  # refused here
        ("/unlisted", 404, True, False),
    ],
)
async def test_steps_that_did_not_happen_have_no_time(
    path: str,
    status: int,
    is_decided: bool,  # noqa: FBT001 - a column
    is_answered: bool,  # noqa: FBT001 - a column
) -> None:
    async with Upstream() as upstream, proxied(upstream) as rig:
        await ended(rig, request("GET", path, "Connection: close"))
    [it] = rig.ended
    assert it.status == status
    assert (it.steps.decided_at is not None, it.steps.answered_at is not None) == (is_decided, is_answered)
    times = rig.gateway.steps
    assert [sum(series[:-1]) for series in (times.decide, times.admission, times.upstream)] == [1, 0, int(is_answered)]


async def test_an_upstream_that_does_not_respond_has_no_response_time() -> None:
    with deaf() as upstream:
        async with proxied(upstream, proxy={"connect_seconds": 0.05}) as rig:
            await ended(rig, request("GET", "/public/x", "Connection: close"))
    [it] = rig.ended
    assert (it.status, it.steps.answered_at) == (502, None)
    assert it.steps.decided_at is not None


async def test_a_malformed_request_has_no_steps() -> None:
    async with Upstream(answer=OK) as upstream, proxied(upstream) as rig:
        await ended(rig, b"GET\r\n\r\n")
    [it] = rig.ended
    assert (it.status, it.steps.decided_at, it.steps.answered_at) == (400, None, None)
    assert sum(rig.gateway.steps.decide[:-1]) == 0
