"""Calls of `admit.lua` with many steps, and with subjects that several steps share."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from redis import Redis

from machpay_gateway.core.limits.plan import Part, Plan, plan_of
from machpay_gateway.core.limits.rate import Limits
from machpay_gateway.limiters.redis.scripts import Scripts
from machpay_gateway.limiters.redis.steps import layout_of, pack_step
from tests.redises.servers import running_server

OWN = Part("key", Limits.parse("1000/minute", 50))
OF_ACCOUNT = Part("account", Limits.parse("10/minute"))


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with running_server() as server, Redis.from_url(server.url) as client:  # its own, for commands are counted
        yield client


def replies(redis: Redis, plan: Plan, keys: Sequence[str]) -> list[list[int]]:
    """Return the reply to one request of *plan* for every so many *keys* as it has parts."""
    steps = len(keys) // len(plan.parts)
    step = pack_step(plan, (1, 0, 1, 1), [0] * len(plan.parts))
    reply: Any = redis.eval(Scripts().admit.source, len(keys), *keys, "worker", 10, *[step] * steps)
    fields = layout_of(plan).reply
    return [reply[at : at + fields] for at in range(1, len(reply), fields)]


def test_a_call_may_have_more_keys_than_lua_takes_arguments(redis: Redis) -> None:
    keys = [f"many:{number}" for number in range(9000)]
    for left in (999, 998):
        answers = replies(redis, plan_of((OWN,)), keys)
        assert len(answers) == len(keys)
        assert {(admitted, rest) for admitted, _, _, rest, _, _ in answers} == {(1, left)}
    redis.delete(*keys)


def test_a_state_that_steps_of_a_call_share_is_counted_by_each_and_stored_once(redis: Redis) -> None:
    keys = [key for number in range(24) for key in (f"own:{number}", "shared")]
    redis.config_resetstat()

    answers = replies(redis, plan_of((OWN, OF_ACCOUNT)), keys)

    assert [admitted for admitted, *_ in answers] == [1] * 10 + [0] * 14
    assert [answer[-2] for answer in answers] == [*range(9, -1, -1), *[0] * 14]
    statistics: Any = redis.info("commandstats")
    assert statistics["cmdstat_set"]["calls"] == 25
    assert statistics["cmdstat_mget"]["calls"] == 1
    redis.delete(*keys)


def test_a_refusal_that_changes_nothing_stores_nothing(redis: Redis) -> None:
    plan = plan_of((Part("key", Limits.parse("1/hour", 50)),))
    (first,) = replies(redis, plan, ["spent"])
    (second,) = replies(redis, plan, ["spent"])  # the worker states that it holds no slot now
    redis.config_resetstat()

    (third,) = replies(redis, plan, ["spent"])

    assert [answer[0] for answer in (first, second, third)] == [1, 0, 0]
    statistics: Any = redis.info("commandstats")
    assert not {"cmdstat_set", "cmdstat_setrange"} & set(statistics)
    redis.delete("spent")
