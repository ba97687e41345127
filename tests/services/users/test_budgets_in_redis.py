"""The budgets of sign-in over all workers: counted together, and refusals leave no keys behind."""

import socket

import pytest

from machpay_gateway.core.errors import Unavailable
from machpay_gateway.limiters.redis import RedisLimiter
from machpay_gateway.limiters.redis.limiter import FailureMode
from machpay_gateway.services.sign_in_limits import SignInAttempt, SignInLimits
from tests.redises.servers import Server


async def test_two_workers_count_together_and_refusals_store_nothing_of_their_own(redis_server: Server) -> None:
    limiters = [RedisLimiter(redis_server.url, prefix="sign-in-test") for _ in range(2)]
    budgets = [SignInLimits(limiter) for limiter in limiters]
    for limiter in limiters:
        await limiter.open()
    try:
        waits = [
            await each.wait_seconds(SignInAttempt("ada@example.org", "a block")) for _ in range(5) for each in budgets
        ]
        assert [wait is None for wait in waits] == [True] * 6 + [False] * 4
        for number in range(300):
            await budgets[number % 2].wait_seconds(SignInAttempt(f"{number}@example.org", "a block"))
        keys = redis_server.command("KEYS", "sign-in-test*sign-in*")
        assert len(keys) < 3 * 60
        for number in range(300):
            await budgets[number % 2].wait_seconds(SignInAttempt(f"later {number}@example.org", "a block"))
        assert len(redis_server.command("KEYS", "sign-in-test*sign-in*")) == len(keys)
    finally:
        for limiter in limiters:
            await limiter.close()


@pytest.mark.parametrize("mode", ["deny", "allow"])
async def test_no_password_is_tried_while_nothing_counts(mode: FailureMode) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    limiter = RedisLimiter(f"redis://127.0.0.1:{port}/0", on_failure=mode)
    await limiter.open()
    try:
        for attempt in (
            SignInAttempt("ada@example.org", "a block"),
            SignInAttempt("ada@example.org", "a block", device="known"),
        ):
            with pytest.raises(Unavailable):
                await SignInLimits(limiter).wait_seconds(attempt)
        with pytest.raises(Unavailable):
            await SignInLimits(limiter).wait_to_confirm("a session")
    finally:
        await limiter.close()


async def test_each_worker_counts_its_part_while_redis_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    limiter = RedisLimiter(f"redis://127.0.0.1:{port}/0", on_failure="local")
    await limiter.open()
    try:
        waits = [
            await SignInLimits(limiter).wait_seconds(SignInAttempt("ada@example.org", "a block")) for _ in range(30)
        ]
        assert waits[0] is None
        assert waits[-1] is not None
    finally:
        await limiter.close()
