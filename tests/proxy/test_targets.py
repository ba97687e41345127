"""What is asked of whom: one reading of method, target and Host, or a refusal; what goes on is what was authorised."""

import pytest

from machpay_gateway import Route
from tests.proxy.harness import Upstream, proxied, request
from tests.proxy.strict import Strict

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # how bytes are read is no matter of the loop

_HOST = b"\r\nHost: api.test\r\n\r\n"


@pytest.mark.parametrize(
    "target, expected",
    [
        ("/public/x?a=1&a=2;b=%zz&%00&c=%2F..%2f", 200),  # a query is the upstream's to read
        ("/public/x?", 200),
        ("/public/x??a", 200),
        ("/public/x?a=//../", 200),
        ("/public/%41", "/public/A"),  # an escape that says nothing: some servers decode, and some do not
        ("/public/%c3%a9", 200),
        ("/public/caf\xc3\xa9", "/public/caf%C3%A9"),  # raw UTF-8, as curl sends it
        ("/public/x?q=caf\xc3\xa9", "/public/x?q=caf%C3%A9"),
        ("/public/x?q=caf\xe9", "/public/x?q=caf%E9"),  # a query is the upstream's to read
        ("/public/caf\xe9", 400),
        ("/public/a%3Bb%26c%2Bd", 200),  # a reserved character is not equivalent to its escape
        ("/public/%21%24%26%27%28%29%2A%2B%2C%3A%3B%3D%40", 200),
        ("/public/%5B%5D%22%3C%3E%5E%60%7B%7C%7D", 200),
        ("/public/%2D%2e%5f%7E%30%7a", "/public/-._~0z"),
        ("/public/a%20b", "/public/a%20b"),
        ("/public/a%25b", "/public/a%25b"),
        ("/public/%3fx=1", 200),
        ("/public/%23", "/public/%23"),
        ("/public/a;b=c,d:e@f!$&'()*+", 200),
        ("/publi%63/x", "/public/x"),
        ("/public//x", 400),
        ("//public/x", 400),
        ("/public/./x", 400),
        ("/public/../v1/x", 400),
        ("/public/..;/v1/x", 400),
        ("/public/%2e%2e/v1/x", 400),
        ("/public/.%2E/v1/x", 400),
        ("/public%2fx", 400),
        ("/public/x%2Fy", 400),
        ("/public/x%5cy", 400),
        ("/public/x\\y", 400),
        ("/public/x%00", 400),
        ("/public/x%0d%0aHost:%20evil", 400),
        ("/public/%", 400),
        ("/public/%4", 400),
        ("/public/%zz", 400),
        ("/public/%ff", 400),  # no UTF-8
        ("/public/%c0%ae", 400),  # an overlong dot
        ("/public/%252e%252e/x", "/public/%252e%252e/x"),  # decoded once it is no dot segment, and goes on so
        ("/public/%252e%252e/v1/x", 401),  # what decodes it twice runs `/v1/x`, which needs a credential
        ("/public/x#fragment", 400),
        ("public/x", 400),
        ("?x", 400),
        ("*", 400),
    ],
)
async def test_the_forwarded_path_is_the_authorized_one(target: str, expected: int | str) -> None:
    strict = Strict()
    async with Upstream(strict) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request("GET", target))
        status = (await client.answer())[0]
    if status != 200:
        assert (status, strict.requests) == (expected, [])
        return
    assert expected != 400
    assert strict.requests[0].target == (target if expected == 200 else str(expected)).encode()


async def test_a_path_is_authorized_decoded() -> None:
    strict = Strict()
    routes = (Route("GET /a/b", public=True), Route("GET /a/{id}", scopes="skills:execute"))
    async with Upstream(strict) as upstream, proxied(upstream, routes=routes) as rig, rig.client() as client:
        for target, expected in (
            ("/a/%62", 200),
            ("/%61/b", 200),
            ("/a/%63", 401),
            ("/a/b%20", 401),
            ("/a/%C3%A9", 401),
        ):
            await client.send(request("GET", target))
            assert (await client.answer())[0] == expected
        assert [seen.target for seen in strict.requests] == [b"/a/b"] * 2


