"""What is remembered of heads makes no difference to what is read, and holds no secret."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machpay_gateway.core.decision.credential_reader import CredentialReader
from machpay_gateway.core.decision.credential_settings import CredentialSettings
from machpay_gateway.proxy.framing import FramedRequest, HeadLimits, read_request, read_response
from machpay_gateway.proxy.header_fields import request_fields, response_fields
from machpay_gateway.proxy.heads import Fault, RequestHead, ResponseHead
from machpay_gateway.proxy.readers import RequestReader, ResponseReader

LIMITS = HeadLimits(32 * 1024, 100)
FIRST = b"GET /v1/skills HTTP/1.1"
HOST = b"Host: a.test"
CREDENTIALS = b"Authorization: Bearer abc"


def head_of(first: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join((first, *lines, b"\r\n"))


def comparable(request: FramedRequest | Fault) -> object:
    return request if isinstance(request, Fault) else (attributes(request.head), request.authorization)


def attributes(head: RequestHead | ResponseHead) -> dict[str, object]:
    """Return all that a head says; one that is compiled has no `__dict__`."""
    names = (name for name in dir(head) if not name.startswith("__"))
    return {name: value for name in names if not callable(value := getattr(head, name))}


def request_reader() -> RequestReader:
    return RequestReader(request_fields(b"x-forwarded-for"), LIMITS)


_LINES = st.lists(
    st.sampled_from(
        [
            HOST,
            b"host: b.test",
            CREDENTIALS,
            b"Authorization: Bearer xyz",
            b"authorization: Bearer abc",
            b"AUTHORIZATION: Bearer abc",
            b"Authorization: ",
            b"Authorization:Bearer abc",
            b"Authorization: a\rb",
            b"Authorization: a\x00b",
            b"Authorization: a\n folded",
            b" folded",
            b"X: 1",
            b"Content-Length: 5",
            b"Transfer-Encoding: chunked",
            b"Connection: close",
            b"Cookie: a=b",
            b"Accept: */*",
        ]
    ),
    max_size=4,
).map(lambda lines: [HOST, *lines] if len(lines) % 2 else lines)
_FIRSTS = st.sampled_from(
    [FIRST, FIRST, b"POST /v1/skills HTTP/1.1", b"GET /v1/skills HTTP/1.0", b"GET /?a=b HTTP/1.1"]
)


@given(st.lists(st.builds(lambda first, lines: head_of(first, *lines), _FIRSTS, _LINES), min_size=2, max_size=8))
@settings(max_examples=300, deadline=None)
def test_the_cache_does_not_change_how_a_request_is_parsed(heads: Sequence[bytes]) -> None:
    reader = request_reader()
    for head in (*heads, *heads):
        assert comparable(reader.read(head)) == comparable(
            read_request(head, request_fields(b"x-forwarded-for"), LIMITS)
        )


_PLACES = CredentialReader(CredentialSettings(["Authorization", "X-API-Key"], "key"))
_OTHER_LINES = st.lists(
    st.sampled_from(
        [
            HOST,
            CREDENTIALS,
            b"X-API-Key: abc",
            b"X-API-Key:  xyz ",
            b"x-api-key: abc",
            b"X-Api-Key: abc",
            b"X-API-Key:abc",
            b"X-API-Key: a\rb",
            b"X-API-Key: ",
            b"X_API_KEY: abc",
            b"Referer: /?key=abc",
            b"Sec-WebSocket-Protocol: machpay.bearer.abc, chat",
            b"Connection: close, X-API-Key",
            b"Accept: */*",
        ]
    ),
    max_size=4,
).map(lambda lines: [HOST, *lines] if len(lines) % 2 else lines)


@given(st.lists(st.builds(lambda first, lines: head_of(first, *lines), _FIRSTS, _OTHER_LINES), min_size=2, max_size=8))
@settings(max_examples=200, deadline=None)
def test_the_cache_does_not_change_how_a_credential_elsewhere_is_parsed(heads: Sequence[bytes]) -> None:
    fields = request_fields(b"x-forwarded-for", credentials=_PLACES)
    reader, exact = RequestReader(fields, LIMITS, replaces_headers=True), RequestReader(fields, LIMITS)
    for head in (*heads, *heads):
        whole = comparable(read_request(head, fields, LIMITS))
        assert comparable(exact.read(head)) == whole
        replaced = reader.read(head)
        if isinstance(replaced, FramedRequest) and isinstance(whole, tuple):
            # What is set aside is left out of a cached head: nobody gets it.
            both = [attributes(replaced.head), dict(whole[0])]
            for each in both:
                del each["set_aside"]
            assert (both[0], replaced.authorization) == (both[1], whole[1])
        else:
            assert replaced == whole
    assert b"abc" not in b"".join(reader.cache)


@given(st.lists(st.builds(lambda lines: head_of(b"HTTP/1.1 200 OK", *lines), _LINES), min_size=2, max_size=8))
@settings(max_examples=100, deadline=None)
def test_the_cache_does_not_change_how_a_response_is_parsed(heads: Sequence[bytes]) -> None:
    reader = ResponseReader(response_fields(), LIMITS)
    for head in (*heads, *heads):
        first, second = reader.read(head), read_response(head, response_fields(), LIMITS)
        if isinstance(first, str) or isinstance(second, str):
            assert first == second
        else:
            assert attributes(first) == attributes(second)


def test_equal_heads_with_other_credentials_are_parsed_once() -> None:
    reader = request_reader()
    heads = [head_of(FIRST, HOST, b"Authorization: Bearer %d" % n, b"Accept: */*") for n in range(3)]
    requests = [reader.read(head) for head in heads]
    assert all(isinstance(request, FramedRequest) for request in requests)
    assert len({id(request[0]) for request in requests}) == 1
    assert [request[1] for request in requests] == [(b"Bearer 0",), (b"Bearer 1",), (b"Bearer 2",)]


@pytest.mark.parametrize(
    "head",
    [
        head_of(FIRST, HOST, b"Authorization: Bearer hush-hush"),
        head_of(FIRST, HOST, b"AUTHORIZATION: Bearer hush-hush"),
        head_of(FIRST, HOST, b"Authorization: Bearer a", b"Authorization: Bearer hush-hush"),
        head_of(FIRST, HOST, b"Cookie: session=hush-hush"),
        head_of(FIRST, HOST, b"X-Api-Key: hush-hush"),
        head_of(b"GET /v1/skills?token=hush-hush HTTP/1.1", HOST),
    ],
)
def test_no_secret_is_cached(head: bytes) -> None:
    reader = request_reader()
    request = reader.read(head)
    assert isinstance(request, FramedRequest)
    assert not [key for key, parsed in reader.cache.items() if "hush-hush" in f"{key!r} {attributes(parsed)}"]


def test_a_cached_head_with_the_maximum_of_lines_may_not_have_one_more() -> None:
    reader = request_reader()
    lines = [HOST, *[b"X: 1"] * (LIMITS.max_lines - 1)]
    for _ in range(2):
        assert isinstance(reader.read(head_of(FIRST, *lines)), FramedRequest)
        assert isinstance(reader.read(head_of(FIRST, *lines, CREDENTIALS)), Fault)


def test_a_cached_head_may_not_have_a_credential_beyond_the_limit() -> None:
    reader = request_reader()
    for count, expected in ((0, FramedRequest), (LIMITS.max_bytes - 100, FramedRequest), (LIMITS.max_bytes, Fault)):
        assert isinstance(reader.read(head_of(FIRST, HOST, b"Authorization: " + b"a" * count)), expected)


def test_made_up_heads_fill_no_memory() -> None:
    reader, answers = request_reader(), ResponseReader(response_fields(), LIMITS)
    for number in range(5000):
        reader.read(head_of(b"GET /%d HTTP/1.1" % number, HOST))
        answers.read(head_of(b"HTTP/1.1 200 OK", b"Content-Length: %d" % number))
    reader.read(head_of(b"GET /%b HTTP/1.1" % (b"a" * 1024), HOST))
    for cache in (reader.cache, answers.cache):
        assert 0 < len(cache) <= 1024
        assert max(map(len, cache)) <= 1024
