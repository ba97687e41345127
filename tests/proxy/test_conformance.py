"""Requests that gunicorn is tested with: what is invalid goes nowhere, what is valid goes on, one for one."""

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from machpay_gateway import Route
from tests.proxy.rigs import Rig, Upstream, proxied
from tests.proxy.strict import Seen, Strict, read_all

CASES = Path(__file__).parents[2].parent / "shared" / "conformance" / "http1" / "requests.jsonl"
_PUBLIC = (Route("* /{rest:path}", public=True),)
_SOON = {"head_seconds": 0.1, "keepalive_seconds": 0.1}
_GUARDED = (Route("* /{rest:path}", scopes="skills:execute"),)

# Refused by gunicorn for limits or under options of its own; here it is a request like any other, or one without Host.
_AS_GOOD_AS_ANY = {
    "invalid/006.http": "a request line of 4 KB: a head may have 32",
    "invalid/007.http": "a line of 8 KB",
    "invalid/008.http": "a line of 12 KB",
    "invalid/010.http": "a limit of 10 bytes",
    "invalid/011.http": "a limit of 2 fields",
    "invalid/012.http": "a limit of 98 bytes",
    "invalid/017.http": "a line of 8 KB",
    "invalid/019.http": "two fields that disagree on the scheme: neither passes",
    "invalid/040.http": "names with underscores that would read as ours: they do not pass",
    "invalid/limit_header_default_01.http": "a line of 8 KB",
}
# Valid to gunicorn, and refused by a rule.
_REFUSED = {
    "valid/005.http": (400, "RFC 9112 §3.2: no form of a target has a fragment"),
    "valid/025.http": (501, "RFC 9112 §6.1: a transfer coding that is not understood"),
    "valid/025_line.http": (501, "RFC 9112 §6.1: as above"),
    "valid/028.http": (400, "RFC 9112 §5.1: a space before the colon is answered 400"),
    "valid/029.http": (501, "RFC 9112 §6.1: as above"),
    "valid/030.http": (501, "RFC 9112 §6.1: as above"),
    "valid/031compat.http": (400, "RFC 9110 §9.1: methods are case-sensitive; frameworks read them in upper case"),
    "valid/031compat2.http": (400, "RFC 9110 §9.1: as above"),
    "valid/100.http": (400, "empty segments, which servers merge: two readings of one path"),
    "valid/compat_obs_fold.http": (400, "RFC 9112 §5.2: a folded line is refused"),
    "valid/compat_obs_fold_huge.http": (400, "RFC 9112 §5.2: as above"),
}


def _cases(kind: str) -> list[Any]:
    if not CASES.exists():
        skip = pytest.mark.skip(reason="the cases are not beside this checkout (../shared/conformance/http1)")
        return [pytest.param("", b"", {}, marks=skip)]
    read = [json.loads(line) for line in CASES.read_text().splitlines()]
    return [
        pytest.param(case["name"], base64.b64decode(case["b64"]), case["expect"], id=case["name"])
        for case in read
        if case["kind"] == kind
    ]


def _with_host(raw: bytes) -> bytes:
    """Give each request of HTTP/1.1 a Host that has none: what else these cases are about would not be seen."""
    if b"\r\nhost:" in raw.lower():
        return raw
    return raw.replace(b" HTTP/1.1\r\n", b" HTTP/1.1\r\nHost: api.test\r\n")


def _with_credential(raw: bytes, secret: str) -> bytes:
    return re.sub(rb"( HTTP/1\.[01]\r\n)", rb"\1Authorization: Bearer " + secret.encode() + rb"\r\n", raw)


async def _statuses(rig: Rig, raw: bytes) -> list[int]:
    """Send *raw*, and return the statuses of all answers until the connection is closed."""
    async with rig.client() as client:
        await client.send(raw)
        statuses = []
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                statuses.append((await client.answer())[0])
        return statuses


@asynccontextmanager
async def _served(strict: Strict, routes: Sequence[Route]) -> AsyncIterator[Rig]:
    """Serve *routes*, in front of *strict*, with little patience."""
    async with (
        Upstream(strict) as upstream,
        proxied(upstream, routes=routes, server=_SOON, proxy={"idle_seconds": 0.1}) as rig,
    ):
        yield rig


@pytest.mark.usefixtures("quick_clock")
@pytest.mark.parametrize("name, raw, expect", _cases("invalid"))
async def test_what_is_invalid_goes_nowhere(name: str, raw: bytes, expect: object) -> None:
    del expect
    strict = Strict()
    async with _served(strict, _PUBLIC) as rig:
        for sent in {raw, _with_host(raw)}:
            statuses = await _statuses(rig, sent)
            assert all(400 <= status < 500 or status == 501 for status in statuses) or name in _AS_GOOD_AS_ANY
    assert strict.requests == [] or name in _AS_GOOD_AS_ANY
    assert strict.faults == []


@pytest.mark.usefixtures("quick_clock")
@pytest.mark.parametrize("name, raw, expect", _cases("invalid"))
async def test_what_is_invalid_goes_nowhere_with_a_credential_either(name: str, raw: bytes, expect: object) -> None:
    del expect
    strict = Strict()
    async with _served(strict, _GUARDED) as rig:
        statuses = await _statuses(rig, _with_credential(_with_host(raw), await rig.secret()))
        assert all(400 <= status < 500 or status == 501 for status in statuses) or name in _AS_GOOD_AS_ANY
    assert strict.requests == [] or name in _AS_GOOD_AS_ANY
    assert strict.faults == []


@pytest.mark.parametrize("name, raw, expect", _cases("valid"))
async def test_what_is_valid_without_a_host_is_refused(name: str, raw: bytes, expect: object) -> None:
    """RFC 9112 §3.2: a request of HTTP/1.1 that has no Host is answered 400."""
    del name, expect
    if raw == _with_host(raw):
        pytest.skip("has a Host, or is of HTTP/1.0")
    strict = Strict()
    async with _served(strict, _PUBLIC) as rig, rig.client() as client:
        await client.send(raw)
        if raw.startswith(b"GET /first HTTP/1.0"):
            await client.answer()
        else:
            assert (await client.answer())[0] in {400, 501}
            assert strict.requests == []


@pytest.mark.parametrize("routes", [_PUBLIC, _GUARDED], ids=["public", "guarded"])
@pytest.mark.parametrize("name, raw, expect", _cases("valid"))
async def test_what_is_valid_goes_on_as_it_is(
    name: str, raw: bytes, expect: Mapping[str, list[str]], routes: Sequence[Route]
) -> None:
    strict = Strict()
    async with _served(strict, routes) as rig, rig.client() as client:
        sent = _with_host(raw)
        if routes is _GUARDED:
            sent = _with_credential(sent, await rig.secret())
        await client.send(sent)
        if name in _REFUSED:
            assert (await client.answer())[0] == _REFUSED[name][0]
            assert strict.requests == []
            return
        if not (wanted := read_all(sent)):
            pytest.skip("the case's body is shorter than its Content-Length")
        targets = expect["uris"] or [raw.split(b" ")[1].decode()]
        for _ in targets:
            assert (await client.answer())[0] == 200
        assert strict.faults == []
        assert [seen.target.decode() for seen in strict.requests] == targets
        # h11 reads no second request after one of HTTP/1.0.
        assert [_essence(seen) for seen in strict.requests[: len(wanted)]] == [_essence(seen) for seen in wanted]


def _essence(seen: Seen) -> tuple[object, ...]:
    return seen.method, seen.target, seen.passed, seen.body, seen.trailers
