"""What other proxies ask goes to the control plane as it came, and is one request there all the same."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from machpay_gateway import Route
from machpay_gateway.proxy.routing import ControlPlane
from machpay_gateway.telemetry.own_requests import OwnRequests
from tests.proxy.harness import ROUTES, Rig, Upstream, proxied, request
from tests.proxy.strict import Strict

_ASKED = "/authorize/nginx/v1/x"
_SMUGGLED = request("POST", "/v1/keys")


@asynccontextmanager
async def _proxied_control_plane(
    strict: Strict, tmp_path: Path, routes: Sequence[Route] = ROUTES
) -> AsyncIterator[Rig]:
    control_plane = ControlPlane(("/v1/keys",), "/authorize/", tmp_path / "control", OwnRequests())
    async with (
        Upstream() as upstream,
        Upstream(strict, path=control_plane.socket),
        proxied(upstream, control_plane=control_plane, routes=routes) as rig,
    ):
        yield rig


@pytest.mark.parametrize("path", [_ASKED, "/v1/keys"])
@pytest.mark.parametrize(
    "fields, body",
    [
        ((f"Content-Length: {len(_SMUGGLED)}",), _SMUGGLED),
        (("Transfer-Encoding: chunked",), b"%x\r\n%b\r\n0\r\n\r\n" % (len(_SMUGGLED), _SMUGGLED)),
    ],
)
@pytest.mark.parametrize(
    "named", ["content-length", "Transfer-Encoding", "host", "x-forwarded-for, Content-Length, TE"]
)
async def test_connection_cannot_turn_a_forward_auth_body_into_a_request(
    path: str, fields: tuple[str, ...], body: bytes, named: str, tmp_path: Path
) -> None:
    strict = Strict()
    async with _proxied_control_plane(strict, tmp_path) as rig, rig.client() as client:
        await client.send(request("POST", path, *fields, f"Connection: {named}", body=body))
        assert (await client.answer())[2] == path.encode()
        await client.send(request("GET", _ASKED))
        assert (await client.answer())[2] == _ASKED.encode()
    assert strict.faults == []
    assert [(seen.target, seen.body) for seen in strict.requests] == [
        (path.encode(), _SMUGGLED),
        (_ASKED.encode(), b""),
    ]
    assert strict.requests[0].values(b"host") == [b"api.test"]


async def test_a_check_request_may_have_what_a_route_allows(tmp_path: Path) -> None:
    strict = Strict()
    routes = [Route("GET /projects/{id}", public=True, encoded_slash="allow")]
    async with _proxied_control_plane(strict, tmp_path, routes) as rig, rig.client() as client:
        for path, status in (
            ("/authorize/envoy/projects/group%2Fproject", 200),
            ("/authorize/envoy/packages/a%2Fb", 200),  # which the control plane refuses
            ("/authorize/envoy/..%2F..%2Fv1/keys", 400),
            ("/authorize%2Fenvoy/x", 400),
            ("/v1/keys%2Fx", 400),
        ):
            await client.send(request("GET", path))
            assert (await client.answer())[0] == status
    assert [seen.target for seen in strict.requests] == [
        b"/authorize/envoy/projects/group%2Fproject",
        b"/authorize/envoy/packages/a%2Fb",
    ]


async def test_clients_cannot_forge_the_peer_header(tmp_path: Path) -> None:
    strict = Strict()
    forged = ("X-MachPay-Peer: 10.0.0.1", "x-machpay-PEER: 10.0.0.2", "Connection: X-MachPay-Peer")
    async with _proxied_control_plane(strict, tmp_path) as rig, rig.client() as client:
        await client.send(request("GET", _ASKED, *forged, "X-Original-URI: /v1/x", "X-Forwarded-For: 1.2.3.4"))
        assert (await client.answer())[0] == 200
    (seen,) = strict.requests
    assert [value for name, value in seen.lines if b"peer" in name.lower()] == [b"127.0.0.1"]
    assert (seen.values(b"x-original-uri"), seen.values(b"x-forwarded-for")) == ([b"/v1/x"], [b"1.2.3.4"])
