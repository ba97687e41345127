"""It makes no difference how a request is cut on its way: the upstream gets the same bytes as when it comes whole."""

import asyncio
import contextlib
import re

import pytest

from tests.proxy.harness import Rig, Upstream, proxied, request
from tests.proxy.strict import Seen, Strict

_GUARDED = "Authorization: Bearer {}"
_CASES = {
    "a head": request("GET", "/v1/%41?b=c", _GUARDED, "X-Thing: 1", "Connection: x-gone", "X-Gone: 1"),
    "a body of a length": request("POST", "/v1/x", _GUARDED, "Content-Length: 5", body=b"a\r\n\r\nb"),
    "a body in chunks": request(
        "POST",
        "/v1/x",
        _GUARDED,
        "Transfer-Encoding: chunked",
        body=b"3;x=y\r\nabc\r\n0A\r\n0123456789\r\n0\r\nX-Sum: 1\r\nX-Sum: 2\r\n\r\n",
    ),
    "two at once": request("POST", "/v1/x", _GUARDED, "Content-Length: 3", body=b"abc")
    + b"\r\n"
    + request("POST", "/public/x", "Transfer-Encoding: chunked", body=b"1\r\na\r\n0\r\n\r\n")
    + request("GET", "/v1/y", _GUARDED),
}


def _essence(seen: Seen) -> tuple[object, ...]:
    lines = [line for line in seen.lines if line[0] != b"X-Request-Id"]
    return seen.method, seen.target, lines, seen.body, seen.trailers


async def _sent(
    rig: Rig, strict: Strict, pieces: list[bytes], count: int
) -> tuple[list[int], list[tuple[object, ...]]]:
    """Send *pieces*, each by itself; return the statuses of *count* answers, and what the upstream has seen."""
    strict.requests.clear()
    async with rig.client() as client:
        await rig.until(lambda: len(rig.proxy))
        served = rig.connections[-1]
        for piece in pieces:
            served.data_received(piece)
        statuses: list[int] = []
        with contextlib.suppress(asyncio.IncompleteReadError):
            while len(statuses) < count:
                statuses.append((await client.answer())[0])
    await rig.until(lambda: not len(rig.proxy))
    return statuses, [_essence(seen) for seen in strict.requests]


@pytest.mark.parametrize("raw", _CASES.values(), ids=_CASES)
async def test_a_request_may_be_truncated_at_any_byte(raw: bytes) -> None:
    strict = Strict()
    async with Upstream(strict) as upstream, proxied(upstream, failure_limit="100000/minute") as rig:
        raw = raw.replace(b"{}", (await rig.secret(tier="enterprise")).encode())
        count = len(re.findall(rb" HTTP/1\.1\r\n", raw))
        whole = await _sent(rig, strict, [raw], count)
        assert len(whole[0]) == count
        for at in range(1, len(raw)):
            assert await _sent(rig, strict, [raw[:at], raw[at:]], count) == whole
        assert await _sent(rig, strict, [raw[at : at + 1] for at in range(len(raw))], count) == whole
    assert strict.faults == []
    assert strict.unfinished == 0


async def test_the_body_of_a_refused_request_is_not_parsed_as_a_request() -> None:
    """It is passed over where it has come, and else the connection ends: what the client sends then is read no more."""
    strict = Strict()
    body = request("GET", "/public/smuggled")
    raw = request("POST", "/v1/x", f"Content-Length: {len(body)}", body=body) + request("GET", "/public/x")
    async with Upstream(strict) as upstream, proxied(upstream) as rig:
        for at in range(1, len(raw)):
            statuses, seen = await _sent(rig, strict, [raw[:at], raw[at:]], 2)
            assert statuses in ([401], [401, 200])
            assert [essence[1] for essence in seen] == [b"/public/x"] * (len(statuses) - 1)
