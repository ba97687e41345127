"""Requests over HTTP/2 are decided, forwarded and recorded as those of HTTP/1.1 are."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from h2.errors import ErrorCodes

from tests.proxy.harness import Rig, Upstream, fields_of, proxied
from tests.proxy.http2.harness import Http2Client, http2

GET = [(":method", "GET"), (":scheme", "http"), (":authority", "api.test"), (":path", "/public/x")]
POST = [(":method", "POST"), *GET[1:]]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig(upstream: Upstream) -> AsyncIterator[Rig]:
    async with proxied(upstream) as rig:
        yield rig


@pytest_asyncio.fixture(loop_scope="module")
async def client(rig: Rig, upstream: Upstream) -> AsyncIterator[Http2Client]:
    upstream.heads.clear()
    upstream.bodies.clear()
    rig.ended.clear()
    async with http2(rig) as client:
        yield client


async def test_a_request_goes_upstream_as_http11(client: Http2Client, rig: Rig, upstream: Upstream) -> None:
    secret = await rig.secret()
    result = await client.fetch(
        "GET", "/v1/x?q=1", ("cookie", "a=1"), ("x-mine", "2"), ("cookie", "b=2"), secret=secret
    )
    assert (result.status, result.body, result.values("via")) == (200, b"ok", ["1.1 machpay"])
    assert result.values("content-length") == ["2"]
    assert result.values("ratelimit")
    assert len(result.values("date")) == 1
    [head] = upstream.heads
    assert head.startswith(b"GET /v1/x?q=1 HTTP/1.1\r\n")
    fields = fields_of(head)
    assert (fields["host"], fields["cookie"], fields["x-mine"]) == (["api.test"], ["a=1; b=2"], ["2"])
    assert (fields["via"], "authorization" in fields) == (["2.0 machpay"], False)
    assert fields["x-machpay-scopes"] == ["skills:execute"]
    assert [(ended.outcome, ended.status) for ended in rig.ended] == [("allowed", 200)]


async def test_the_gate_refuses_as_over_http11(client: Http2Client, rig: Rig, upstream: Upstream) -> None:
    result = await client.fetch("GET", "/v1/x", secret="nonsense")
    assert (result.status, result.values("content-type")) == (401, ["application/problem+json"])
    assert result.values("www-authenticate")
    assert (await client.fetch("GET", "/elsewhere")).status in {401, 404}
    assert (await client.fetch("HEAD", "/v1/x")).body == b""
    assert upstream.heads == []
    assert [ended.outcome for ended in rig.ended] == ["invalid_credentials", "route_not_found", "missing_credentials"]


async def test_many_streams_share_a_connection(client: Http2Client, rig: Rig) -> None:
    before = len(rig.proxy)
    streams = [client.request("POST", f"/public/{number}", body=b"%d" % number) for number in range(100)]
    assert {(await client.result(stream)).status for stream in streams} == {200}
    assert len(rig.proxy) == before


@pytest.mark.parametrize(
    "fields, head",
    [
        ([("content-length", "3")], "content-length: 3"),
        ([], "transfer-encoding: chunked"),
    ],
)
async def test_content_is_forwarded(
    client: Http2Client, upstream: Upstream, fields: list[tuple[str, str]], head: str
) -> None:
    stream = client.request("POST", "/public/x", *fields, is_open=True)
    client.data(stream, b"a")
    client.data(stream, b"bc", is_last=True)
    assert (await client.result(stream)).status == 200
    assert head in upstream.heads[0].decode().lower()
    assert b"abc" in upstream.bodies[0].replace(b"\r\n1\r\n", b"") or upstream.bodies[0].count(b"bc") == 1


async def test_a_post_without_content_says_so(client: Http2Client, upstream: Upstream) -> None:
    assert (await client.fetch("POST")).status == 200
    assert fields_of(upstream.heads[0])["content-length"] == ["0"]


async def test_trailers_go_both_ways(client: Http2Client, upstream: Upstream) -> None:
    upstream.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n"
    try:
        stream = client.request("POST", "/public/x", ("te", "trailers"), is_open=True)
        client.data(stream, b"abc")
        client.state.send_headers(stream, [("x-check", "9")], end_stream=True)
        client.flush()
        result = await client.result(stream)
    finally:
        upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert (result.body, result.trailers) == (b"ok", [("x-sum", "7")])
    assert upstream.bodies[0].endswith(b"0\r\nx-check: 9\r\n\r\n")
    assert fields_of(upstream.heads[0])["te"] == ["trailers"]


async def test_interim_responses_are_forwarded(client: Http2Client, upstream: Upstream) -> None:
    upstream.answer = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"
    try:
        result = await client.fetch()
    finally:
        upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert [dict(fields)[":status"] for fields in result.interim] == ["103"]
    assert (result.status, result.body, result.values("content-length")) == (204, b"", [])


async def test_a_response_to_head_has_the_length_and_no_content(client: Http2Client, upstream: Upstream) -> None:
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    try:
        result = await client.fetch("HEAD")
    finally:
        upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert (result.status, result.body, result.values("content-length")) == (200, b"", ["5"])


@pytest.mark.parametrize(
    "fields",
    [
        [*GET, ("Upper", "1")],
        [*GET, ("connection", "close")],
        [*GET, ("transfer-encoding", "chunked")],
        [*GET, ("keep-alive", "1")],
        [*GET, ("upgrade", "h2c")],
        [*GET, ("te", "gzip")],
        [*GET, ("x-a", " leading")],
        [*GET, ("x-a", "a\r\nx-machpay-tier: b")],
        [*GET, ("x-a", "a\0b")],
        [*GET, ("x a", "1")],
        [*GET, ("x-a:", "1")],
        [*GET, ("", "1")],
        [*GET, (":path", "/public/y")],
        [*GET, (":unknown", "1")],
        [("x-a", "1"), *GET],
        GET[1:],
        GET[:1] + GET[2:],
        GET[:3],
        [*GET[:3], (":path", "")],
        [*GET[:3], (":path", "public/x")],
        [*GET[:3], (":path", "*")],
        [*GET[:3], (":path", "http://api.test/public/x")],
        [*GET[:3], (":path", "/public/x HTTP/1.1\r\nx-a: b")],
        [*GET[:2], (":authority", "api.test\r\nx-a: b"), GET[3]],
        [GET[0], (":scheme", "ftp"), *GET[2:]],
        [*GET, ("host", "other.test")],
        [*GET, ("content-length", "3")],
        [*GET, (":protocol", "websocket")],
        [*GET, (":status", "200")],
    ],
)
async def test_a_malformed_request_is_reset_and_others_go_on(
    client: Http2Client, upstream: Upstream, fields: list[tuple[str, str]]
) -> None:
    assert (await client.result(client.raw_request(fields))).reset == ErrorCodes.PROTOCOL_ERROR
    assert upstream.heads == []
    assert (await client.fetch()).status == 200


@pytest.mark.parametrize(
    "fields, status",
    [
        ([*GET[:2], (":authority", "user@api.test"), GET[3]], 400),
        ([*GET[:2], GET[3]], 400),
        ([*GET[:3], (":path", "/public/../v1/x")], 400),
        ([(":method", "get"), *GET[1:]], 400),
        ([(":method", "TRACE"), *GET[1:]], 501),
        ([(":method", "CONNECT"), (":authority", "api.test:443")], 501),
        ([*GET, ("x-a", "1" * 40_000)], 431),
        ([*GET, *((f"x-{number}", "1") for number in range(120))], 431),
        ([*GET, ("content-type", "a/b"), ("content-type", "c/d")], 400),
        ([*GET, ("content-length", "x")], 400),
        ([*GET, ("content-length", "0"), ("content-length", "0")], 400),
    ],
)
async def test_what_the_rules_for_heads_refuse_gets_their_status(
    client: Http2Client, upstream: Upstream, fields: list[tuple[str, str]], status: int
) -> None:
    result = await client.result(client.raw_request(fields))
    assert (result.status, upstream.heads) == (status, [])
    assert (await client.fetch()).status == 200


@pytest.mark.parametrize("length, pieces", [("3", [b"ab"]), ("3", [b"abcd"]), ("3", [b"ab", b"cd"])])
async def test_content_of_another_length_resets_the_stream(
    client: Http2Client, upstream: Upstream, length: str, pieces: list[bytes]
) -> None:
    stream = client.raw_request([*POST, ("content-length", length)], is_last=False)
    for piece in pieces[:-1]:
        client.state.send_data(stream, piece)
    client.state.send_data(stream, pieces[-1], end_stream=True)
    client.flush()
    result = await client.result(stream)
    assert (result.status, result.reset) == (0, ErrorCodes.PROTOCOL_ERROR)
    assert (await client.fetch()).status == 200
    assert upstream.bodies == []


async def test_preflights_and_refusals_have_cors(upstream: Upstream) -> None:
    cors = {"origins": ["https://app.example"]}
    async with proxied(upstream, cors=cors) as rig, http2(rig) as client:
        origin = ("origin", "https://app.example")
        result = await client.fetch("OPTIONS", "/v1/x", origin, ("access-control-request-method", "GET"))
        assert (result.status, result.values("access-control-allow-origin")) == (204, ["https://app.example"])
        result = await client.fetch("GET", "/v1/x", origin)
        assert (result.status, result.values("access-control-allow-origin")) == (401, ["https://app.example"])


async def test_larger_heads_may_be_allowed(upstream: Upstream) -> None:
    async with proxied(upstream, server={"max_head_bytes": 200_000}) as rig, http2(rig) as client:
        await client.until(lambda: (client.state.remote_settings.max_header_list_size or 0) == 400_000)
        assert (await client.fetch("GET", "/public/x", ("x-large", "1" * 55_000))).status == 200


async def test_http2_can_be_switched_off(upstream: Upstream) -> None:
    async with proxied(upstream, server={"http2": False}) as rig, rig.client() as client:
        await client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert (await client.answer())[0] == 400


async def test_the_preface_may_come_in_pieces_but_only_first(rig: Rig) -> None:
    async with rig.client() as client:
        for piece in (b"PRI * HT", b"TP/2.0\r\n", b"\r\nSM", b"\r\n\r\n"):
            await client.send(piece)
            await asyncio.sleep(0.01)
        assert (await client.reader.readexactly(9))[3] == 4
    async with rig.client() as client:
        await client.send(b"GET /public/x HTTP/1.1\r\nHost: api.test\r\n\r\n")
        await client.answer()
        await client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert (await client.answer())[0] == 400
