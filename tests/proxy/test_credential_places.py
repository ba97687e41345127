"""Where the proxy finds a credential, and that nothing of it reaches an upstream."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Unpack

import pytest

from machpay_gateway.core.keys.key import mint_secret
from machpay_gateway.forward_auth.dialect import PATH_PREFIX
from machpay_gateway.proxy.routing import ControlPlane
from machpay_gateway.settings import Options
from machpay_gateway.telemetry.own_requests import OwnRequests
from tests.proxy.harness import Rig, Upstream, fields_of, proxied, request, status_of

PLACES = {"headers": ["Authorization", "X-API-Key"], "query": "api_key"}
OTHER = mint_secret("live", bytes(32))
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Protocol: chat\r\n\r\n"
)
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")


@asynccontextmanager
async def rig(**options: Unpack[Options]) -> AsyncIterator[tuple[Rig, Upstream, str]]:
    """Run a proxy that reads credentials from `PLACES`; yield it, its upstream and a secret."""
    defaults: Options = {"credentials": PLACES}
    async with Upstream() as upstream, proxied(upstream, **(defaults | options)) as made:
        yield made, upstream, await made.secret()


ACCEPTED = [
    ("/v1/x", ["Authorization: Bearer {}"], "/v1/x"),
    ("/v1/x", ["X-API-Key: {}"], "/v1/x"),
    ("/v1/x", ["x-api-key:{} "], "/v1/x"),
    ("/v1/x", ["X-API-Key: {}", "Authorization: Bearer {}"], "/v1/x"),
    ("/v1/x", ["Connection: x-api-key", "X-API-Key: {}"], "/v1/x"),
    ("/v1/x?api_key={}", [], "/v1/x"),
    ("/v1/x?a=1&api_key={}&b=%20", [], "/v1/x?a=1&b=%20"),
    ("/v1/x?api%5Fkey={}&a", ["X-API-Key: {}"], "/v1/x?a"),
    ("http://api.test/v1/x?api_key={}", [], "/v1/x"),
    ("/v1/x?a=1", ["X-API-Key: {}", "Referer: http://api.test/p?api_key={}&z=1"], "/v1/x?a=1"),
    ("/v1/x?a=1", ["X-API-Key: {}", "X_API_KEY: {}", "X-Original-URI: /v1/x?api_key={}"], "/v1/x?a=1"),
    ("/public/x?a=1&api_key={}", ["X-API-Key: {}"], "/public/x?a=1"),
]


async def test_a_credential_is_accepted_in_each_place_and_not_forwarded() -> None:
    async with rig() as (proxy, upstream, secret):
        for path, fields, forwarded in ACCEPTED * 2:  # the second time, parsed heads may be cached
            async with proxy.client() as client:
                await client.send(request("GET", path.format(secret), *(line.format(secret) for line in fields)))
                status, _, _ = await client.answer()
            head = upstream.heads.pop()
            assert (status, head.split()[1].decode()) == (200, forwarded), path
            assert secret.encode() not in head
            assert not {"x-api-key", "authorization", "x_api_key"} & fields_of(head).keys()


async def test_a_referer_loses_the_credential_alone() -> None:
    async with rig() as (proxy, upstream, secret), proxy.client() as client:
        referer = f"Referer: http://api.test/p?a=1&api_key={secret}"
        await client.send(request("GET", "/v1/x", referer, secret=secret))
        assert (await client.answer())[0] == 200
        await client.send(request("GET", "/v1/x", "Referer: http://api.test/p?a=1", secret=secret))
        assert (await client.answer())[0] == 200
    assert [fields_of(head)["referer"] for head in upstream.heads] == [["http://api.test/p?a=1"]] * 2


@pytest.mark.parametrize(
    "path, fields, code",
    [
        ("/v1/x", ["X-API-Key: {}", f"Authorization: Bearer {OTHER}"], b"conflicting_credentials"),
        (f"/v1/x?api_key={OTHER}", ["X-API-Key: {}"], b"conflicting_credentials"),
        ("/v1/x", ["X-API-Key: {}", "X-API-Key: {}"], b"malformed_request"),
        (f"/v1/x?api_key={{}}&api_key={OTHER}", [], b"malformed_request"),
        ("/v1/x", ["X-API-Key: {}, {}"], b"malformed_request"),
    ],
)
async def test_more_than_one_credential_is_refused(path: str, fields: list[str], code: bytes) -> None:
    async with rig() as (proxy, upstream, secret), proxy.client() as client:
        lines = (line.replace("{}", secret) for line in fields)
        await client.send(request("GET", path.replace("{}", secret), *lines))
        status, _, body = await client.answer()
        assert (status, code in body, upstream.heads) == (400, True, [])


async def test_by_default_only_authorization_counts() -> None:
    async with rig(credentials={}) as (proxy, upstream, secret), proxy.client() as client:
        for path, fields in (("/v1/x", [f"X-API-Key: {secret}"]), (f"/v1/x?api_key={secret}", [])):
            await client.send(request("GET", path, *fields))
            assert (await client.answer())[0] == 401
        await client.send(request("GET", "/v1/x?api_key=a", "X-API-Key: b", "Referer: /?api_key=a", secret=secret))
        assert (await client.answer())[0] == 200
    assert b"GET /v1/x?api_key=a HTTP" in upstream.heads[0]
    assert fields_of(upstream.heads[0])["x-api-key"] == ["b"]


async def test_authorization_is_the_upstreams_own_where_another_header_is_named() -> None:
    async with rig(credentials={"headers": ["X-API-Key"]}) as (proxy, upstream, secret), proxy.client() as client:
        for _ in range(2):
            for fields, expected in (
                (["Authorization: Bearer of-the-upstream", f"X-API-Key: {secret}"], 200),
                ([f"Authorization: Bearer {secret}"], 401),
                ([], 401),
            ):
                await client.send(request("GET", "/v1/x", *fields))
                status, head, _ = await client.answer()
                assert status == expected
                if status == 401:
                    assert fields_of(head)["www-authenticate"] == ['ApiKey realm="machpay", header="X-API-Key"']
        await client.send(request("GET", "/public/x", "Authorization: Bearer of-the-upstream"))
        assert (await client.answer())[0] == 200
    assert [fields_of(head)["authorization"] for head in upstream.heads] == [["Bearer of-the-upstream"]] * 3


async def test_an_upstream_that_gets_credentials_gets_headers_as_they_came_and_no_query() -> None:
    async with rig(proxy={"forward_credentials": True}) as (proxy, upstream, secret), proxy.client() as client:
        for path, fields in (
            ("/v1/x", [f"X-API-Key: {secret}"]),
            (f"/v1/x?api_key={secret}", []),
            (f"/v1/x?api_key={secret}&a=1", [f"Authorization: Bearer {secret}"]),
        ):
            await client.send(request("GET", path, *fields))
            assert (await client.answer())[0] == 200
    one, two, three = upstream.heads
    assert fields_of(one)["x-api-key"] == [secret]
    assert "authorization" not in fields_of(one)
    assert secret.encode() not in two
    assert (three.split()[1], fields_of(three)["authorization"]) == (b"/v1/x?a=1", [f"Bearer {secret}"])


async def test_a_websocket_has_its_credential_among_its_subprotocols() -> None:
    async with Upstream(answer=SWITCH) as upstream, proxied(upstream) as proxy:
        secret = await proxy.secret()
        for protocols, status, forwarded in (
            (f"machpay.bearer.{secret}, chat, v2", 101, ["chat, v2"]),
            (f"chat, machpay.bearer.{secret}", 101, ["chat"]),
            (f"machpay.bearer.{secret}", 101, None),
            (f"machpay.bearer.{OTHER}, chat", 401, None),
        ):
            async with proxy.client() as client:
                await client.send(request("GET", "/v1/x", *UPGRADE, f"Sec-WebSocket-Protocol: {protocols}"))
                head = await client.head()
            assert status_of(head) == status
            if status == 101:
                sent = upstream.heads.pop()
                assert sent.startswith(b"GET /v1/x HTTP/1.1\r\n")
                assert fields_of(sent).get("sec-websocket-protocol") == forwarded
                assert (secret.encode() in sent, fields_of(sent)["upgrade"]) == (False, ["websocket"])
                assert fields_of(head)["sec-websocket-protocol"] == ["chat"]


async def test_the_control_plane_gets_the_credential_as_it_came() -> None:
    with TemporaryDirectory() as folder:
        socket = Path(folder, "own")
        async with Upstream() as upstream, Upstream(path=socket) as own:
            plane = ControlPlane(("/v1/keys",), PATH_PREFIX, socket, OwnRequests())
            async with proxied(upstream, control_plane=plane, credentials=PLACES) as proxy, proxy.client() as client:
                for path, fields in (
                    ("/v1/keys?api_key=a&limit=1", ["X-API-Key: b"]),
                    ("/v1/keys", ["Authorization: Basic Yzpk", "X-API-Key: b"]),
                    ("/v1/keys", ["Authorization: Basic Yzpk"]),
                ):
                    await client.send(request("GET", path, *fields))
                    assert (await client.answer())[0] == 200
    one, two, three = own.heads
    assert one.startswith(b"GET /v1/keys?api_key=a&limit=1 HTTP/1.1\r\n")
    assert fields_of(one)["x-api-key"] == fields_of(two)["x-api-key"] == ["b"]
    assert fields_of(two)["authorization"] == fields_of(three)["authorization"] == ["Basic Yzpk"]


async def test_no_log_and_no_cache_has_the_credential(caplog: pytest.LogCaptureFixture) -> None:
    async with rig() as (proxy, _, secret), proxy.client() as client:
        with caplog.at_level(logging.DEBUG):
            for path, fields in (
                (f"/v1/x?api_key={secret}", []),
                ("/v1/x", [f"X-API-Key: {secret}"]),
                (f"/v1/x?api_key={OTHER}", []),
                (f"/v1/x?api_key={OTHER}", [f"X-API-Key: {secret}"]),
                (f"/nowhere?api_key={secret}", []),
                ("/v1/x", [f"Referer: http://api.test/?api_key={secret}"]),
                ("/v1/x", [f"Sec-WebSocket-Protocol: machpay.bearer.{secret}"]),
            ):
                await client.send(request("GET", path, *fields))
                await client.answer()
        reader = proxy.proxy.context.requests
        kept = [caplog.text, repr(list(reader.cache)), repr(list(reader.fields)), repr(proxy.ended)]
        assert not [text for text in kept if secret in text or OTHER in text]
        assert len(proxy.ended) == 7
