"""What concerns one connection ends with it, and who is calling is said by nobody but the gateway."""

import pytest

from machpay_gateway import Route
from tests.proxy.harness import ROUTES, Upstream, fields_of, proxied, request
from tests.proxy.strict import Lines, Seen, Strict

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # how bytes are read is no matter of the loop


async def _sent_on(*fields: str, method: str = "GET", body: bytes = b"") -> Seen:
    strict = Strict()
    async with Upstream(strict) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request(method, "/public/x", *fields, body=body))
        assert (await client.answer())[0] == 200
        assert strict.faults == []
        return strict.requests[0]


def _names(lines: Lines) -> set[bytes]:
    return {name.lower() for name, _ in lines}


@pytest.mark.parametrize(
    "field",
    [
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic YTpi",  # RFC 9110 §11.7.2: for the first proxy
        "Proxy-Authenticate: Basic",
        "TE: gzip",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAAQAAP__",
    ],
)
async def test_hop_by_hop_headers_are_removed(field: str) -> None:
    seen = await _sent_on(field, "Connection: keep-alive")
    assert seen.passed == []
    assert not _names(seen.lines) & {b"connection", b"te", b"upgrade"}


@pytest.mark.parametrize(
    "connection, left",
    [
        (["Connection: x-one"], [b"2", b"3"]),
        (["Connection: X-ONE, x-Two"], [b"3"]),
        (["Connection: x-one", "Connection: x-two"], [b"3"]),  # several lines are one list
        (["Connection: , x-one, ,x-three"], [b"2"]),  # RFC 9110 §5.6.1.2: empty elements say nothing
        (["Connection: ,"], [b"1", b"2", b"3"]),
        (["Connection:"], [b"1", b"2", b"3"]),
        (["Connection:\tx-one\t,\tx-two"], [b"3"]),
        (["Connection: x-on"], [b"1", b"2", b"3"]),
    ],
)
async def test_headers_named_by_connection_are_removed(connection: list[str], left: list[bytes]) -> None:
    seen = await _sent_on("X-One: 1", "X-Two: 2", "x-three: 3", *connection)
    assert [value for _, value in seen.passed] == left
    assert b"connection" not in _names(seen.lines)


