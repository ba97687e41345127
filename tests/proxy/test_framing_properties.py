"""Whatever bytes come, reading them ends in a message or in a refusal; and what is accepted, h11 reads alike."""

import re
from urllib.parse import unquote_to_bytes

import h11
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from machpay_gateway.core.brand import MACHPAY
from machpay_gateway.core.decision.principal import ANONYMOUS
from machpay_gateway.proxy.bodies import BodyFramingError, ChunkedBody, FixedLengthBody, chunk
from machpay_gateway.proxy.framing import FramedRequest, HeadLimits, incomplete_head_fault, read_request, read_response
from machpay_gateway.proxy.header_fields import request_fields, response_fields
from machpay_gateway.proxy.heads import Fault, RequestHead, ResponseHead
from machpay_gateway.proxy.upstream_request import ForwardedInfo, upstream_head
from machpay_gateway.web.path_reader import escape_non_ascii
from tests.proxy.strict import is_ours, read_all

REQUESTS, ANSWERS = request_fields(b"x-forwarded-for"), response_fields()

# Pieces of heads, so that what is put together of them is often nearly right.
LIMITS = HeadLimits(32 * 1024, 100)
_PIECES = [
    *(b"GET POST HEAD OPTIONS CONNECT get PURGE * / /a /a/../b /%41 /a?b http://a/b HTTP/1.1 HTTP/1.0".split()),
    *(b"Host: Content-Length: Transfer-Encoding: Connection: Upgrade: TE: Expect: Authorization: X: A_B:".split()),
    *(b"X-MachPay-Account: X-Forwarded-For: X-Request-Id: Origin: Content-Type: chunked close keep-alive".split()),
    *(b"upgrade websocket h2c trailers 100-continue 0 5 05 +5 5,5 5_0 a.test a.test:80 [::1] 1.2.3.4 , ;".split()),
    *(b"HTTP/1.1 200 204 304 101 100 999 OK".split()),
    *(b" ", b"\t", b"\r\n", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\x00", b"\xe9", b": ", b"\r\n "),
]
_WELL = st.lists(
    st.sampled_from(
        [
            b"Content-Length: 5",
            b"content-length:0",
            b"Transfer-Encoding: chunked",
            b"Connection: close",
            b"Connection: , X, te ,",
            b"Connection: keep-alive, Upgrade",
            b"Upgrade: websocket",
            b"TE: trailers",
            b"Expect: 100-continue",
            b"X: 1",
            b"x:\t2 ",
            b"X_Forwarded_For: 1.2.3.4",
            b"X-MachPay-Account: other",
            b"Cookie: caf\xe9",
            b"Content-Type: a/b",
            b"Host: b.test",
            b"X : 1",
            b" X: 1",
            b"X\x00: 1",
        ]
    ),
    max_size=6,
)
_TARGETS = st.sampled_from([b"/", b"/a?b=%zz", b"/%41%20", b"http://a.test/x", b"*", b"/a//b", b'/"x"'])


@st.composite
def _heads(draw: st.DrawFn) -> bytes:
    """Draw a head that is well-formed, or nearly."""
    method = draw(st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"M-SEARCH", b"-X"]))
    minor = draw(st.sampled_from([b"1", b"1", b"0"]))
    lines = [b"Host: a.test", *draw(_WELL)]
    head = b"\r\n".join((b"%b %b HTTP/1.%b" % (method, draw(_TARGETS), minor), *lines, b"\r\n"))
    if draw(st.booleans()):
        at, byte = draw(st.integers(0, len(head) - 1)), draw(st.binary(max_size=2))
        head = head[:at] + byte + head[at + draw(st.integers(0, 1)) :]
    return head


_ANYTHING = st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(_PIECES), max_size=30).map(b"".join), _heads())


@given(_ANYTHING)
@settings(max_examples=200, deadline=None)
def test_parsing_never_raises(data: bytes) -> None:
    assert isinstance(read_request(data, REQUESTS, LIMITS), FramedRequest | Fault)
    assert isinstance(read_response(data, ANSWERS, LIMITS), ResponseHead | str)
    incomplete_head_fault(data, LIMITS)


