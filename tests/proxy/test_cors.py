"""CORS of the proxy: preflights, an upstream's responses, and refusals of every kind."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Unpack

import pytest

from machpay_gateway import Route, Tier
from machpay_gateway.settings import Options
from tests.proxy.harness import OK, Rig, Upstream, fields_of, proxied, request

APP, OTHER = "https://app.example.com", "https://other.example"
CORS = {"origins": [APP]}
RULES = (
    Route("* /public/{rest:path}", public=True),
    Route("* /closed/{rest:path}", public=True, cors={"origins": []}),
    Route("* /open/{rest:path}", public=True, cors={"origins": ["*"]}),
    Route("* /v1/{rest:path}", scopes="skills:execute"),
    Route("POST /small", public=True, proxy={"max_body_bytes": 1}),
)
OWN = (
    b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://of-the-upstream.example\r\n"
    b"access-control-allow-credentials: true\r\nVary: Accept-Encoding\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nok"
)
PREFLIGHT = (f"Origin: {APP}", "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization")


@asynccontextmanager
async def rig(answer: bytes = OWN, **options: Unpack[Options]) -> AsyncIterator[tuple[Rig, Upstream]]:
    """Run a proxy with CORS; yield it and its upstream."""
    defaults: Options = {"routes": RULES, "cors": CORS}
    async with Upstream(answer=answer) as upstream, proxied(upstream, **(defaults | options)) as made:
        yield made, upstream


def cors_of(head: bytes) -> dict[str, list[str]]:
    """Return the headers of CORS and Vary, without those that scripts may read."""
    fields = fields_of(head)
    names = [name for name in fields if name.startswith("access-control-") or name == "vary"]
    return {name: fields[name] for name in names if name != "access-control-expose-headers"}


@pytest.mark.parametrize(
    "path, origin, expected",
    [
        ("/v1/x", APP, {"access-control-allow-origin": [APP], "vary": ["Accept-Encoding, Origin"]}),
        ("/v1/x", OTHER, {"vary": ["Accept-Encoding, Origin"]}),
        ("/v1/x", None, {"vary": ["Accept-Encoding, Origin"]}),
        ("/open/x", OTHER, {"access-control-allow-origin": ["*"], "vary": ["Accept-Encoding"]}),
        (
            "/closed/x",
            APP,
            {
                "access-control-allow-origin": ["https://of-the-upstream.example"],
                "access-control-allow-credentials": ["true"],
                "vary": ["Accept-Encoding"],
            },
        ),
    ],
)
async def test_the_gateways_headers_replace_the_upstreams(
    path: str, origin: str | None, expected: dict[str, list[str]]
) -> None:
    async with rig() as (proxy, _), proxy.client() as client:
        secret = await proxy.secret()
        for _ in range(2):  # the second time, the parsed heads are cached
            await client.send(request("GET", path, *([f"Origin: {origin}"] if origin else []), secret=secret))
            status, head, body = await client.answer()
            assert (status, body, cors_of(head)) == (200, b"ok", expected)
            assert (fields_of(head)["x-a"], len(fields_of(head)["x-request-id"])) == (["1"], 1)


@pytest.mark.parametrize("vary", [b"Origin", b"accept, origin", b"*"])
async def test_vary_names_the_origin_once(vary: bytes) -> None:
    async with rig(OK.replace(b"\r\n\r\n", b"\r\nVary: " + vary + b"\r\n\r\n")) as (proxy, _), proxy.client() as client:
        await client.send(request("GET", "/public/x", f"Origin: {APP}"))
        assert fields_of((await client.answer())[1])["vary"] == [vary.decode()]


async def test_a_preflight_is_answered_without_the_upstream() -> None:
    async with rig() as (proxy, upstream), proxy.client() as client:
        for path, origin in (
            ("/v1/x", APP),
            ("/nowhere", APP),
            ("/v1/x?a=1", APP),
            ("/v1/x", OTHER),
            ("/open/x", OTHER),
        ):
            await client.send(request("OPTIONS", path, f"Origin: {origin}", *PREFLIGHT[1:]))
            status, head, body = await client.answer()
            allowed = "*" if path == "/open/x" else APP if origin == APP else None
            assert (status, body) == (204, b"")
            assert fields_of(head).get("access-control-allow-origin") == (None if allowed is None else [allowed])
            if allowed:
                assert fields_of(head)["access-control-allow-headers"] == ["authorization"]
            assert fields_of(head)["x-request-id"]
        assert (upstream.heads, [ended.outcome for ended in proxy.ended]) == ([], ["preflight"] * 5)
        assert [ended.status for ended in proxy.ended] == [204] * 5
        await client.send(request("OPTIONS", "/closed/x", *PREFLIGHT))
        assert (await client.answer())[0] == 200
        assert len(upstream.heads) == 1


async def test_pipelined_preflights_and_requests_are_answered_in_order() -> None:
    async with rig() as (proxy, _), proxy.client() as client:
        preflight, get = request("OPTIONS", "/v1/x", *PREFLIGHT), request("GET", "/public/x", f"Origin: {APP}")
        await client.send(preflight + get + preflight + get)
        assert [(await client.answer())[0] for _ in range(4)] == [204, 200, 204, 200]


async def test_every_refusal_can_be_read() -> None:
    tiers = {"small": Tier("1/minute", 1)}
    async with rig(tiers=tiers) as (proxy, _), proxy.client() as client:
        small = await proxy.secret(tier="small")
        await client.send(request("GET", "/v1/x", secret=small))
        assert (await client.answer())[0] == 200
        for sent, status in (
            (request("GET", "/v1/x", f"Origin: {APP}"), 401),
            (request("GET", "/v1/x", f"Origin: {APP}", secret=await proxy.secret(scopes=["skills:list"])), 403),
            (request("GET", "/v1/x", f"Origin: {APP}", secret=small), 429),
            (request("GET", "/nowhere", f"Origin: {APP}"), 404),
            (request("POST", "/small", f"Origin: {APP}", "Content-Length: 2", body=b"ab"), 413),
        ):
            await client.send(sent)
            got, head, _ = await client.answer()
            assert (got, cors_of(head)) == (status, {"access-control-allow-origin": [APP], "vary": ["Origin"]})
            exposed = fields_of(head)["access-control-expose-headers"]
            assert len(exposed) == 1
            if status == 429:
                assert fields_of(head)["retry-after"]
                assert "Retry-After" in exposed[0]


async def test_a_failed_upstream_can_be_read() -> None:
    async with rig(b"HTTP/9 nonsense\r\n\r\n") as (proxy, _), proxy.client() as client:
        await client.send(request("POST", "/public/x", f"Origin: {APP}", "Content-Length: 0"))
        status, head, _ = await client.answer()
        assert (status, fields_of(head)["access-control-allow-origin"]) == (502, [APP])


async def test_off_is_the_proxy_as_it_was() -> None:
    async with rig(routes=RULES[:1], cors=None) as (proxy, upstream), proxy.client() as client:
        assert proxy.proxy.context.cors is None
        await client.send(request("GET", "/public/x", f"Origin: {APP}"))
        assert fields_of((await client.answer())[1])["access-control-allow-origin"] == [
            "https://of-the-upstream.example"
        ]
        await client.send(request("OPTIONS", "/public/x", *PREFLIGHT))
        assert (await client.answer())[0] == 200
        await client.send(request("GET", "/nowhere", f"Origin: {APP}"))
        assert cors_of((await client.answer())[1]) == {}
        assert len(upstream.heads) == 2
