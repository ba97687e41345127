"""Requests that gunicorn is tested with: what is invalid goes nowhere, what is valid goes on, one for one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from machpay_gateway import Route
from tests.proxy.cases import Case, all_cases, with_credential, with_host
from tests.proxy.harness import Rig, Upstream, proxied
from tests.proxy.strict import Seen, Strict, read_all

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # how bytes are read is no matter of the loop

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


def _cases(*, is_valid: bool) -> list[Any]:
    if not (cases := all_cases()):
        skip = pytest.mark.skip(reason="the cases are not beside this checkout (../shared/conformance/http1)")
        return [pytest.param(Case("", is_valid, b"", []), marks=skip)]
    return [pytest.param(case, id=case.name) for case in cases if case.is_valid is is_valid]


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
@pytest.mark.parametrize("case", _cases(is_valid=False))
async def test_invalid_requests_are_not_forwarded(case: Case) -> None:
    strict = Strict()
    async with _served(strict, _PUBLIC) as rig:
        for sent in {case.raw, with_host(case.raw)}:
            statuses = await _statuses(rig, sent)
            assert all(400 <= status < 500 or status == 501 for status in statuses) or case.name in _AS_GOOD_AS_ANY
    assert strict.requests == [] or case.name in _AS_GOOD_AS_ANY
    assert strict.faults == []


@pytest.mark.usefixtures("quick_clock")
@pytest.mark.parametrize("case", _cases(is_valid=False))
async def test_invalid_requests_with_a_credential_are_not_forwarded(case: Case) -> None:
    strict = Strict()
    async with _served(strict, _GUARDED) as rig:
        statuses = await _statuses(rig, with_credential(with_host(case.raw), await rig.secret()))
        assert all(400 <= status < 500 or status == 501 for status in statuses) or case.name in _AS_GOOD_AS_ANY
    assert strict.requests == [] or case.name in _AS_GOOD_AS_ANY
    assert strict.faults == []


@pytest.mark.parametrize("case", _cases(is_valid=True))
async def test_valid_requests_without_a_host_are_refused(case: Case) -> None:
    """RFC 9112 §3.2: a request of HTTP/1.1 that has no Host is answered 400."""
    if case.raw == with_host(case.raw):
        pytest.skip("has a Host, or is of HTTP/1.0")
    strict = Strict()
    async with _served(strict, _PUBLIC) as rig, rig.client() as client:
        await client.send(case.raw)
        if case.raw.startswith(b"GET /first HTTP/1.0"):
            await client.answer()
        else:
            assert (await client.answer())[0] in {400, 501}
            assert strict.requests == []


@pytest.mark.parametrize("routes", [_PUBLIC, _GUARDED], ids=["public", "guarded"])
@pytest.mark.parametrize("case", _cases(is_valid=True))
async def test_valid_requests_are_forwarded_unchanged(case: Case, routes: Sequence[Route]) -> None:
    strict = Strict()
    async with _served(strict, routes) as rig, rig.client() as client:
        sent = with_host(case.raw)
        if routes is _GUARDED:
            sent = with_credential(sent, await rig.secret())
        await client.send(sent)
        if case.name in _REFUSED:
            assert (await client.answer())[0] == _REFUSED[case.name][0]
            assert strict.requests == []
            return
        if not (wanted := read_all(sent)):
            pytest.skip("the case's body is shorter than its Content-Length")
        targets = case.wanted or [case.raw.split(b" ")[1].decode()]
        for _ in targets:
            assert (await client.answer())[0] == 200
        assert strict.faults == []
        assert [seen.target.decode() for seen in strict.requests] == targets
        # h11 reads no second request after one of HTTP/1.0.
        assert [_essence(seen) for seen in strict.requests[: len(wanted)]] == [_essence(seen) for seen in wanted]


def _essence(seen: Seen) -> tuple[object, ...]:
    return seen.method, seen.target, seen.passed, seen.body, seen.trailers
