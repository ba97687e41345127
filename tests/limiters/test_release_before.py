"""Counts that the release before has written, beside ours: it packs a quota in fewer bytes."""

from collections.abc import AsyncIterator, Callable

import pytest
from redis import Redis

from tests.limiters.harness import Harness, redis_at
from tests.limiters.test_plans import account, admitted, key, left, refused, request
from tests.redises.servers import Server

pytestmark = pytest.mark.usefixtures("no_deadlines")

_BYTES, _OLD_BYTES = 22, 11
_COUNT_AT = 17  # in a state: how many quotas are at its end


@pytest.fixture
async def harness(server_url: str) -> AsyncIterator[Harness]:
    async with redis_at(server_url) as harness:
        yield harness


def as_before(packed: bytes) -> bytes:
    """Return a state as the release before packs it."""
    count = packed[_COUNT_AT]
    at = len(packed) - count * _BYTES
    return packed[:at] + b"".join(packed[at + i * _BYTES :][:_OLD_BYTES] for i in range(count))


def as_it_takes_ours(packed: bytes) -> bytes:
    """Return a state of two quotas as the release before leaves it, which takes the second half of one for another."""
    at = len(packed) - 2 * _BYTES
    unknown = packed[at + _OLD_BYTES : at + _BYTES]
    head = bytearray(as_before(packed))
    head[_COUNT_AT] = 3
    return bytes(head) + unknown


def rewrite(server: Server, harness: Harness, change: Callable[[bytes], bytes]) -> None:
    prefix = harness.limiter._prefix.decode()  # type: ignore[attr-defined]  # noqa: SLF001 - its own keys alone
    host, port = server.url.removeprefix("redis://").split("/")[0].split(":")
    with Redis(host, int(port)) as client:
        names = [name for name in client.keys(f"{prefix}:*") if client.type(name) == b"string"]
        assert names
        for name in names:
            client.set(name, change(client.get(name)), keepttl=True)


async def test_a_count_of_the_release_before_goes_on(harness: Harness, redis_server: Server) -> None:
    asked = request(key("99/minute", quota=["9/day"]), account("99/minute", quota=["5/month"]))
    for number in range(1, 6):
        assert left(await admitted(harness, asked)) == {
            "minute": 99 - number,
            "day": 9 - number,
            "concurrency": 50 - number,
            "account-minute": 99 - number,
            "account-month": 5 - number,
        }
        rewrite(redis_server, harness, as_before)
    assert (await refused(harness, asked)).policies == ("account-month",)


async def test_a_state_that_the_release_before_has_misread_loses_no_count(
    harness: Harness, redis_server: Server
) -> None:
    asked = request(key("99/minute", quota=["9/day", "20/month"]))
    for number in range(1, 6):
        levels = left(await admitted(harness, asked))
        assert (levels["day"], levels["month"]) == (9 - number, 20 - number)
        rewrite(redis_server, harness, as_it_takes_ours)
