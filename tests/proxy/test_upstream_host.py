"""Which Host an upstream gets: the client's, its own name, or another one, which TLS uses too."""

import asyncio
import ssl
from pathlib import Path
from typing import Any, Unpack

import pytest

from machpay_gateway import Route
from machpay_gateway.settings import Options
from tests.proxy.harness import Upstream, proxied, request
from tests.proxy.strict import Seen, Strict
from tests.redises.tls import write_certificates

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # what a head says is no matter of the loop

_WITHOUT_HOST = b"GET /public/x HTTP/1.0\r\n\r\n"


async def _seen_by(head: bytes, **options: Unpack[Options]) -> tuple[Seen, int]:
    """Return *head* as the upstream gets it, and the upstream's port."""
    strict = Strict()
    async with Upstream(strict) as upstream, proxied(upstream, **options) as rig:
        assert b" 200 " in await rig.exchange(head.replace(b"{port}", b"%d" % upstream.port))
        return strict.requests[0], upstream.port


@pytest.mark.parametrize(
    "proxy, head, expected",
    [
        ({}, request("GET", "/public/x", "Connection: close"), "api.test"),
        ({"host": "client"}, request("GET", "/public/x", "Connection: close"), "api.test"),
        ({"host": "upstream"}, request("GET", "/public/x", "Connection: close"), "127.0.0.1:{port}"),
        ({"host": "api.internal"}, request("GET", "/public/x", "Connection: close"), "api.internal"),
        ({"host": "api.internal:8443"}, request("GET", "/public/x", "Connection: close"), "api.internal:8443"),
        ({"host": "[2001:db8::1]"}, request("GET", "/public/x", "Connection: close"), "[2001:db8::1]"),
        ({}, _WITHOUT_HOST, "127.0.0.1:{port}"),
        ({"host": "upstream"}, _WITHOUT_HOST, "127.0.0.1:{port}"),
        ({"host": "api.internal"}, _WITHOUT_HOST, "api.internal"),
        ({}, b"GET /public/x HTTP/1.0\r\nHost: old.test\r\n\r\n", "old.test"),
    ],
)
async def test_the_setting_chooses_the_host(proxy: dict[str, Any], head: bytes, expected: str) -> None:
    seen, port = await _seen_by(head, proxy=proxy)
    assert seen.values(b"host") == [expected.format(port=port).encode()]
    # What the client requested is still there.
    requested = [line[6:] for line in head.split(b"\r\n") if line.startswith(b"Host: ")]
    assert seen.values(b"x-forwarded-host") == requested


async def test_a_route_and_the_default_service_may_choose_another_host() -> None:
    strict, routes = Strict(), (Route("GET /a", public=True, proxy={"host": "a.test"}), Route("GET /b", public=True))
    async with Upstream(strict) as upstream:
        upstreams: Any = {"live": f"http://127.0.0.1:{upstream.port}", "host": "upstream"}
        async with proxied(routes=routes, upstreams=upstreams) as rig, rig.client() as client:
            for path in ("/a", "/b"):
                await client.send(request("GET", path))
                assert (await client.answer())[0] == 200
        assert [seen.values(b"host") for seen in strict.requests] == [
            [b"a.test"],
            [b"127.0.0.1:%d" % upstream.port],
        ]


@pytest.mark.parametrize("head", [request("GET", "/public/x", "Connection: close"), _WITHOUT_HOST])
async def test_each_server_of_a_pool_gets_its_own_name_also_when_it_is_the_second_choice(head: bytes) -> None:
    strict = Strict()
    async with Upstream(strict) as gone:
        pass
    async with Upstream(strict) as upstream:
        servers = [f"http://127.0.0.1:{gone.port}", f"http://localhost:{upstream.port}"]
        async with proxied(upstreams={"live": servers}, proxy={"host": "upstream"}) as rig:
            for _ in range(4):
                assert b" 200 " in await rig.exchange(head)
        names = {value for seen in strict.requests for value in seen.values(b"host")}
        assert (len(strict.requests), names) == (4, {b"localhost:%d" % upstream.port})


@pytest.mark.parametrize(
    "host, status, names",
    [
        ("client", 502, ["127.0.0.1"]),
        ("upstream", 502, ["127.0.0.1"]),
        ("backend.test", 200, ["backend.test"]),
        ("backend.test:8443", 200, ["backend.test"]),
        ("other.test", 502, ["other.test"]),
    ],
)
async def test_tls_follows_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, status: int, names: list[str]
) -> None:
    ca_path, chain_path = write_certificates(tmp_path, "backend.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_path))
    seen: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain_path)
    context.sni_callback = lambda _socket, name, _context: seen.append(name)
    strict = Strict()
    server = await asyncio.start_server(strict, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        upstreams = {"live": f"https://127.0.0.1:{port}"}
        async with proxied(upstreams=upstreams, proxy={"host": host}) as rig, rig.client() as client:
            await client.send(request())
            assert (await client.answer())[0] == status
    assert [name for name in seen if name] == (names if names != ["127.0.0.1"] else [])  # an address is in no SNI