@given(_heads())
@settings(max_examples=200, deadline=None)
@example(b"GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n")
@example(b"GET http://a.test?/x HTTP/1.1\r\nHost: a.test\r\n\r\n")
def test_h11_parses_accepted_requests_the_same_way(head: bytes) -> None:
    came = read_request(head, REQUESTS, LIMITS)
    assume(isinstance(came, FramedRequest))
    assert isinstance(came, FramedRequest)
    request = came.head
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)
    first, line_end, fields = head.partition(b"\r\n")
    connection.receive_data(escape_non_ascii(first) + line_end + fields)  # h11 takes no raw UTF-8
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert connection.trailing_data[0] == b""
    assert event.method == request.method
    assert event.http_version == (b"1.1" if request.minor else b"1.0")
    if request.path is not None:
        target = re.sub(rb"\A(?i:https?://a\.test)", b"", event.target)
        # RFC 9112 §3.2.1: where the path of an absolute one is empty, it is "/".
        whole = target if target.startswith((b"/", b"*")) else b"/" + target
        assert unquote_to_bytes(whole) == unquote_to_bytes(_target_of(request))
    lengths = [value for name, value in event.headers if name == b"content-length"]
    assert lengths == ([] if request.length is None else [b"%d" % request.length])
    assert [value for name, value in event.headers if name == b"transfer-encoding"] == [b"chunked"] * request.chunked
    ends = connection.next_event()
    assert isinstance(ends, h11.EndOfMessage) is not request.has_body
    is_plain = not any(name == b"upgrade" for name, _ in event.headers)  # h11 waits for what is said to an upgrade
    if request.minor and not request.has_body and is_plain:  # h11 keeps no connection of HTTP/1.0
        assert (connection.their_state is h11.MUST_CLOSE) is request.closes


@given(_heads(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_forwarded_request_is_exactly_one(head: bytes, credentials: bool) -> None:  # noqa: FBT001 - drawn
    came = read_request(head, REQUESTS, LIMITS)
    assume(isinstance(came, FramedRequest) and came.head.path is not None)
    assert isinstance(came, FramedRequest)
    request = came.head
    authorization = came.authorization if credentials else ()
    sent = upstream_head(
        request, ForwardedInfo((1,), b"http", request.host), ANONYMOUS, b"id-1", MACHPAY, authorization=authorization
    )
    body = b"abcde"[: request.length] if request.length is not None else b"3\r\nabc\r\n0\r\n\r\n"
    (seen,) = read_all(sent + (body if request.has_body else b""))
    assert seen.method == request.method
    assert seen.target == _target_of(request)
    assert seen.values(b"x-request-id") == [b"id-1"]
    assert len(seen.values(b"host")) == 1
    assert not [name for name, _ in seen.lines if name.lower().startswith(b"x-machpay-")]
    assert not (seen.values(b"content-length") and seen.values(b"transfer-encoding"))
    named = {token.strip().lower() for _, value in _fields(head, b"connection") for token in value.split(b",")}
    assert seen.passed == [(n, v) for n, v in _fields(head) if not is_ours(n) and n.lower() not in named]


def _target_of(request: RequestHead) -> bytes:
    """Return the target as it goes on."""
    return request.start.split(b" ")[1]


def _fields(head: bytes, only: bytes = b"") -> list[tuple[bytes, bytes]]:
    pairs = (line.partition(b":") for line in head.split(b"\r\n")[1:-2])
    return [(name, value.strip(b" \t")) for name, _, value in pairs if not only or name.lower() == only]


@given(_heads().map(lambda head: b"HTTP/1.1 200 OK" + head[head.find(b"\r\n") :]))
@settings(max_examples=200, deadline=None)
def test_h11_parses_accepted_responses_the_same_way(head: bytes) -> None:
    answer = read_response(head, ANSWERS, LIMITS)
    assume(isinstance(answer, ResponseHead))
    assert isinstance(answer, ResponseHead)
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=64 * 1024)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a.test")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(head)
    event = connection.next_event()
    assert isinstance(event, h11.Response)
    lengths = [value for name, value in event.headers if name == b"content-length"]
    assert lengths == ([] if answer.length is None else [b"%d" % answer.length])
    assert [value for name, value in event.headers if name == b"transfer-encoding"] == [b"chunked"] * answer.chunked


# Bodies.

_BODY_PIECES = st.sampled_from(
    [
        b"3\r\nabc\r\n",
        b"0\r\n",
        b"\r\n",
        b"3;x\r\nabc\r\n",
        b"X: 1\r\n",
        b"a",
        b"\n",
        b"\r",
        b"10\r\n",
        b"0",
        b"Host: a\r\n",
    ]
)
_BODIES = st.one_of(
    st.lists(_BODY_PIECES, max_size=12).map(b"".join),
    st.lists(st.binary(min_size=1, max_size=20).map(chunk), max_size=5).map(
        lambda all_of: b"".join(all_of) + b"0\r\n\r\n"
    ),
    st.binary(max_size=60),
)

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[\t ]*;[\t\x20-\x7e\x80-\xff]*)?")
_FIELD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")


