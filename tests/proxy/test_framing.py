"""Where a request ends: read in one way, or refused before anything of what follows is read."""

import pytest

from tests.proxy.harness import Upstream, proxied, request
from tests.proxy.strict import Strict

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # how bytes are read is no matter of the loop

_NEXT = request("GET", "/public/next")


async def _exchange(sent: bytes) -> tuple[bytes, Strict]:
    """Send one request, or what is none, and another after it; return all answers, and what the upstream has seen."""
    strict = Strict()
    last = request("GET", "/public/next", "Connection: close")
    async with Upstream(strict) as upstream, proxied(upstream, server={"head_seconds": 0.1}) as rig:
        answers = await rig.exchange(sent + last)
    assert strict.faults == []
    return answers, strict


@pytest.mark.parametrize(
    "fields, expected",
    [
        (["Content-Length: 3"], 200),
        (["content-length:\t3 "], 200),
        (["Content-Length: 0003"], 200),
        (["Content-Length: +3"], 400),
        (["Content-Length: -3"], 400),
        (["Content-Length: 3_0"], 400),
        (["Content-Length: 0x3"], 400),
        (["Content-Length: 3.0"], 400),
        (["Content-Length: 3 3"], 400),
        (["Content-Length: 3, 3"], 400),
        (["Content-Length: 3,"], 400),
        (["Content-Length:"], 400),
        (["Content-Length: \u00b3"], 400),
        (["Content-Length: 9999999999999999999"], 400),
        (["Content-Length: 3", "Content-Length: 3"], 400),
        (["Content-Length: 3", "Content-Length: 4"], 400),
        (["Content-Length: 3", "content-length: 3"], 400),
        (["Content-Length : 3"], 400),
        (["Content-Length\x0b: 3"], 400),
        (["Content-Length: 3\x0b"], 400),
        (["Content-Length: 3\x00"], 400),
        (["Content-Length: 3", "Transfer-Encoding: chunked"], 400),
        (["Transfer-Encoding: chunked", "Content-Length: 3"], 400),
        (["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], 400),
        (["Transfer-Encoding: chunked, chunked"], 400),  # RFC 9112 §6.3: where chunked is not the last, answered 400
        (["Transfer-Encoding: gzip, chunked"], 501),
        (["Transfer-Encoding: chunked, identity"], 400),
        (["Transfer-Encoding: identity"], 400),
        (["Transfer-Encoding: xchunked"], 400),
        (["Transfer-Encoding: \x0bchunked"], 400),
        (["Transfer-Encoding: chunked\x0b"], 400),
        (['Transfer-Encoding: "chunked"'], 400),
        (["Transfer-Encoding: chunked;q=1"], 400),
        (["Transfer-Encoding:"], 400),
        (["Transfer-Encoding :chunked"], 400),
        (["Transfer-Encoding\t: chunked"], 400),
        (["Transfer-Encoding:\r\n chunked"], 400),
        (["X: 1\r\n\tTransfer-Encoding: chunked"], 400),
        (["X: 1\nTransfer-Encoding: chunked"], 400),
        (["X: 1\rTransfer-Encoding: chunked"], 400),
        ([": 1"], 400),
        (["X"], 400),
        (["X Y: 1"], 400),
        (["X(Y): 1"], 400),
        (["X\xe9: 1"], 400),
        (["Content-Type: a/b", "content-type: c/d"], 400),
    ],
)
async def test_a_content_length_is_unambiguous(fields: list[str], expected: int) -> None:
    answers, strict = await _exchange(request("POST", "/public/x", *fields, body=b"abc"))
    assert answers.startswith(b"HTTP/1.1 %d " % expected)
    assert answers.count(b"HTTP/1.1 ") == (2 if expected == 200 else 1)
    assert [(seen.target, seen.body) for seen in strict.requests] == (
        [(b"/public/x", b"abc"), (b"/public/next", b"")] if expected == 200 else []
    )


@pytest.mark.parametrize(
    "body, expected",
    [
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"03\r\nabc\r\n000\r\n\r\n", b"abc"),
        (b"3;a=b\r\nabc\r\n0;c\r\n\r\n", b"abc"),
        (b'3;a="b c"\r\nabc\r\n0\r\n\r\n', b"abc"),
        (b"3 ;a\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"a\r\n0123456789\r\n0\r\nX-Sum: 1\r\nX-Sum: 2\r\n\r\n", b"0123456789"),
        (b"0\r\n\r\n", b""),
        (b"0x3\r\nabc\r\n0\r\n\r\n", None),
        (b"+3\r\nabc\r\n0\r\n\r\n", None),
        (b"-3\r\nabc\r\n0\r\n\r\n", None),
        (b"3 \r\nabc\r\n0\r\n\r\n", None),
        (b" 3\r\nabc\r\n0\r\n\r\n", None),
        (b"3_0\r\nabc\r\n0\r\n\r\n", None),
        (b"3\nabc\r\n0\r\n\r\n", None),
        (b"3\r\nabc\n0\r\n\r\n", None),
        (b"3\r\nabc0\r\n\r\n", None),
        (b"3\r\nabcd\r\n0\r\n\r\n", None),
        (b"3\rabc\r\n0\r\n\r\n", None),
        (b"3;a\nb\r\nabc\r\n0\r\n\r\n", None),  # some end the line at the first, some at the second
        (b"3;a\x00\r\nabc\r\n0\r\n\r\n", None),
        (b"3;a\rb\r\nabc\r\n0\r\n\r\n", None),
        (b"3;" + b"a" * 300 + b"\r\nabc\r\n0\r\n\r\n", None),
        (b"00000000000000003\r\nabc\r\n0\r\n\r\n", None),  # 17 digits
        (b"10000000000000003\r\nabc\r\n0\r\n\r\n", None),  # 3, to whoever counts in 64 bits
        (b"\r\n3\r\nabc\r\n0\r\n\r\n", None),
        (b";a\r\nabc\r\n0\r\n\r\n", None),
        (b"g\r\nabc\r\n0\r\n\r\n", None),
        (b"0\r\nX\r\n\r\n", None),
        (b"0\r\n X: 1\r\n\r\n", None),
        (b"0\r\nX: 1\n\r\n", None),
        (b"0\r\nX : 1\r\n\r\n", None),
        (b"0\r\nX: \x00\r\n\r\n", None),
        (b"0\r\nContent-Length: 5\r\n\r\n", None),
        (b"0\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        (b"0\r\nHost: other.test\r\n\r\n", None),
        (b"0\r\nAuthorization: Bearer x\r\n\r\n", None),
        (b"0\r\nX-MachPay-Account: other\r\n\r\n", None),
        (b"0\r\nx_machpay_account: other\r\n\r\n", None),
        (b"0\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n", None),
        (b"0\r\nConnection: close\r\n\r\n", None),
        (b"0\r\n" + b"X: 1\r\n" * 2000 + b"\r\n", None),
    ],
)
async def test_a_chunked_body_is_unambiguous(body: bytes, expected: bytes | None) -> None:
    answers, strict = await _exchange(request("POST", "/public/x", "Transfer-Encoding: chunked", body=body))
    if expected is None:
        assert answers.startswith(b"HTTP/1.1 400 ")
        assert answers.count(b"HTTP/1.1 ") == 1
        assert strict.requests == []
        return
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert [(seen.target, seen.body) for seen in strict.requests] == [(b"/public/x", expected), (b"/public/next", b"")]


async def test_a_malformed_body_in_one_piece_with_its_head_is_not_forwarded() -> None:
    async with Upstream() as upstream, proxied(upstream) as rig:
        for body in (b"0x3\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n3\nabc\r\n", b"3\r\nabc\r\n0\r\nHost: x\r\n\r\n"):
            answers = await rig.exchange(request("POST", "/public/x", "Transfer-Encoding: chunked", body=body))
            assert answers.startswith(b"HTTP/1.1 400 ")
        await rig.exchange(request("GET", "/public/next", "Connection: close"))
        assert [head.split()[1] for head in upstream.heads] == [b"/public/next"]
        assert upstream.connections == 1  # nor has anybody else lost a connection that was kept


async def test_http_1_0_has_no_chunked_bodies() -> None:
    sent = b"POST /public/x HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    answers, strict = await _exchange(sent)
    assert answers.startswith(b"HTTP/1.1 400 ")
    assert strict.requests == []


async def test_empty_lines_before_a_request_are_ignored() -> None:
    answers, strict = await _exchange(b"\r\n\r\n" + _NEXT + b"\r\n")
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert len(strict.requests) == 2


@pytest.mark.parametrize("between", [b"\n", b"\r", b"\r\r\n", b" ", b"\x00", b"\r\n "])
async def test_other_bytes_between_requests_are_refused(between: bytes) -> None:
    answers, strict = await _exchange(_NEXT + between)
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 400 " in answers
    assert len(strict.requests) == 1


@pytest.mark.parametrize(
    "first, count",
    [
        (b"GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n", 2),
        (b"GET /public/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 1),
        (b"GET /public/x HTTP/1.1\r\nHost: a\r\nConnection: CLOSE, x\r\n\r\n", 1),
        (b"GET /public/x HTTP/1.0\r\nHost: a\r\n\r\n", 1),
        (b"GET /public/x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", 2),
        (b"GET /public/x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n", 1),
        (b"POST /public/x HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc", 2),
        (b"POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 2),
        (b"GET /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 2),  # a refusal passes over the body
        (b"GET /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 2),
        (b"GET /nowhere HTTP/1.0\r\nHost: a\r\n\r\n", 1),
        (b"GET /nowhere HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", 2),
    ],
)
async def test_keep_alive_needs_both_sides(first: bytes, count: int) -> None:
    answers, _ = await _exchange(first)
    assert answers.count(b"HTTP/1.1 ") == count
    if b" HTTP/1.0\r\n" in first and count == 2:
        assert b"\r\nConnection: keep-alive\r\n" in answers
