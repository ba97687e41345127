"""Headers that a service or a route sets, adds and removes, on the way there and back; never those of the gateway."""

import asyncio
from collections.abc import Mapping
from typing import Any, Unpack

import pytest

from machpay_gateway import Route
from machpay_gateway.settings import Options
from tests.proxy.harness import Upstream, fields_of, proxied, request
from tests.proxy.strict import Strict

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # what a head says is no matter of the loop

_SENT = ("X-Env: caller", "x_env: caller", "X-Tag: caller", "X-Debug: 1", "X_Debug: 2", "X-Other: 1", "Accept: a")
_RULES = {"set": {"X-Env": "prod"}, "add": {"X-Tag": ["one", "two"]}, "remove": ["x-debug"]}


async def _sent_and_answered(
    *fields: str, answer: bytes = b"", **options: Unpack[Options]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return the fields that the upstream got, and those that the client got from one that answers with *answer*."""
    response = b"HTTP/1.1 200 OK\r\n" + answer + b"Content-Length: 2\r\n\r\nok"
    async with Upstream(answer=response) as upstream, proxied(upstream, **options) as rig, rig.client() as client:
        await client.send(request("GET", "/v1/x", *fields, secret=await rig.secret()))
        status, head, body = await client.answer()
        assert (status, body) == (200, b"ok")
        return fields_of(upstream.heads[0]), fields_of(head)


@pytest.mark.parametrize(
    "options",
    [
        {"proxy": {"request_headers": _RULES}},
        {"routes": [Route("GET /v1/x", request_headers=_RULES)]},
        {"routes": [Route("GET /v1/x", proxy={"request_headers": _RULES})]},
        {
            "proxy": {"request_headers": {"set": {"X-Env": "overridden"}, "remove": ["X-Debug"]}},
            "routes": [
                Route("GET /v1/x", request_headers={"set": {"X-Env": "prod"}, "add": {"X-Tag": ["one", "two"]}})
            ],
        },
    ],
)
async def test_headers_of_requests_are_set_added_and_removed(options: Options) -> None:
    sent, _ = await _sent_and_answered(*_SENT, **options)
    assert sent["x-env"] == ["prod"]
    assert sent["x-tag"] == ["caller", "one", "two"]
    assert (sent["x-other"], sent["accept"]) == (["1"], ["a"])
    assert {"x_env", "x-debug", "x_debug"}.isdisjoint(sent)
    assert (sent["host"], sent["x-machpay-environment"]) == (["api.test"], ["live"])


@pytest.mark.parametrize("cors", [None, {"origins": ["https://app.test"]}])
async def test_headers_of_responses_are_set_added_and_removed(cors: Mapping[str, object] | None) -> None:
    answer = b"Server: secret/1.0\r\nX-Env: theirs\r\nX-Tag: theirs\r\nSet-Cookie: a=b\r\nCache-Control: no-store\r\n"
    rules = {"set": {"X-Env": "prod"}, "add": {"X-Tag": "ours"}, "remove": ["Server"]}
    _, got = await _sent_and_answered(
        "Origin: https://app.test", answer=answer, cors=cors, routes=[Route("GET /v1/x", response_headers=rules)]
    )
    assert "server" not in got
    assert (got["x-env"], got["x-tag"], got["set-cookie"]) == (["prod"], ["theirs", "ours"], ["a=b"])
    assert (got["cache-control"], len(got["x-request-id"]), len(got["ratelimit"])) == (["no-store"], 1, 1)
    assert got.get("access-control-allow-origin") == (None if cors is None else ["https://app.test"])


async def test_other_routes_and_refusals_have_no_rules() -> None:
    rules = {"set": {"X-Env": "prod"}}
    routes = [Route("GET /a", public=True, request_headers=rules, response_headers=rules), Route("GET /b", public=True)]
    async with Upstream() as upstream, proxied(upstream, routes=routes) as rig, rig.client() as client:
        for path, status, has in (("/a", 200, True), ("/b", 200, False), ("/c", 404, False)):
            await client.send(request("GET", path))
            answered, head, _ = await client.answer()
            assert (answered, "x-env" in fields_of(head)) == (status, has)
        assert ["x-env" in fields_of(head) for head in upstream.heads] == [True, False]


async def test_an_upstream_may_get_a_credential_of_the_gateways() -> None:
    rules = {"set": {"Authorization": "Basic dXNlcjpwYXNz"}}
    for forwards in (False, True):
        proxy: Any = {"request_headers": rules, "forward_credentials": forwards}
        sent, _ = await _sent_and_answered(proxy=proxy)
        assert sent["authorization"] == ["Basic dXNlcjpwYXNz"]


async def test_a_websocket_has_the_rules_too() -> None:
    async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-A: 1\r\n\r\n")
        writer.write(await reader.readexactly(2))

    heads: list[bytes] = []
    routes = [
        Route(
            "GET /ws/{id}",
            public=True,
            rewrite="/sockets/{id}",
            request_headers={"set": {"X-Env": "prod"}},
            response_headers={"remove": ["X-A"]},
        )
    ]
    async with Upstream(switch) as upstream, proxied(upstream, routes=routes) as rig, rig.client() as client:
        await client.send(request("GET", "/ws/1", "Connection: Upgrade", "Upgrade: websocket"))
        head = await client.head()
        assert (b" 101 " in head, b"X-A" in head) == (True, False)
        await client.send(b"hi")
        assert await client.rest() == b"hi"
    assert heads[0].startswith(b"GET /sockets/1 HTTP/1.1\r\n")
    assert fields_of(heads[0])["x-env"] == ["prod"]


@pytest.mark.parametrize("via", [True, False])
async def test_the_gateway_may_leave_itself_out_of_via(via: bool) -> None:  # noqa: FBT001 - a row
    fields = ("Via: 1.1 other", "Via: 1.0 machpay")  # of one in front of this one
    sent, got = await _sent_and_answered(*fields, answer=b"Via: 1.0 theirs\r\n", proxy={"via": via})
    ours = ["1.1 machpay"] if via else []
    assert (sent["via"], got["via"]) == (["1.1 other", "1.0 machpay", *ours], ["1.0 theirs", *ours])


async def test_a_stripped_prefix_is_announced() -> None:
    strict, routes = Strict(), (Route("GET /a/b/{id}", public=True, strip_prefix="/a/b"),)
    async with (
        Upstream(strict) as upstream,
        proxied(upstream, routes=routes, trusted_proxies=["127.0.0.1"]) as rig,
        rig.client() as client,
    ):
        for fields in ((), ("X-Forwarded-Prefix: /outer",)):
            await client.send(request("GET", "/a/b/c", *fields))
            assert (await client.answer())[0] == 200
    assert [seen.values(b"x-forwarded-prefix") for seen in strict.requests] == [[b"/a/b"], [b"/outer/a/b"]]
