"""Well-formed requests that something happened to: whatever it was, the upstream sees nothing but what was admitted."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from random import Random
from urllib.parse import unquote

import pytest

from machpay_gateway import Tier
from tests.proxy.cases import all_cases, with_credential, with_host
from tests.proxy.harness import Rig, Upstream, fields_of, proxied, request
from tests.proxy.strict import Strict

_SLOTS = 500
_AT_ONCE = 32
# After which nothing more is to be expected. Turns of the loop that proxy and upstream run on too, not seconds: a turn
# takes longer on a slow machine, and as much is seen.
_QUIET_TURNS = 150
_STATUSES = {200, 400, 401, 403, 404, 408, 413, 429, 431, 499, 501}

_INSERTED = (
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b";", b",", b"\xff", b"/", b"%2f", b"..", b"?"),
    *(b"0\r\n\r\n", b"0", b"\r\n ", b"5\r\nabcde\r\n", b" HTTP/1.1\r\n", b"GET /v1/other HTTP/1.1\r\nHost: a\r\n\r\n"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n"),
    *(b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: x\r\n", b"X-MachPay-Account: other\r\n"),
    *(b"Expect: 100-continue\r\n", b"Authorization: Bearer x\r\n", b"X: " + b"a" * 9000 + b"\r\n"),
)


def _originals(secret: str) -> list[bytes]:
    ours = [
        request("GET", "/v1/x?a=b", "Cookie: c=d"),
        request("GET", "/public/%41"),
        request("POST", "/v1/x", "Content-Length: 5", "Content-Type: text/plain", body=b"hello"),
        request("POST", "/v1/x", "Transfer-Encoding: chunked", body=b"5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"),
        request("POST", "/public/x", "Transfer-Encoding: chunked", body=b"0\r\n\r\n") + request("GET", "/v1/y"),
        request("GET", "/v1/x", "Connection: Upgrade", "Upgrade: websocket"),
        request("PUT", "/v1/x", "Expect: 100-continue", "Content-Length: 2", body=b"ok"),
        request("GET", "http://api.test/v1/x", "TE: trailers", "Connection: TE, X-Gone", "X-Gone: 1"),
    ]
    theirs = [with_host(case.raw).replace(b" /", b" /public/", 1) for case in all_cases()]
    return [with_credential(raw, secret) for raw in ours] + ours + theirs


def _mutations(seed: int, originals: list[bytes]) -> Iterator[bytes]:
    random = Random(seed)  # noqa: S311 - the same each time
    while True:
        data = bytearray(random.choice(originals))
        if random.random() < 0.3:
            data += random.choice(originals)
        for _ in range(random.randint(1, 3)):
            _mutate(random, data, originals)
        yield bytes(data[:40_000])


def _mutate(random: Random, data: bytearray, originals: list[bytes]) -> None:
    at = random.randrange(len(data) + 1)
    line, line_end = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at) + 1
    kind = random.randrange(7)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << random.randrange(8)
    elif kind == 1:
        data[at:at] = random.choice(_INSERTED)
    elif kind == 2:
        data[line:line] = random.choice(_INSERTED)
    elif kind == 3:
        del data[at : at + random.choice((1, 2, 10))]
    elif kind == 4 and line_end:
        data[line:line] = data[line:line_end]  # once more
    elif kind == 5 and line_end:
        del data[line:line_end]
    else:
        other = random.choice(originals)
        data[at:] = other[random.randrange(len(other)) :]


async def _try_all(rig: Rig, mutations: list[bytes], secret: str) -> None:
    """Send *mutations*, many at once, and good requests between them."""

    async def work(number: int) -> None:
        while mutations:
            async with rig.client() as client:
                for _ in range(10):
                    if not mutations:
                        break
                    await _send(rig, mutations.pop())
                await client.send(request("GET", f"/v1/good/{number}", secret=secret))
                assert (await client.answer())[2] == b"/v1/good/%d" % number  # and nobody else's

    async with asyncio.TaskGroup() as workers:
        for number in range(_AT_ONCE):
            workers.create_task(work(number))


async def _send(rig: Rig, data: bytes) -> None:
    async with rig.client() as client:
        with contextlib.suppress(ConnectionError):
            await client.send(data)
            while await _more(client.reader):
                pass


async def _more(reader: asyncio.StreamReader) -> bool:
    """Return whether more came before it was quiet, or the end."""
    reading = asyncio.ensure_future(reader.read(65536))
    for _ in range(_QUIET_TURNS):
        if reading.done():
            return bool(reading.result())
        await asyncio.sleep(0)
    reading.cancel()
    return False


async def _check(count: int, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    strict = Strict()
    tiers = {"standard": Tier("10000000/minute", concurrency=_SLOTS)}
    async with Upstream(strict) as upstream, proxied(upstream, tiers=tiers, failure_limit="10000000/minute") as rig:
        secret = await rig.secret()
        mutations = _mutations(seed, _originals(secret))
        await _try_all(rig, [next(mutations) for _ in range(count)], secret)
        await rig.until(lambda: not len(rig.proxy))
        assert strict.faults == []
        admitted = {ended.facts.request_id: ended for ended in rig.ended if ended.outcome == "allowed"}
        assert len({seen.id for seen in strict.requests}) == len(strict.requests) > count // 4
        for seen in strict.requests:
            facts = admitted[seen.id].facts
            path = seen.target.partition(b"?")[0].decode()
            assert (seen.method.decode(), unquote(path)) == (facts.method, facts.path)
            is_known = len(seen.values(b"x-machpay-key-id")) == 1
            assert path.startswith("/v1/" if is_known else "/public/") or path in {"/v1", "/public"}
            assert seen.values(b"authorization") == []
            assert seen.values(b"x-machpay-account") != [b"other"]
        assert {ended.status for ended in rig.ended} <= _STATUSES
        assert caplog.text == ""
        assert [server.in_flight for server in rig.proxy.router.pools["live"].servers] == [0]
        async with rig.client() as client:
            await client.send(request("GET", "/v1/x", secret=secret))
            status, head, _ = await client.answer()
            assert status == 200
            assert f'"concurrency";r={_SLOTS - 1}' in fields_of(head)["ratelimit"][0]


async def test_nothing_but_what_was_admitted_reaches_the_upstream(caplog: pytest.LogCaptureFixture) -> None:
    await _check(2000, 1, caplog)


@pytest.mark.drill
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [2, 3])
async def test_nothing_but_what_was_admitted_reaches_the_upstream_in_the_long_run(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    await _check(10_000, seed, caplog)