@pytest.mark.parametrize(
    "name",
    ["Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "Via", "X-Request-Id"],
)
async def test_connection_cannot_remove_the_gateways_headers(name: str) -> None:
    """As `Connection: X-Forwarded-For` once took the client's address from what Go's proxy sends (CVE-2021-33197)."""
    seen = await _sent_on(f"Connection: {name}")
    assert len(seen.values(name.lower().encode())) == 1


async def test_connection_cannot_remove_framing_headers() -> None:
    seen = await _sent_on("Connection: content-length", "Content-Length: 3", method="POST", body=b"abc")
    assert (seen.body, seen.values(b"content-length")) == (b"abc", [b"3"])
    seen = await _sent_on(
        "Connection: transfer-encoding", "Transfer-Encoding: chunked", method="POST", body=b"3\r\nabc\r\n0\r\n\r\n"
    )
    assert (seen.body, seen.values(b"transfer-encoding")) == (b"abc", [b"chunked"])


@pytest.mark.parametrize(
    "field, expected",
    [
        ("TE: trailers", [b"trailers"]),
        ("TE: gzip, TRAILERS", [b"trailers"]),  # the only one that concerns more than a connection
        ("TE: trailers;q=0.5", []),  # RFC 9110 §10.1.4: it has no weight
        ("TE: gzip", []),
    ],
)
async def test_te_trailers_is_forwarded_if_the_client_accepts_trailers(field: str, expected: list[bytes]) -> None:
    seen = await _sent_on(field, "Connection: TE")
    assert seen.values(b"te") == expected
    assert seen.values(b"connection") == ([b"TE"] if expected else [])


async def test_a_forwarded_credential_cannot_be_removed_by_connection() -> None:
    strict = Strict()
    routes = (Route("* /v1/x", scopes="skills:execute", proxy={"forward_credentials": True}), *ROUTES)
    async with Upstream(strict) as upstream, proxied(upstream, routes=routes) as rig, rig.client() as client:
        secret = await rig.secret()
        for path in ("/v1/x", "/v1/y"):
            await client.send(request("GET", path, "Connection: Authorization", secret=secret))
            assert (await client.answer())[0] == 200
        assert [seen.values(b"authorization") for seen in strict.requests] == [[b"Bearer " + secret.encode()], []]


_FORGED = (
    "X-MachPay-Account: acct_other",
    "x-machpay-key-id: key_other",
    "X_MachPay_Scopes: admin",  # CGI's reading of either is the same
    "X-Machpay_Tier: enterprise",
    "X-MACHPAY-ANYTHING: 1",
)


@pytest.mark.parametrize("path", ["/public/x", "/v1/x"])
@pytest.mark.parametrize("named", [(), ("Connection: X-MachPay-Account, X-MachPay-Key-Id, X-MachPay-Scopes",)])
async def test_callers_cannot_forge_identity_headers(path: str, named: tuple[str, ...]) -> None:
    strict = Strict()
    async with Upstream(strict) as upstream, proxied(upstream) as rig, rig.client() as client:
        secret = await rig.secret() if path == "/v1/x" else None
        await client.send(request("GET", path, *_FORGED, *named, secret=secret))
        assert (await client.answer())[0] == 200
    lines = strict.requests[0].lines
    identity = [(name, value) for name, value in lines if b"machpay" in name.lower()]
    assert not {b"acct_other", b"key_other", b"admin", b"enterprise", b"1"} & {value for _, value in identity}
    assert [name for name, _ in identity] == (
        []
        if secret is None
        else [b"X-MachPay-" + name for name in b"Key-Id Account Subject Scopes Environment Tier".split()]
    )
    assert b"authorization" not in _names(lines)


@pytest.mark.parametrize(
    "field",
    [
        "Transfer_Encoding: chunked",
        "Content_Length: 5",
        "X_Forwarded_For: 1.2.3.4",
        "x-forwarded_prefix: /admin",
        "X-Original-URL: /admin",
        "X_Original_URL: /admin",
        "X-Rewrite-URL: /admin",
        "X-HTTP-Method-Override: x",
        "X-HTTP-Method: x",
        "X-Method-Override: x",
        "Proxy: x",
        "X-Real-IP: 1.2.3.4",
        "X-Forwarded-Anything: 1",
        "Proxy_Authorization: x",
    ],
)
async def test_spellings_that_cgi_maps_to_identity_headers_do_not_pass(field: str) -> None:
    seen = await _sent_on(field)
    assert [line for line in seen.lines if line[1] in {b"1.2.3.4", b"/admin", b"5", b"1", b"x"}] == []
    assert seen.body == b""


async def test_other_headers_pass_unchanged() -> None:
    sent = (
        "Cookie: a=1",
        "cookie: b=2",
        "X-Empty:",
        "X-Bytes: caf\xe9",
        "X-Blank:\t a  b \t",
        "a_b: 1",
        "Trailer: X-Sum",
    )
    seen = await _sent_on(*sent)
    assert seen.passed == [
        (b"Cookie", b"a=1"),
        (b"cookie", b"b=2"),
        (b"X-Empty", b""),
        (b"X-Bytes", b"caf\xe9"),
        (b"X-Blank", b"a  b"),
        (b"a_b", b"1"),
        (b"Trailer", b"X-Sum"),
    ]


async def test_hop_by_hop_headers_of_a_response_are_removed() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nConnection: close, , X-Gone\r\nKeep-Alive: timeout=5\r\nX-Gone: 1\r\nX-Kept: 1\r\n"
        b"Set-Cookie: a=1\r\nset-cookie: b=2\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nX-Request-Id: forged\r\n"
        b"Content-Length: 2\r\n\r\nok"
    )
    async with Upstream(answer=answer) as upstream, proxied(upstream) as rig, rig.client() as client:
        for _ in range(2):  # the client's connection goes on, though the upstream's does not
            await client.send(request())
            status, head, body = await client.answer()
            assert (status, body) == (200, b"ok")
            fields = fields_of(head)
            assert not {"connection", "keep-alive", "x-gone", "proxy-authenticate", "upgrade"} & set(fields)
            assert (fields["x-kept"], fields["set-cookie"]) == (["1"], ["a=1", "b=2"])
            assert fields["x-request-id"] != ["forged"]
            assert len(fields["x-request-id"]) == 1


@pytest.mark.parametrize("named", ["X-Request-Id", "RateLimit", "Via", "Content-Length"])
async def test_an_upstream_cannot_remove_the_gateways_response_headers(named: str) -> None:
    answer = b"HTTP/1.1 200 OK\r\nConnection: %b\r\nContent-Length: 2\r\n\r\nok" % named.encode()
    async with Upstream(answer=answer) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request("GET", "/v1/x", secret=await rig.secret()))
        _, head, body = await client.answer()
        assert body == b"ok"
        assert len(fields_of(head)[named.lower()]) == 1
