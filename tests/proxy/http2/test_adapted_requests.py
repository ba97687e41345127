"""What services and routes change of a request and its response is the same over HTTP/2."""

import pytest

from machpay_gateway import Route
from tests.proxy.harness import Upstream, fields_of, proxied
from tests.proxy.http2.harness import http2

_ROUTES = (
    Route(
        "GET /a/{id}",
        public=True,
        rewrite="/internal/{id}",
        encoded_slash="allow",
        request_headers={"set": {"X-Env": "prod"}, "remove": ["X-Debug"]},
        response_headers={"set": {"X-Env": "ours"}, "remove": ["Server"]},
    ),
    Route("GET /b/{rest:path}", public=True, strip_prefix="/b"),
)
_ANSWER = b"HTTP/1.1 200 OK\r\nServer: theirs\r\nX-Env: theirs\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    "path, forwarded",
    [
        ("/a/b%2Fc%3B?d=%2F", "/internal/b%2Fc%3B?d=%2F"),
        ("/a/%62?q=café", "/internal/b?q=caf%C3%A9"),
        ("/b/c%2Bd/", "/c%2Bd/"),
        ("/b/c%2Fd", None),
        ("/b/%2e%2e/a/b", None),
    ],
)
async def test_a_path_is_rewritten(path: str, forwarded: str | None) -> None:
    async with Upstream() as upstream, proxied(upstream, routes=_ROUTES) as rig, http2(rig) as client:
        result = await client.fetch("GET", path)
        assert result.status == (400 if forwarded is None else 200)
        targets = [head.split(b" ")[1].decode() for head in upstream.heads]
    assert targets == ([] if forwarded is None else [forwarded])


async def test_headers_follow_the_rules() -> None:
    async with (
        Upstream(answer=_ANSWER) as upstream,
        proxied(upstream, routes=_ROUTES, proxy={"via": False, "host": "a.test"}) as rig,
        http2(rig) as client,
    ):
        result = await client.fetch("GET", "/a/1", ("x-env", "mine"), ("x-debug", "1"), ("via", "1.1 other"))
        fields = fields_of(upstream.heads[0])
    assert (fields["x-env"], "x-debug" in fields, fields["host"]) == (["prod"], False, ["a.test"])
    assert (fields["via"], fields["x-forwarded-host"]) == (["1.1 other"], ["api.test"])
    assert (result.values("x-env"), result.values("server"), result.values("via")) == (["ours"], [], [])


async def test_a_question_about_the_whole_server_is_answered_here() -> None:
    async with Upstream() as upstream, proxied(upstream) as rig, http2(rig) as client:
        result = await client.fetch("OPTIONS", "*")
        assert (result.status, result.body, upstream.heads) == (200, b"", [])
