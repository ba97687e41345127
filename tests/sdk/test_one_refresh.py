"""Singleflight: one refresh for all waiting calls, with tokens delivered before they are used."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import machpay
import pytest

from tests.sdk.conftest import FakeEffects, Twin
from tests.sdk.issuing import Issuer, refresh_token, token
from tests.sdk.scripted import Reply, Script

MANY = 50
GRANT: dict[str, Any] = {"api_key": None, "refresh_token": refresh_token(0), "client_id": "app_1"}
HELD: dict[str, Any] = {**GRANT, "access_token": token(0)}


@pytest.fixture
def issuer(script: Script) -> Issuer:
    return Issuer(script)


@pytest.fixture
async def asynchronous(script: Script, served: tuple[Script, str]) -> Any:  # noqa: ANN401 - yields
    twin = Twin(machpay.AsyncMachPay, served[1], script, FakeEffects())
    yield twin
    await twin.close()


@pytest.fixture
async def synchronous(script: Script, served: tuple[Script, str]) -> Any:  # noqa: ANN401 - yields
    twin = Twin(machpay.MachPay, served[1], script, FakeEffects())
    yield twin
    await twin.close()


async def ids_of(client: Any) -> list[Any]:  # noqa: ANN401 - either client
    """Send concurrent calls, and return the result or the error of each."""
    if isinstance(client, machpay.AsyncMachPay):
        copies = (client.with_options(timeout=20 + number) for number in range(MANY))
        results = await asyncio.gather(*(copy.whoami() for copy in copies), return_exceptions=True)
        return [each if isinstance(each, BaseException) else each.id for each in results]
    with ThreadPoolExecutor(MANY) as pool:
        futures = [pool.submit(client.with_options(timeout=20 + number).whoami) for number in range(MANY)]
        return [each.exception() or each.result().id for each in futures]


def meeting_at_the_clock(client: machpay.MachPay) -> None:
    """Block each thread at the clock until all have arrived, so that all see the same tokens."""
    barrier, lock, looks = threading.Barrier(MANY), threading.Lock(), iter(range(10**6))

    def now() -> float:
        with lock:
            number = next(looks)
        if number < MANY:
            barrier.wait(20)
        return 1_800_000_000.0

    transport: Any = client._transport  # noqa: SLF001 - time is not to be set from outside
    effects = replace(transport.sender.effects, now=now)
    client._transport = replace(transport, sender=replace(transport.sender, effects=effects))  # noqa: SLF001 - as above


async def test_many_refused_at_once_are_refreshed_once(twin: Twin, issuer: Issuer) -> None:
    issuer.together = MANY  # all have been sent, and none refused, before the first is
    issuer.end()
    assert await ids_of(twin.client(**HELD)) == ["key_1"] * MANY
    assert issuer.events.count("token") == 1
    assert issuer.events.count("api") == 2 * MANY


async def test_many_that_find_the_token_ended_refresh_once(asynchronous: Twin, issuer: Issuer) -> None:
    issuer.is_blocked = True
    pending = asyncio.ensure_future(ids_of(asynchronous.client(**GRANT)))
    assert await asyncio.to_thread(issuer.refreshing.wait, 20)
    assert issuer.events == ["token"]
    issuer.released.set()
    assert await pending == ["key_1"] * MANY
    assert issuer.events == ["token"] + ["api"] * MANY


async def test_many_threads_that_find_the_token_ended_refresh_once(synchronous: Twin, issuer: Issuer) -> None:
    client = synchronous.client(**GRANT)
    meeting_at_the_clock(client)
    assert await ids_of(client) == ["key_1"] * MANY
    assert issuer.events == ["token"] + ["api"] * MANY


@pytest.mark.parametrize("scripted", [Reply(500, b"<html>"), Reply(400, {"error": "invalid_grant"})])
async def test_a_refresh_that_fails_fails_for_all_that_waited(twin: Twin, issuer: Issuer, scripted: Reply) -> None:
    issuer.answers = [scripted]
    client = twin.client(**GRANT, max_retries=0)
    if isinstance(client, machpay.MachPay):
        meeting_at_the_clock(client)
    results = await ids_of(client)
    assert len({type(each) for each in results}) == 1
    assert len({id(each) for each in results}) == MANY  # each may be raised, and traced, by itself
    assert isinstance(results[0], machpay.OAuthError if scripted.status == 400 else machpay.InternalServerError)
    assert issuer.events == ["token"]


async def test_tokens_are_taken_before_the_request_goes_on(twin: Twin, issuer: Issuer) -> None:
    def take(tokens: machpay.Tokens) -> None:
        assert (tokens.access_token, tokens.refresh_token) == (token(1), refresh_token(1))
        assert (tokens.expires_in, tokens.request_id) == (3600, "req-1")
        issuer.events.append("taken")

    await twin.resolve(twin.client(**GRANT, on_tokens=take).whoami())
    assert issuer.events == ["token", "taken", "api"]


async def test_nobody_uses_tokens_that_are_still_being_taken(asynchronous: Twin, issuer: Issuer) -> None:
    taking, may_end = asyncio.Event(), asyncio.Event()

    async def take(_: machpay.Tokens) -> None:
        taking.set()
        await may_end.wait()
        issuer.events.append("taken")

    client = asynchronous.client(**GRANT, on_tokens=take)
    first = asyncio.ensure_future(client.whoami())
    await taking.wait()
    second = asyncio.ensure_future(client.whoami())
    for _ in range(10):
        await asyncio.sleep(0)
    assert issuer.events == ["token"]
    may_end.set()
    await asyncio.gather(first, second)
    assert issuer.events == ["token", "taken", "api", "api"]


async def test_tokens_that_could_not_be_taken_are_offered_again_and_not_refreshed(twin: Twin, issuer: Issuer) -> None:
    offered: list[str] = []

    def take(tokens: machpay.Tokens) -> None:
        offered.append(tokens.access_token)
        if len(offered) < 3:
            raise OSError("the disk is full")

    client = twin.client(**GRANT, on_tokens=take)
    for _ in range(2):
        with pytest.raises(OSError, match="the disk is full"):
            await twin.resolve(client.whoami())
    assert issuer.events == ["token"]
    await twin.resolve(client.whoami())
    await twin.resolve(client.whoami())
    assert (offered, issuer.events) == ([token(1)] * 3, ["token", "api", "api"])


async def test_tokens_that_were_not_taken_in_time_are_followed_by_others(twin: Twin, issuer: Issuer) -> None:
    offered: list[str] = []

    def take(tokens: machpay.Tokens) -> None:
        offered.append(tokens.access_token)
        if len(offered) == 1:
            raise OSError("the disk is full")

    client = twin.client(**GRANT, on_tokens=take)
    with pytest.raises(OSError, match="full"):
        await twin.resolve(client.whoami())
    twin.world.now += 3600
    await twin.resolve(client.whoami())
    assert (offered, issuer.events) == ([token(1), token(2)], ["token", "token", "api"])


async def test_whoever_takes_tokens_may_ask_with_them(twin: Twin, issuer: Issuer) -> None:
    ids: list[str] = []

    def take(_: machpay.Tokens) -> Any:  # noqa: ANN401 - either kind
        if twin.kind is machpay.MachPay:
            ids.append(client.whoami().id)
            return None

        async def ask() -> None:
            ids.append((await client.whoami()).id)

        return ask()

    client = twin.client(**GRANT, on_tokens=take)
    await twin.resolve(client.whoami())
    assert (ids, issuer.events) == (["key_1"], ["token", "api", "api"])


async def test_what_was_begun_while_tokens_were_taken_refreshes_like_everything_else(
    asynchronous: Twin, issuer: Issuer
) -> None:
    later: list[asyncio.Task[Any]] = []
    may_ask = asyncio.Event()

    async def ask() -> None:
        await may_ask.wait()
        await client.whoami()

    def take(_: machpay.Tokens) -> None:
        later.append(asyncio.ensure_future(ask()))

    client = asynchronous.client(**GRANT, on_tokens=take)
    await client.whoami()
    asynchronous.world.now += 3600
    may_ask.set()
    await later[0]
    assert issuer.issued == 2
    later[1].cancel()


async def test_a_refresh_goes_on_when_who_began_it_is_cancelled(asynchronous: Twin, issuer: Issuer) -> None:
    issuer.is_blocked = True
    seen: list[str] = []
    client = asynchronous.client(**GRANT, on_tokens=lambda tokens: seen.append(tokens.access_token))
    first, second = asyncio.ensure_future(client.whoami()), asyncio.ensure_future(client.whoami())
    assert await asyncio.to_thread(issuer.refreshing.wait, 20)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    issuer.released.set()
    assert (await second).id == "key_1"
    assert (seen, issuer.events) == ([token(1)], ["token", "api"])


async def test_a_plain_client_refuses_what_it_could_not_await(synchronous: Twin, issuer: Issuer) -> None:
    async def take(tokens: machpay.Tokens) -> None:
        raise AssertionError(tokens)

    with pytest.raises(machpay.ConfigurationError, match="use AsyncMachPay"):
        synchronous.client(**GRANT, on_tokens=take)

    def disguised(tokens: machpay.Tokens) -> object:
        return take(tokens)

    for _ in range(2):
        client = synchronous.client(**GRANT, on_tokens=disguised)
        with pytest.raises(machpay.ConfigurationError, match="use AsyncMachPay"):
            client.whoami()
        issuer.issued = 0
    assert issuer.events == ["token"] * 2