@pytest.mark.parametrize(
    "line, expected",
    [
        (b"GET http://api.test/public/x?a=1 HTTP/1.1", b"/public/x?a=1"),
        (b"GET HTTP://API.TEST/public/x HTTP/1.1", b"/public/x"),
        (b"GET https://api.test/public/x HTTP/1.1", b"/public/x"),
        (b"GET http://other.test/public/x HTTP/1.1", 400),
        (b"GET http://api.test:8080/public/x HTTP/1.1", 400),
        (b"GET http://user@api.test/public/x HTTP/1.1", 400),
        (b"GET http://api.test\\@other.test/public/x HTTP/1.1", 400),
        (b"GET http:///public/x HTTP/1.1", 400),
        (b"GET http://api.test//public/x HTTP/1.1", 400),
        (b"GET http://api.test HTTP/1.1", 404),  # the root, which is on no list
        (b"GET http://api.test?x HTTP/1.1", 404),
        (b"GET ftp://api.test/public/x HTTP/1.1", 400),
        (b"GET api.test:80 HTTP/1.1", 400),
        (b"CONNECT api.test:80 HTTP/1.1", 501),
        (b"CONNECT /public/x HTTP/1.1", 501),
        (b"TRACE /public/x HTTP/1.1", 501),
        (b"OPTIONS /public/x HTTP/1.1", b"/public/x"),
        (b"PURGE /public/x HTTP/1.1", b"/public/x"),
        (b"M-SEARCH /public/x HTTP/1.1", b"/public/x"),
        (b"get /public/x HTTP/1.1", 400),
        (b"Get /public/x HTTP/1.1", 400),
        (b"G" * 33 + b" /public/x HTTP/1.1", 400),
        (b"GET  /public/x HTTP/1.1", 400),
        (b"GET /public/x  HTTP/1.1", 400),
        (b"GET\t/public/x HTTP/1.1", 400),
        (b" GET /public/x HTTP/1.1", 400),
        (b"GET /public/x HTTP/1.1 ", 400),
        (b"GET /public/x http/1.1", 400),
        (b"GET /public/x HTTP/1.2", 400),
        (b"GET /public/x HTTP/2.0", 400),
        (b"GET /public/x HTTP/1.10", 400),
        (b"GET /public/x HTTP/1", 400),
        (b"GET /public/x", 400),
        (b"GET /public/\xc3\xa9 HTTP/1.1", b"/public/%C3%A9"),
        (b"PURGE http://api.test/\xc3\xa9?\xff HTTP/1.1", 404),
        (b"GET /public/x\x7f HTTP/1.1", 400),
        (b"GET /public/x\x00 HTTP/1.1", 400),
        (b"GET /public/x\x0b HTTP/1.1", 400),
        (b"PRI * HTTP/2.0", 400),
    ],
)
async def test_a_request_line_is_unambiguous(line: bytes, expected: int | bytes) -> None:
    strict = Strict()
    async with Upstream(strict) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(line + _HOST)
        status, head, _ = await client.answer()
        assert [seen.target for seen in strict.requests] == ([expected] if status == 200 else [])
        assert status == (200 if isinstance(expected, bytes) else expected)
        if b"\r\nConnection: close\r\n" in head:
            assert await client.rest() == b""


async def test_a_question_about_the_whole_server_is_answered_here() -> None:
    strict = Strict()
    async with Upstream(strict) as upstream, proxied(upstream) as rig, rig.client() as client:
        for raw in (b"OPTIONS * HTTP/1.1" + _HOST, request("OPTIONS", "*", "Content-Length: 2", body=b"ok")):
            await client.send(raw)
            status, head, body = await client.answer()
            assert (status, body) == (200, b"")
            assert b"\r\nx-request-id: " in head
        await client.send(request("OPTIONS", "/public/x"))
        assert (await client.answer())[0] == 200
        await client.send(b"OPTIONS * HTTP/1.0\r\n\r\n")
        assert b" 200 OK\r\n" in await client.rest()
        assert [seen.target for seen in strict.requests] == [b"/public/x"]
        assert [(ended.facts.method, ended.outcome, ended.status) for ended in rig.ended] == [
            ("OPTIONS", "allowed", 200)
        ] * 4


@pytest.mark.parametrize(
    "lines, expected",
    [
        (b"Host: api.test", 200),
        (b"host:api.test", 200),
        (b"Host: \t api.test \t", 200),
        (b"Host: api.test:80", 200),
        (b"Host: api.test:", 200),
        (b"Host: [2001:db8::1]:80", 200),
        (b"Host: 127.0.0.1", 200),
        (b"", 400),
        (b"Host:", 400),
        (b"Host: api.test\r\nHost: api.test", 400),
        (b"Host: api.test\r\nhost: other.test", 400),
        (b"Host: api.test, other.test", 400),
        (b"Host: api.test other.test", 400),
        (b"Host: api.test/x", 400),
        (b"Host: user@api.test", 400),
        (b"Host: api.test:80:80", 400),
        (b"Host: api.test:http", 400),
        (b"Host: api.test#x", 400),
        (b"Host: api.test?x", 400),
        (b"Host: api.test\\x", 400),
        (b"Host: [::1", 400),
        (b"Host: caf\xe9.test", 400),
        (b"Host : api.test", 400),
        (b" Host: api.test", 400),
        (b"Host: api\x00.test", 400),
        (b"X: 1\r\n Host: api.test", 400),
    ],
)
async def test_a_host_is_unambiguous(lines: bytes, expected: int) -> None:
    strict = Strict()
    async with Upstream(strict) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(b"GET /public/x HTTP/1.1\r\n" + (lines + b"\r\n" if lines else b"") + b"\r\n")
        assert (await client.answer())[0] == expected
        assert [len(seen.values(b"host")) for seen in strict.requests] == ([1] if expected == 200 else [])


@pytest.mark.parametrize(
    "field",
    ["Authorization: Bearer {}\r\nAuthorization: Bearer {}", "Authorization: Bearer {}\r\nauthorization: Basic eDp5"],
)
async def test_two_credentials_are_refused(field: str) -> None:
    async with Upstream() as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request("GET", "/v1/x", field.replace("{}", await rig.secret())))
        assert (await client.answer())[0] == 400
        assert upstream.connections == 0


async def test_a_method_without_a_route_is_not_forwarded() -> None:
    routes = (Route("GET /public/x", public=True),)
    strict = Strict()
    async with Upstream(strict) as upstream, proxied(upstream, routes=routes) as rig, rig.client() as client:
        for fields in ((), ("X-HTTP-Method-Override: GET",), ("X-Method-Override: GET",)):
            await client.send(request("DELETE", "/public/x", *fields))
            assert (await client.answer())[0] == 404
        await client.send(request("HEAD", "/public/x"))
        await client.head()
        assert [seen.method for seen in strict.requests] == [b"HEAD"]
