"""Requests go to the service of their route, and never to a live server with test credentials."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import pytest

from machpay_gateway import Route
from machpay_gateway.core.decision.policy import Unlisted
from machpay_gateway.settings import Options
from tests.proxy.harness import Rig, Upstream, proxied, request
from tests.proxy.strict import Strict

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # where a request goes is no matter of the loop

_NAMES = ("default_live", "default_sandbox", "billing_live", "billing_sandbox", "reports_live")


class _Servers(NamedTuple):
    rig: Rig
    seen: Mapping[str, Strict]

    @property
    def targets(self) -> dict[str, list[str]]:
        """The targets that each server got."""
        return {name: [each.target.decode() for each in strict.requests] for name, strict in self.seen.items()}


@asynccontextmanager
async def _served(*rules: Route, base: str = "", settings: Options | None = None) -> AsyncIterator[_Servers]:
    """Serve `[upstreams]`, a service `billing` for both environments, and `reports` for live credentials only."""
    async with AsyncExitStack() as stack:
        seen = {name: Strict() for name in _NAMES}
        ports = {name: (await stack.enter_async_context(Upstream(strict))).port for name, strict in seen.items()}
        urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        defaults: Options = {
            "upstreams": {"live": urls["default_live"], "sandbox": urls["default_sandbox"]},
            "services": {
                "billing": {"live": urls["billing_live"] + base, "sandbox": urls["billing_sandbox"] + base},
                "reports": {"live": urls["reports_live"]},
            },
            "routes": rules,
        }
        rig = await stack.enter_async_context(proxied(**(defaults | (settings or {}))))
        yield _Servers(rig, seen)


async def _ask(rig: Rig, *targets: str, method: str = "GET", secret: str | None = None) -> list[int]:
    async with rig.client() as client:
        statuses = []
        for target in targets:
            await client.send(request(method, target, secret=secret))
            statuses.append((await client.answer())[0])
        return statuses


_ROUTES = (
    Route("GET /billing/{rest:path}", scopes="skills:execute", service="billing"),
    Route("GET /reports/{rest:path}", scopes="skills:execute", service="reports"),
    Route("GET /reports/public", public=True, service="reports"),
    Route("GET /other", scopes="skills:execute"),
)


async def test_a_route_selects_its_service_and_the_credential_the_environment() -> None:
    async with _served(*_ROUTES) as served:
        for environment, statuses in (("live", [200, 200, 200]), ("test", [200, 403, 200])):
            secret = await served.rig.secret(environment=environment)
            assert await _ask(served.rig, "/billing/a", "/reports/a", "/other", secret=secret) == statuses
        assert await _ask(served.rig, "/reports/public") == [200]
        assert served.targets == {
            "default_live": ["/other"],
            "default_sandbox": ["/other"],
            "billing_live": ["/billing/a"],
            "billing_sandbox": ["/billing/a"],
            "reports_live": ["/reports/a", "/reports/public"],
        }


@pytest.mark.parametrize("unlisted", ["deny", "authenticated"])
async def test_test_credentials_never_reach_a_live_server(unlisted: Unlisted) -> None:
    async with _served(*_ROUTES, settings={"unlisted_routes": unlisted}) as served:
        secret = await served.rig.secret(environment="test")
        targets = (
            "/reports/a",
            "/REPORTS/a",
            "/reports/%61",
            "/reports;x/a",
            "/%2572eports/a",
            "/reports",
            "/reports/",
        )
        for method in ("GET", "HEAD", "POST", "OPTIONS"):
            async with served.rig.client() as client:
                for target in targets:
                    await client.send(request(method, target, secret=secret))
                    await client.head() if method == "HEAD" else await client.answer()
        assert served.targets["reports_live"] == []
        assert served.targets["default_live"] == []


async def test_a_service_alone_needs_no_default() -> None:
    routes = (Route("GET /billing/{id}", public=True, service="billing"),)
    async with _served(*routes, settings={"upstreams": {}, "unlisted_routes": "authenticated"}) as served:
        secret = await served.rig.secret()
        assert await _ask(served.rig, "/billing/1") == [200]
        assert await _ask(served.rig, "/other", secret=secret) == [403]  # no server for unlisted routes
        assert served.targets["billing_live"] == ["/billing/1"]


@pytest.mark.parametrize(
    "match, options, base, target, forwarded",
    [
        ("* /billing/{rest:path}", {"strip_prefix": "/billing"}, "", "/billing/v1/x?a=%2F", "/v1/x?a=%2F"),
        ("* /billing/{rest:path}", {"strip_prefix": "/billing"}, "", "/billing", "/"),
        ("* /billing/{rest:path}", {"strip_prefix": "/billing/"}, "", "/billing/", "/"),
        ("* /a/b/{id}", {"strip_prefix": "/a/b"}, "", "/a/b/c%3Bd%20e", "/c%3Bd%20e"),
        ("* /a/b/{id}", {"strip_prefix": "/a", "add_prefix": "/v2"}, "", "/a/b/c/", "/v2/b/c/"),
        ("* /a/{id}", {"add_prefix": "/v2/x"}, "", "/a/1", "/v2/x/a/1"),
        ("* /a/{id}", {}, "/base", "/a/1", "/base/a/1"),
        ("* /a/{id}", {}, "/base/", "/a/1/", "/base/a/1/"),
        ("* /a/{id}", {"strip_prefix": "/a", "add_prefix": "/b"}, "/base", "/a/1", "/base/b/1"),
        ("* /a/{id}", {"rewrite": "/internal/{id}"}, "", "/a/1?x", "/internal/1?x"),
        ("* /a/{id}", {"rewrite": "/internal/{id}"}, "/base", "/a/%31%2B/", "/base/internal/1%2B/"),
        ("* /a/{x}/b/{y}", {"rewrite": "/{y}/of-{x}.json"}, "", "/a/1/b/2", "/2/of-1.json"),
        ("* /a/{id}/{rest:path}", {"rewrite": "/i/{id}/r/{rest:path}"}, "", "/a/1/b/c/", "/i/1/r/b/c/"),
        ("* /a/{rest:path}", {"rewrite": "/i/{rest}"}, "", "/a", "/i"),
        ("* /a/{rest:path}", {"rewrite": "/i"}, "", "/a/b/c", "/i"),
        ("* /a/{id}", {"rewrite": "/"}, "", "/a/1", "/"),
        ("* /a/{id}", {"rewrite": "/i/{id}", "encoded_slash": "allow"}, "", "/a/b%2Fc", "/i/b%2Fc"),
        ("* /a/{rest:path}", {"strip_prefix": "/a", "double_slash": "allow"}, "", "/a/b//c", "/b//c"),
        ("* /a:b/{id}", {"strip_prefix": "/a:b"}, "", "/a%3Ab/c", "/c"),
    ],
)
async def test_the_path_is_rewritten_byte_by_byte(
    match: str, options: Mapping[str, Any], base: str, target: str, forwarded: str
) -> None:
    route = Route(match, public=True, service="billing", **options)
    async with _served(route, base=base) as served:
        assert await _ask(served.rig, target) == [200]
        assert served.targets["billing_live"] == [forwarded]
        (ended,) = served.rig.ended
    path = forwarded.partition("?")[0]
    assert ended.forwarded_path == (None if path == target.partition("?")[0] else path)


async def test_another_spelling_of_a_rewritten_path_is_not_forwarded() -> None:
    route = Route("GET /billing/{id}", public=True, service="billing", strip_prefix="/billing")
    async with _served(route, settings={"unlisted_routes": "authenticated"}) as served:
        secret = await served.rig.secret()
        assert await _ask(served.rig, "/BILLING/1", "/billing;x/1", secret=secret) == [400, 400]
        assert not any(served.targets.values())


async def test_a_preflight_goes_where_the_request_goes() -> None:
    route = Route("GET /billing/{id}", scopes="skills:execute", service="billing", strip_prefix="/billing")
    root = Route("OPTIONS /", public=True, service="reports")
    async with _served(root, route) as served, served.rig.client() as client:
        fields = ("Origin: https://app.test", "Access-Control-Request-Method: GET")
        for path in ("/", "/billing/1", "/"):
            await client.send(request("OPTIONS", path, *fields))
            assert (await client.answer())[0] == 200
        assert (served.targets["billing_live"], served.targets["reports_live"]) == (["/1"], ["/", "/"])


async def test_options_of_a_service_precede_those_of_the_proxy_and_follow_those_of_a_route() -> None:
    routes = (
        Route("POST /a", public=True),
        Route("POST /b", public=True, service="small"),
        Route("POST /c", public=True, service="small", proxy={"max_body_bytes": 3}),
    )
    async with Upstream() as upstream:
        url = f"http://127.0.0.1:{upstream.port}"
        options: Options = {
            "routes": routes,
            "proxy": {"max_body_bytes": 1},
            "services": {"small": {"live": url, "max_body_bytes": 2, "balance": "round_robin"}},
            "upstreams": {"live": url},
        }
        async with proxied(**options) as rig:
            statuses = []
            for path in ("/a", "/b", "/c"):
                for size in (1, 2, 3, 4):
                    head = request("POST", path, f"Content-Length: {size}", "Connection: close", body=b"x" * size)
                    statuses.append(int((await rig.exchange(head)).split()[1]))
            assert list(rig.proxy.router.pools) == ["live", "small.live"]
    assert statuses == [200, 413, 413, 413, 200, 200, 413, 413, 200, 200, 200, 413]
