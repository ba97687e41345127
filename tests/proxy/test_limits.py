"""What is too much or takes too long is refused, and what follows on the connection is read as what it is."""

import asyncio

import pytest

from machpay_gateway import Route
from tests.proxy.harness import ROUTES, Upstream, deaf, proxied, request

_LIMITED = (*ROUTES, Route("* /small", public=True, proxy={"max_body_bytes": 10}))
_CHUNKED = "Transfer-Encoding: chunked"


def _head_of(length: int) -> bytes:
    whole = request("GET", "/public/x", "X-Long: ")
    return whole.replace(b"X-Long: ", b"X-Long: " + b"a" * (length - len(whole)))


def _of_lines(count: int, *fields: str) -> bytes:
    return request("GET", "/public/x", *fields, *(f"X-{number}: 1" for number in range(count - 1 - len(fields))))


@pytest.mark.parametrize(
    "sent, expected",
    [
        (_head_of(32 * 1024), 200),  # as much as is allowed
        (_head_of(32 * 1024 + 1), 431),
        (b"GET /public/" + b"a" * 40_000, 431),  # before its end has come
        (_of_lines(100), 200),
        (_of_lines(101), 431),
        # What is read and passed on counts once, as all else.
        (_of_lines(100, "Origin: https://a.test", "Expect: 100-continue", "Access-Control-Request-Method: GET"), 200),
        (b"GET /public/x HTTP/1.1\r\n" + b"a: 1\r\n" * 200, 431),  # before its end has come
        (b"GET /public/x HTTP/1.1\r\nHost: a\r\n" + b"a\n", 400),  # cannot become a head any more
        (b"GET /public/x HTTP/1.1\nHost: a\n\n", 400),
        (b"GET /public/x\r\n", 400),  # HTTP/0.9, after which nothing more comes
        (b"GET /public/x HTTP/3\r\nHost: a\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
    ],
)
async def test_heads_are_limited(sent: bytes, expected: int) -> None:
    async with Upstream() as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(sent)
        assert (await client.answer())[0] == expected
        assert len(upstream.heads) == (expected == 200)
        if expected != 200:
            assert await client.rest() == b""


@pytest.mark.parametrize(
    "fields, body, expected",
    [
        (["Content-Length: 10"], b"0123456789", 200),
        (["Content-Length: 11"], b"01234567890", 413),
        ([_CHUNKED], b"a\r\n0123456789\r\n0\r\n\r\n", 200),
        ([_CHUNKED], b"b\r\n01234567890\r\n0\r\n\r\n", 413),
        ([_CHUNKED], b"a\r\n0123456789\r\n1\r\n0\r\n0\r\n\r\n", 413),
    ],
)
async def test_bodies_are_limited_by_the_route(fields: list[str], body: bytes, expected: int) -> None:
    async with Upstream() as upstream, proxied(upstream, routes=_LIMITED) as rig, rig.client() as client:
        await client.send(request("POST", "/small", *fields, body=body) + request())
        assert (await client.answer())[0] == expected
        assert (await client.answer())[0] == 200  # what follows is no part of the body, and the body no part of it
        assert upstream.heads[-1].startswith(b"GET /public/x ")


@pytest.mark.parametrize("sent", [b"b\r\n01234567890", b"a\r\n0123456789\r\n1\r\n0", b"b\r\n01234567890\r\n0\r\n"])
async def test_a_body_that_exceeds_the_limit_is_refused_before_its_end(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with Upstream() as upstream, proxied(upstream, routes=_LIMITED) as rig, rig.client() as client:
        await client.send(request("POST", "/small", _CHUNKED, body=sent))
        assert (await client.answer())[0] == 413
        assert await client.rest() == b""
        assert upstream.bodies == []
        assert "Traceback" not in caplog.text


async def test_the_rest_of_a_body_that_was_too_long_is_not_parsed_as_requests() -> None:
    """The head of the second comes along with the end of the first, its body later."""
    smuggled = request("GET", "/public/smuggled")
    async with Upstream() as upstream, proxied(upstream, routes=_LIMITED) as rig, rig.client() as client:
        await client.send(request())
        await client.answer()  # so that there is a connection to the upstream that is used at once
        second = request("POST", "/public/second", f"Content-Length: {len(smuggled)}")
        await client.send(request("POST", "/small", _CHUNKED))
        await rig.until(lambda: len(upstream.heads) == 2)
        await client.send(b"b\r\n01234567890\r\n0\r\n\r\n" + second)
        assert (await client.answer())[0] == 413
        await client.send(smuggled)
        assert (await client.answer())[0] == 200
        assert upstream.bodies[-1] == smuggled
        assert not any(b"/public/smuggled" in head for head in upstream.heads)


@pytest.mark.usefixtures("quick_clock")
async def test_a_head_that_does_not_arrive_is_answered_408() -> None:
    async with Upstream() as upstream, proxied(upstream, server={"head_seconds": 0.05}) as rig, rig.client() as client:
        await client.send(b"GET /public/x HT")
        assert (await client.answer())[0] == 408
        assert await client.rest() == b""
        assert upstream.connections == 0


async def test_a_slow_head_gets_no_extra_time() -> None:
    async with Upstream() as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(b"G")
        await rig.until(lambda: rig.connections)
        due = rig.connections[0].due
        await client.send(b"ET /public/x")
        await client.send(b" HTTP/1.1\r\n")
        assert rig.connections[0].due <= due


@pytest.mark.usefixtures("quick_clock")
async def test_a_connection_without_a_request_is_closed_without_a_response() -> None:
    async with Upstream() as upstream, proxied(upstream, server={"head_seconds": 0.05}) as rig:
        assert await rig.exchange(b"") == b""
        assert await rig.exchange(b"\r\n\r\n") == b""  # empty lines are no request (RFC 9112 §2.2)
        assert rig.ended == []


@pytest.mark.parametrize("size, status", [(2048, 200), (2049, 431)])
async def test_the_size_of_a_head_is_a_setting(size: int, status: int) -> None:
    async with (
        Upstream() as upstream,
        proxied(upstream, server={"max_head_bytes": 2048}) as rig,
        rig.client() as client,
    ):
        await client.send(_head_of(size))
        assert (await client.answer())[0] == status


@pytest.mark.parametrize("size, status", [(40_000, 200), (50_000, 431)])
async def test_heads_may_be_larger_than_by_default(size: int, status: int) -> None:
    server = {"max_head_bytes": 49_152, "max_header_lines": 300}
    async with Upstream() as upstream, proxied(upstream, server=server) as rig, rig.client() as client:
        await client.send(_head_of(size))
        assert (await client.answer())[0] == status


@pytest.mark.parametrize("lines, status", [(300, 200), (301, 431)])
async def test_the_number_of_header_lines_is_a_setting(lines: int, status: int) -> None:
    server = {"max_header_lines": 300}
    async with Upstream() as upstream, proxied(upstream, server=server) as rig, rig.client() as client:
        await client.send(_of_lines(lines))
        assert (await client.answer())[0] == status


@pytest.mark.parametrize("options, status", [({}, 502), ({"max_response_head_bytes": 49_152}, 200)])
async def test_the_size_of_a_responses_head_is_a_setting(options: dict[str, int], status: int) -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        large = b"\r\n".join([b"X-%d: %b" % (number, b"a" * 1000) for number in range(40)])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + large + b"\r\n\r\nok")

    async with Upstream(answers) as upstream, proxied(upstream, proxy=options) as rig, rig.client() as client:
        await client.send(request())
        assert (await client.answer())[0] == status


@pytest.mark.timeout(10)
async def test_endless_empty_lines_cost_little() -> None:
    async with Upstream() as upstream, proxied(upstream) as rig, rig.client() as client:
        await rig.until(lambda: rig.connections)
        rig.connections[0].data_received(b"\r\n" * 1_000_000)  # minutes, if each were taken off by itself
        await client.send(request())
        assert (await client.answer())[0] == 200


@pytest.mark.usefixtures("quick_clock")
async def test_an_idle_connection_is_closed() -> None:
    options = {"keepalive_seconds": 0.05}
    async with Upstream() as upstream, proxied(upstream, server=options) as rig, rig.client() as client:
        await client.send(request())
        assert (await client.answer())[0] == 200
        assert await client.rest() == b""


@pytest.mark.usefixtures("quick_clock")
async def test_a_body_that_does_not_arrive_is_answered_408() -> None:
    async with Upstream() as upstream, proxied(upstream, proxy={"idle_seconds": 0.05}) as rig, rig.client() as client:
        await client.send(request("POST", "/public/x", "Content-Length: 3", body=b"ab"))
        assert (await client.answer())[0] == 408
        assert await client.rest() == b""
        assert upstream.bodies == []


@pytest.mark.parametrize("option", ["first_byte_seconds", "total_seconds"])
@pytest.mark.usefixtures("quick_clock")
async def test_an_upstream_that_does_not_respond_becomes_a_504(option: str) -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()  # the head
        await reader.read()  # until nobody waits any more

    async with Upstream(silent) as upstream, proxied(upstream, proxy={option: 0.05}) as rig, rig.client() as client:
        await client.send(request())
        assert (await client.answer())[0] == 504
        await client.send(request("GET", "/nowhere"))
        assert (await client.answer())[0] == 404


@pytest.mark.usefixtures("quick_clock")
async def test_a_stalled_response_is_broken_off() -> None:
    async def halfway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
        await reader.read()

    async with Upstream(halfway) as upstream, proxied(upstream, proxy={"idle_seconds": 0.05}) as rig:
        assert (await rig.exchange(request())).endswith(b"\r\n\r\nab")


@pytest.mark.usefixtures("quick_clock")
async def test_the_total_timeout_includes_connecting() -> None:
    with deaf() as upstream:
        async with proxied(upstream, proxy={"total_seconds": 0.05}) as rig, rig.client() as client:
            await client.send(request())
            assert (await client.answer())[0] == 504


async def test_a_connection_beyond_the_limit_is_turned_away() -> None:
    async with Upstream() as upstream, proxied(upstream, server={"max_connections": 1}) as rig:
        async with rig.client() as first:
            await first.send(request())
            assert (await first.answer())[0] == 200
            assert (await rig.exchange(b"")).startswith(b"HTTP/1.1 503 ")
            await first.send(request())
            assert (await first.answer())[0] == 200
        await rig.until(lambda: not len(rig.proxy))
        async with rig.client() as next_one:
            await next_one.send(request())
            assert (await next_one.answer())[0] == 200