def _read_whole(data: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Return payload, trailers and what follows of a body that has come whole; None where it is none, or not whole."""
    payload = b""
    while True:
        line, end, data = data.partition(b"\r\n")
        match = _SIZE.fullmatch(line)
        if not end or match is None or len(line) > 254:
            return None
        size = int(match[1], 16)
        if not size:
            break
        if data[size : size + 2] != b"\r\n":
            return None
        payload += data[:size]
        data = data[size + 2 :]
    if data[:2] == b"\r\n":
        return payload, b"", data[2:]
    trailers, end, rest = data.partition(b"\r\n\r\n")
    lines = trailers.split(b"\r\n")
    if not end or not all(_FIELD.fullmatch(line) and REQUESTS[line] is None for line in lines):
        return None
    return payload, trailers + b"\r\n", rest


def _taken(pieces: list[bytes]) -> tuple[bytes, bytes, bytes] | None:
    """Return what a body that comes in *pieces* is read as; None where it is none, or not whole."""
    body, payload, rest = ChunkedBody(REQUESTS), b"", b""
    for piece in pieces:
        if body.is_done:
            rest += piece
            continue
        try:
            more, rest = body.take(piece)
        except BodyFramingError:
            return None
        payload += more
    return (payload, body.trailers, rest) if body.is_done else None


@given(_BODIES)
@settings(max_examples=200, deadline=None)
def test_a_chunked_body_round_trips(data: bytes) -> None:
    assert _taken([data]) == _read_whole(data)


@given(_BODIES, st.lists(st.integers(0, 80), max_size=6))
@settings(max_examples=200, deadline=None)
def test_the_segmentation_of_a_body_makes_no_difference(data: bytes, cuts: list[int]) -> None:
    ends = sorted({*(cut for cut in cuts if cut < len(data)), len(data)})
    pieces = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert _taken(pieces) == _taken([data]) == _taken([data[at : at + 1] for at in range(len(data))])


@pytest.mark.parametrize("length", [8190, 8191, 8192, 8193, 8194])
def test_the_segmentation_of_maximal_trailers_makes_no_difference(length: int) -> None:
    """Their last line's end counts; the empty line after them does not."""
    data = b"0\r\nX: " + b"a" * (length - 5) + b"\r\n\r\n"
    whole = _taken([data])
    assert (whole is not None) is (length <= 8192)
    for cut in range(len(data) - 6, len(data)):
        assert _taken([data[:cut], data[cut:]]) == whole


@given(st.integers(0, 20), st.lists(st.binary(max_size=8), max_size=6))
@settings(max_examples=100, deadline=None)
def test_a_fixed_length_body_ends_at_its_length(length: int, pieces: list[bytes]) -> None:
    body, payload, rest = FixedLengthBody(length), b"", b""
    for piece in pieces:
        more, left = body.take(piece)
        payload, rest = payload + more, rest + left
    data = b"".join(pieces)
    assert (payload, rest, body.is_done) == (data[:length], data[length:], len(data) >= length)
