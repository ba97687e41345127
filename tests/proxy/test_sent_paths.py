"""Paths that a route may allow go upstream as they came, and are matched as one segment: not by another rule."""

import pytest

from machpay_gateway import Route
from machpay_gateway.settings import Options
from tests.proxy.harness import Upstream, proxied, request
from tests.proxy.strict import Strict

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # how bytes are read is no matter of the loop

_ALL = {"encoded_slash": "allow", "double_slash": "allow", "non_utf8_escapes": "allow"}
_ROUTES = (
    Route("GET /projects/{id}", public=True, encoded_slash="allow"),
    Route("GET /projects/{id}/secrets", scopes="skills:execute"),
    Route("GET /packages/{name}", public=True),
    Route("GET /files/{rest:path}", public=True, double_slash="allow"),
    Route("GET /files/private/{rest:path}", scopes="skills:execute"),
    Route("GET /latin/{name}", public=True, non_utf8_escapes="allow"),
    Route("GET /any/{rest:path}", public=True, proxy=_ALL),
    Route("GET /images:annotate", public=True),
    Route("GET /{name}", scopes="skills:execute"),
)


@pytest.mark.parametrize(
    "target, expected",
    [
        ("/projects/group%2Fproject", 200),
        ("/projects/group%2fproject?a=%2F", 200),
        ("/projects/%40scope%2Fname", 200),
        ("/projects/a%2Fb%2Fc", 200),
        ("/projects/a%2F", 200),
        ("/projects/a%252Fb", 200),  # decoded once, it is no slash
        ("/projects/x%2Fsecrets", 401),  # what decodes the slash runs another rule: both hold
        ("/projects/x%252Fsecrets", 401),
        ("/projects/%2Fa", 400),  # decoded, it is `//`
        ("/projects/..%2Fadmin", 400),
        ("/projects/a%2F..%2F..%2Fadmin", 400),
        ("/projects/a%2F%2e%2e%2Fadmin", 400),
        ("/projects/a%2F..;%2Fadmin", 400),
        ("/projects/.%2Fa", 400),
        ("/projects/a%2Fb%5Cc", 400),
        ("/projects/a%2Fb%00", 400),
        ("/projects/a%2Fb%0d%0a", 400),
        ("/projects/a%2Fb%E9", 400),
        ("/projects%2Fa", 400),  # another route's, which does not allow it
        ("/packages/%40scope%2Fname", 400),
        ("/packages/%40scope%252Fname", 200),
        ("/packages//name", 400),
        ("/packages/caf%E9", 400),
        ("/files//a///b//", 200),
        ("/files/a//private/b", 200),
        ("/files//private/b", 401),  # what merges slashes runs another rule
        ("/files/a%2Fb", 400),
        ("/files/..//private/b", 400),
        ("//files/a", 400),
        ("/latin/caf%E9", 200),
        ("/latin/caf%c3%a9%e9", 200),
        ("/latin/caf\xe9", "/latin/caf%E9"),
        ("/latin/%c0%af", 400),  # an overlong slash
        ("/latin/%c0%ae%c0%ae", 400),
        ("/latin/%e0%80%af", 400),
        ("/latin/%f0%80%80%af", 400),
        ("/latin/%ef%bf%bd", 400),
        ("/any//a%2F%2Fb%E9", 200),
        ("/any/%2F..%2Fb", 400),
        ("/images:annotate", 200),
        ("/images%3Aannotate", 401),  # what does not decode runs `/{name}`: both hold
        ("/%69mages:annotate", "/images:annotate"),
    ],
)
async def test_what_a_route_allows_is_forwarded_as_it_came(target: str, expected: int | str) -> None:
    strict = Strict()
    async with Upstream(strict) as upstream, proxied(upstream, routes=_ROUTES) as rig, rig.client() as client:
        await client.send(request("GET", target))
        status = (await client.answer())[0]
    assert status == (200 if isinstance(expected, str) else expected)
    sent = target if expected == 200 else str(expected)
    assert [seen.target for seen in strict.requests] == ([sent.encode()] if status == 200 else [])


@pytest.mark.parametrize(
    "options, target, expected",
    [
        ({"proxy": _ALL}, "/public/a%2Fb//c%E9", 200),
        ({"proxy": {"encoded_slash": "allow"}}, "/public/a//b", 400),
        ({"proxy": {"double_slash": "allow"}}, "/public/a%2Fb", 400),
        ({"proxy": {"double_slash": "allow"}}, "//public/a", 404),  # no route has an empty segment
        ({"proxy": {"encoded_slash": "allow"}}, "/other%2Fa", 404),
        ({}, "/public/a%2Fb", 400),
        ({"unlisted_routes": "authenticated"}, "/other/a%2Fb", 400),
        ({"unlisted_routes": "authenticated", "proxy": _ALL}, "/other/a%2Fb", 401),
    ],
)
async def test_the_proxy_table_has_the_default(options: Options, target: str, expected: int) -> None:
    strict = Strict()
    async with Upstream(strict) as upstream, proxied(upstream, **options) as rig, rig.client() as client:
        await client.send(request("GET", target))
        assert (await client.answer())[0] == expected
    assert [seen.target for seen in strict.requests] == ([target.encode()] if expected == 200 else [])
