"""Header blocks as heads of HTTP/1.1 and back."""

import pytest

from machpay_gateway.proxy.http2.fields import read_request_block, read_response_block, upstream_block

HEAD = (
    b"GET /a?b=c HTTP/1.1\r\nHost: api.test\r\nAccept: */*\r\nAuthorization: Bearer x\r\nCookie: a=1\r\n"
    b"X-Api-Key: y\r\nConnection: TE\r\nTE: trailers\r\nX-Request-Id: 7"
)


def test_what_may_be_secret_is_not_compressed_with_what_others_send() -> None:
    block, length, is_chunked = upstream_block(HEAD, b"http")
    assert (length, is_chunked) == (0, False)
    assert block[:4] == [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/a?b=c"),
        (b":authority", b"api.test"),
    ]
    never = {field[0] for field in block if not getattr(field, "indexable", True)}
    assert never == {b"authorization", b"cookie", b"x-api-key", b"x-request-id"}
    assert {b"te", b"accept"} <= {name for name, _ in block}


@pytest.mark.parametrize(
    "block",
    [
        [],
        [(b"server", b"x")],
        [(b":status", b"20")],
        [(b":status", b"200"), (b":status", b"200")],
        [(b":status", b"200"), (b"connection", b"close")],
        [(b":status", b"200"), (b"x-a", b"b\r\nset-cookie: c=d")],
        [(b":status", b"200"), (b"X-A", b"b")],
        [(b":status", b"200\r\nx: y")],
    ],
)
def test_malformed_responses(block: list[tuple[bytes, bytes]]) -> None:
    assert read_response_block(block) is None


def test_a_response_gets_its_reason() -> None:
    assert read_response_block([(b":status", b"404"), (b"a", b"b")]) == b"HTTP/1.1 404 Not Found\r\na: b\r\n\r\n"


def test_no_field_of_a_request_can_become_another_line() -> None:
    fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")]
    for number in range(4):
        for evil in (b"\r\nx: y", b"\n", b" HTTP/1.1", b"\0", b"\t"):
            block = [(name, value + evil * (at == number)) for at, (name, value) in enumerate(fields)]
            assert isinstance(read_request_block(block, is_whole=True), str)
