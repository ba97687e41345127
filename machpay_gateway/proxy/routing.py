"""Routing: requests go to the upstream of the caller's environment, or by path to the control plane."""

import asyncio
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from machpay_gateway.core.decision.principal import Anonymous, Principal
from machpay_gateway.core.network.upstream import UNIX, Origin, Upstream
from machpay_gateway.core.network.upstream_options import UpstreamOptions
from machpay_gateway.proxy.dialer import Dialer
from machpay_gateway.proxy.framing import HeadLimits
from machpay_gateway.proxy.header_fields import control_plane_fields, response_fields
from machpay_gateway.proxy.pool import ServerPool
from machpay_gateway.proxy.readers import ResponseReader
from machpay_gateway.proxy.upstream import UpstreamConnection
from machpay_gateway.proxy.upstream_server import UpstreamServer
from machpay_gateway.telemetry.own_requests import OwnRequests
from machpay_gateway.web.path import matching_prefix

CONTROL_PLANE = "control plane"
_OWN_LIMITS = HeadLimits(256 * 1024, sys.maxsize)  # of the control plane's responses


class ControlPlane(NamedTuple):
    """Which paths the control plane serves, at a Unix *socket*: all below *prefixes*, `/v1/keys` among them.

    Other proxies send forward-auth requests below *forward_auth_prefix*. Those keep all their headers, the ones about
    clients included. *requests* are those in progress, about which the control plane notes what it decides.
    """

    prefixes: tuple[str, ...]
    forward_auth_prefix: str
    socket: Path
    requests: OwnRequests


class UpstreamRouter:
    """Picks the pool for a request. *pools* has all of them: `live`, `sandbox` and the control plane's."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        control_plane: ControlPlane | None,
        limits: HeadLimits,
        *,
        with_cors: bool = False,
    ) -> None:
        """Make a pool for each of *upstreams*, by `live` and `sandbox`, and one for the *control_plane*.

        *limits* are those of the heads of responses. *with_cors* is whether the gateway replaces the headers of CORS in
        responses of *upstreams*.
        """
        self._loop = asyncio.get_running_loop()
        self._responses = ResponseReader(response_fields(with_cors=with_cors), limits)
        self._prefixes = () if control_plane is None else control_plane.prefixes
        self._forward_auth_prefix = None if control_plane is None else control_plane.forward_auth_prefix
        self.own_requests = OwnRequests() if control_plane is None else control_plane.requests
        self._control_plane = None if control_plane is None else ServerPool([_control_plane_server(control_plane)])
        self._dialers: list[tuple[Dialer, UpstreamServer]] = []
        pools = {name: self._pool(upstream) for name, upstream in upstreams.items()}
        self.pools = pools if self._control_plane is None else {**pools, CONTROL_PLANE: self._control_plane}
        # A public route belongs to no environment; its requests go to the live upstream if there is one.
        by_environment = {"live": pools.get("live"), "test": pools.get("sandbox")}
        by_environment["public"] = by_environment["live"] or by_environment["test"]
        self._by_environment = {name: pool for name, pool in by_environment.items() if pool is not None}

    def control_plane_pool(self, path: str | None) -> ServerPool | None:
        """Return the control plane's pool if it serves *path*."""
        if self.is_forward_auth(path):
            return self._control_plane
        if path is None or not path.startswith(self._prefixes):
            return None
        return self._control_plane if matching_prefix(path, self._prefixes) is not None else None

    def is_forward_auth(self, path: str | None) -> bool:
        """Return whether requests to *path* are forward-auth requests of another proxy."""
        return path is not None and self._forward_auth_prefix is not None and path.startswith(self._forward_auth_prefix)

    def pool_for(self, principal: Principal | Anonymous) -> ServerPool:
        """Return the upstream of *principal*'s environment."""
        return self._by_environment[principal.environment if isinstance(principal, Principal) else "public"]

    def maintain(self, now: float) -> None:
        """Close idle connections that get no more requests, and resolve names again. Called once a second."""
        for pool in self.pools.values():
            pool.close_idle(now)
        for dialer, server in self._dialers:
            if dialer.resolve_at <= now and server.is_in_use:
                _ = dialer.refresh()

    def close(self) -> None:
        """Close idle connections."""
        for pool in self.pools.values():
            pool.close()

    def _pool(self, upstream: Upstream) -> ServerPool:
        options = upstream.options
        return ServerPool([self._server(origin, options) for origin in upstream.origins], options=options)

    def _server(self, origin: Origin, options: UpstreamOptions) -> UpstreamServer:
        if origin.scheme == UNIX:
            return self._unix_server(origin, options)
        tls = ssl.create_default_context() if origin.scheme == "https" else None
        dialer = Dialer(origin, self._connection, resolve_seconds=options.resolve_seconds, tls=tls)
        server = UpstreamServer(str(origin), dialer.connect, options=options, weight=origin.weight)
        dialer.on_move = server.move_to
        self._dialers.append((dialer, server))
        return server

    def _unix_server(self, origin: Origin, options: UpstreamOptions) -> UpstreamServer:
        return UpstreamServer(
            str(origin),
            lambda: self._loop.create_unix_connection(self._connection, origin.host),
            options=options,
            weight=origin.weight,
        )

    def _connection(self) -> UpstreamConnection:
        return UpstreamConnection(self._responses)


def _control_plane_server(control_plane: ControlPlane) -> UpstreamServer:
    loop, responses = asyncio.get_running_loop(), ResponseReader(control_plane_fields(), _OWN_LIMITS)
    return UpstreamServer(
        CONTROL_PLANE,
        lambda: loop.create_unix_connection(lambda: UpstreamConnection(responses), str(control_plane.socket)),
    )
