"""Routing: requests go to the service of their route, by the caller's environment, or by path to the control plane."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from machpay_gateway.core.decision.route_options import RouteOptions
from machpay_gateway.core.network.proxy_settings import ProxySettings
from machpay_gateway.core.network.service import ENVIRONMENT_OF, UpstreamService
from machpay_gateway.core.network.upstream import UNIX, Origin, Upstream
from machpay_gateway.core.network.upstream_options import UpstreamOptions
from machpay_gateway.proxy.dialer import Dialer
from machpay_gateway.proxy.framing import HeadLimits
from machpay_gateway.proxy.header_fields import control_plane_fields, response_fields
from machpay_gateway.proxy.http2_server import Http2Server
from machpay_gateway.proxy.pool import ServerPool
from machpay_gateway.proxy.readers import ResponseReader
from machpay_gateway.proxy.route_plan import Destination
from machpay_gateway.proxy.upstream import UpstreamConnection
from machpay_gateway.proxy.upstream_server import UpstreamServer
from machpay_gateway.proxy.upstream_tls import UpstreamTls
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
    """Has the pools of all services and of the control plane. *pools* are by name: `live`, `billing.sandbox`."""

    def __init__(
        self,
        services: Mapping[str | None, UpstreamService],
        control_plane: ControlPlane | None,
        options: RouteOptions,
        *,
        with_cors: bool = False,
    ) -> None:
        """Make a pool for each upstream of *services*, where None is the default one, and one for the *control_plane*.

        *options* has the settings of each service. *with_cors* is whether the gateway replaces the headers of CORS in
        responses of upstreams.
        """
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._with_cors = with_cors
        self._prefixes = () if control_plane is None else control_plane.prefixes
        self._forward_auth_prefix = None if control_plane is None else control_plane.forward_auth_prefix
        self.own_requests = OwnRequests() if control_plane is None else control_plane.requests
        self._control_plane = None if control_plane is None else ServerPool([_control_plane_server(control_plane)])
        self._dialers: list[tuple[Dialer, UpstreamServer]] = []
        self._watched: list[UpstreamTls] = []  # those that are read from files
        self.pools: dict[str, ServerPool] = {}
        self._destinations = {name: self._make_destinations(name, service) for name, service in services.items()}
        if self._control_plane is not None:
            self.pools[CONTROL_PLANE] = self._control_plane

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

    def destinations_of(self, service: str | None) -> Mapping[str, Destination]:
        """Return where requests to *service*, or the default one, go: by environment, and `public`."""
        return self._destinations[service]

    def maintain(self, now: float) -> None:
        """Close idle connections that get no more requests, resolve names and load new files. Called once a second."""
        for pool in self.pools.values():
            pool.close_idle(now)
        for dialer, server in self._dialers:
            if dialer.resolve_at <= now and server.is_in_use:
                _ = dialer.refresh()
        for tls in self._watched:
            tls.check_files()

    def close(self) -> None:
        """Close idle connections."""
        for pool in self.pools.values():
            pool.close()

    def _make_destinations(self, name: str | None, service: UpstreamService) -> Mapping[str, Destination]:
        options = self._options.of_service(name)
        has_rules = any(each.response_rules is not None for each in self._options.all)
        fields = response_fields(with_cors=self._with_cors, via=options.via, has_rules=has_rules)
        responses = ResponseReader(fields, HeadLimits(options.max_response_head_bytes, sys.maxsize))
        destinations: dict[str, Destination] = {}
        for environment, upstream in service.items():
            tls = self._tls_of(upstream)
            servers = [
                self._server(origin, upstream.options, responses, options, tls.get(origin.scheme))
                for origin in upstream.origins
            ]
            pool = ServerPool(servers, options=upstream.options)
            self.pools[environment if name is None else f"{name}.{environment}"] = pool
            authorities = {server.authority for server in servers}
            authority = authorities.pop() if len(authorities) == 1 else None
            destinations[ENVIRONMENT_OF[environment]] = Destination(pool, upstream.path.encode(), authority)
        # A public route belongs to no environment; its requests go to the live upstream if there is one.
        public = destinations.get("live") or destinations.get("test")
        return destinations if public is None else {**destinations, "public": public}

    def _tls_of(self, upstream: Upstream) -> Mapping[str, UpstreamTls]:
        """Return the contexts for connections to *upstream* by those schemes with TLS. Raises ConfigurationError."""
        kinds = {origin.scheme: origin.is_http2 for origin in upstream.origins if origin.has_tls}
        contexts = {scheme: UpstreamTls(upstream.options, is_http2=kind) for scheme, kind in kinds.items()}
        if upstream.options.tls_files:
            self._watched += contexts.values()
        return contexts

    def _server(
        self,
        origin: Origin,
        options: UpstreamOptions,
        responses: ResponseReader,
        settings: ProxySettings,
        tls: UpstreamTls | None,
    ) -> UpstreamServer:
        authority, weight = origin.authority.encode(), origin.weight
        check_host = origin.authority if settings.fixed_host is None else settings.host
        if origin.scheme == UNIX:
            return UpstreamServer(
                str(origin),
                lambda: self._loop.create_unix_connection(lambda: UpstreamConnection(responses), origin.host),
                options=options,
                weight=weight,
                authority=authority,
                check_host=check_host,
            )
        dialer = Dialer(
            origin,
            lambda: UpstreamConnection(responses),
            resolve_seconds=options.resolve_seconds,
            dead_peer_seconds=options.dead_peer_seconds,
            tls=tls,
            tls_name=options.tls_server_name or settings.fixed_host or origin.host,
        )
        server_class = Http2Server if origin.is_http2 else UpstreamServer
        server = server_class(
            str(origin),
            dialer.connect,
            options=options,
            weight=weight,
            authority=authority,
            check_host=check_host,
        )
        if isinstance(server, Http2Server):
            server.speak(responses, b"https" if origin.has_tls else b"http")
            dialer.protocol = server.protocol
        dialer.on_move = server.move_to
        self._dialers.append((dialer, server))
        return server


def _control_plane_server(control_plane: ControlPlane) -> UpstreamServer:
    loop, responses = asyncio.get_running_loop(), ResponseReader(control_plane_fields(), _OWN_LIMITS)
    return UpstreamServer(
        CONTROL_PLANE,
        lambda: loop.create_unix_connection(lambda: UpstreamConnection(responses), str(control_plane.socket)),
    )
