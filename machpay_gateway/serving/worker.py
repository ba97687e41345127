"""One worker: a gateway, the proxy that listens for callers, the control plane behind it, and management endpoints.

The supervisor starts `python -m machpay_gateway.serving` and passes it the sockets. The worker reports its stages on a
pipe, and once a second that its event loop runs. It shuts down gracefully on a signal, or when the supervisor is gone.
"""

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from machpay_gateway.assembly import ConfiguredGateway
from machpay_gateway.core.errors import GatewayError, describe_error
from machpay_gateway.forward_auth.dialect import PATH_PREFIX
from machpay_gateway.proxy.dead_peers import detect_dead_peers
from machpay_gateway.proxy.pool import ServerPool
from machpay_gateway.proxy.proxy import Proxy, idle_grace_seconds
from machpay_gateway.proxy.routing import ControlPlane
from machpay_gateway.proxy.websocket_frames import GOING_AWAY, SERVICE_RESTART
from machpay_gateway.server import BehindOurProxy, control_plane, own_branches, served_routes
from machpay_gateway.serving.asgi import AsgiServer
from machpay_gateway.serving.counter import collect_counts
from machpay_gateway.serving.listening import parse_sockets
from machpay_gateway.serving.management import management_app
from machpay_gateway.serving.metrics import Metrics
from machpay_gateway.serving.passed_connections import ProxyProtocolServer
from machpay_gateway.serving.servable import (
    ALIVE,
    BACKLOG,
    PREPARED,
    READY,
    RELEASED,
    REPLACED,
    check_servable,
)
from machpay_gateway.serving.tls import CallerTls
from machpay_gateway.serving.upstream_health import UpstreamHealth
from machpay_gateway.serving.vitals import Vitals
from machpay_gateway.settings import Options, load_settings
from machpay_gateway.settings.listeners import Listener
from machpay_gateway.telemetry.access_log import OFF, AccessLog
from machpay_gateway.telemetry.logs import configure_logging
from machpay_gateway.telemetry.own_requests import OwnRequests

logger = logging.getLogger("machpay_gateway")

_OTHER_FILES = 128  # the database, Redis, logs, modules while they load


class Worker:
    """Serves until it is stopped."""

    def __init__(
        self,
        options: Options,
        listeners: Sequence[tuple[socket.socket, int]],
        management: socket.socket | None,
        counts: Path,
        *,
        has_served: bool,
    ) -> None:
        """Prepare to serve callers on *listeners* and operators on *management*. Raises ConfigurationError.

        Each of *listeners* has the number of its entry in `server.listen`.

        *counts* is the folder in which all workers write snapshots of their metrics, and the health of upstreams.
        *has_served* is whether this worker goes on for others that served.
        """
        server = load_settings(options).server
        self.gateway = ConfiguredGateway(
            own_routes=served_routes if server.control_plane != "off" else (),
            carries=server.control_plane != "only",
            workers=server.workers,
            has_served=has_served,
            **options,
        )
        check_servable(self.gateway.settings)
        self._shared_folder = counts
        self.vitals = Vitals(self.gateway)
        self.metrics = Metrics(
            counts,
            lambda: collect_counts(self.gateway, self.vitals, self._proxy, self._log, self._tls),
            wanted=server.workers,
        )
        self._tls = CallerTls(server) if server.certificate_files else None
        self._contexts = [self._context_of(listener) for listener in server.listeners]
        self.is_draining = False
        self._proxy: Proxy | None = None
        self._log: AccessLog | None = None
        self._listeners = listeners
        self._management = management
        self._operators: AsgiServer | None = None
        self._is_replaced = False
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Start a graceful shutdown."""
        self._stop.set()

    def give_way(self) -> None:
        """Start a graceful shutdown, because another worker replaces this one."""
        self._is_replaced = True
        self.stop()

    async def serve(self, report: int) -> None:
        """Serve until stopped, and drain; report each stage on the pipe *report*. Raises GatewayError at the start."""
        async with AsyncExitStack() as stack:
            if self.gateway.traces is not None:
                self._export_traces(stack)
            stack.push_async_callback(self.metrics.close)  # after all others, which may count until then
            stack.push_async_callback(self.gateway.lifecycle.close)
            await self.gateway.lifecycle.open()
            _report(report, PREPARED)
            await self.gateway.lifecycle.serve()
            if self._tls is not None:
                self._tls.start()
            if self._management is not None:
                self.metrics.start()
                self.vitals.start()
                stack.push_async_callback(self.vitals.close)
                self._operators = AsgiServer(
                    management_app(self.gateway, self.metrics, lambda: self.is_draining, self._pools, self._tls),
                    self._management,
                )
                await self._start_server(stack, self._operators)
            if self.gateway.settings.server.control_plane == "only":
                await self._serve_control_plane_only(stack, report)
            else:
                await self._serve_proxy(stack, report)

    @staticmethod
    def _export_traces(stack: AsyncExitStack) -> None:
        from machpay_gateway.telemetry.exporting import start_span_export, stop_span_export  # noqa: PLC0415 - an extra

        exporting = start_span_export()
        if exporting is not None:
            stack.push_async_callback(stop_span_export, exporting)

    async def _serve_control_plane_only(self, stack: AsyncExitStack, report: int) -> None:
        settings = self.gateway.settings.server
        app, servers = control_plane(self.gateway), []
        for context in dict.fromkeys(self._contexts):
            server = AsgiServer(
                app,
                *(listening for listening, number in self._listeners if self._contexts[number] is context),
                context=context,
                keepalive_seconds=settings.keepalive_seconds,
                drain_seconds=settings.drain_seconds,
                idle_grace_seconds=idle_grace_seconds(settings.drain_seconds),
            )
            servers.append(server)
            await self._start_server(stack, server)
        await self._until_stopped(report)
        for server in servers:
            server.stop_accepting()
        await self._release(report)

    async def _serve_proxy(self, stack: AsyncExitStack, report: int) -> None:
        settings = self.gateway.settings.server
        control = await self._control_plane(stack) if settings.control_plane == "on" else None
        self._log = log = None if settings.access_log == OFF else AccessLog(settings.access_log)
        if log is not None:
            stack.push_async_callback(log.close)
        most = settings.max_connections or _connections_by_files()
        self._proxy = proxy = Proxy(self.gateway, control_plane=control, access_log=log, max_connections=most)
        servers = [await self._serve_on(proxy, listening, number) for listening, number in self._listeners]
        health = UpstreamHealth(proxy.router.pools, self._shared_folder)
        health.start()
        await self._until_stopped(report)
        for server in servers:
            server.close()
        await health.close()
        await self._release(report)
        code = SERVICE_RESTART if self._is_replaced else GOING_AWAY
        await proxy.close(settings.drain_seconds, close_code=code)

    def _context_of(self, listener: Listener) -> ssl.SSLContext | None:
        server = self.gateway.settings.server
        if self._tls is None or not server.has_tls(listener):
            return None
        return self._tls.listener_context(requires_certificate=server.requires_certificate(listener))

    async def _serve_on(
        self, proxy: Proxy, listening: socket.socket, number: int
    ) -> asyncio.Server | ProxyProtocolServer:
        settings = self.gateway.settings.server
        context = self._contexts[number]
        detect_dead_peers(listening, settings.dead_peer_seconds)  # of each connection that it accepts
        if settings.has_proxy_protocol(settings.listeners[number]):
            server = ProxyProtocolServer(
                listening,
                proxy.connect_for,
                proxy.context.is_trusted_proxy,
                context=context,
                header_seconds=settings.head_seconds,
            )
            server.start()
            return server
        if listening.family == socket.AF_UNIX:  # which does not leave the host
            if sys.version_info >= (3, 13):  # which would remove the file with the first worker that stops
                return await proxy.loop.create_unix_server(
                    proxy.connect_unix, sock=listening, backlog=BACKLOG, cleanup_socket=False
                )
            return await proxy.loop.create_unix_server(proxy.connect_unix, sock=listening, backlog=BACKLOG)
        return await proxy.loop.create_server(
            proxy.connect,
            sock=listening,
            ssl=context,
            # The proxy counts and times a connection only once its handshake is complete.
            ssl_handshake_timeout=None if context is None else settings.head_seconds,
            backlog=BACKLOG,
        )

    def _pools(self) -> Mapping[str, ServerPool] | None:
        return None if self._proxy is None else self._proxy.router.pools

    async def _until_stopped(self, report: int) -> None:
        # Keep the objects of the start out of the collector's full passes: each would delay every response.
        gc.collect()
        gc.freeze()
        gc.enable()  # `__main__` disabled it
        _report(report, READY)
        self.vitals.heartbeat.start(lambda: _report(report, ALIVE))
        await self._stop.wait()
        self.is_draining = not self._is_replaced  # any worker may get a health check, and its replacement serves

    async def _release(self, report: int) -> None:
        """Let a replacement count, and serve the management endpoints."""
        if self.gateway.settings.redis is None or self._is_replaced:
            # Without Redis only one process may count at a time, and the replacement waits for this. With Redis, it
            # waits for this one's part of the local share if Redis is away.
            await self.gateway.lifecycle.give_way()
        _report(report, RELEASED)
        if self._is_replaced and self._operators is not None:
            await self._operators.stop()

    async def _control_plane(self, stack: AsyncExitStack) -> ControlPlane:
        """Serve the control plane on a socket that only this process can reach."""
        folder = stack.enter_context(TemporaryDirectory(prefix="machpay-"))
        path = Path(folder) / "control"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(BACKLOG)
        requests = OwnRequests()
        await self._start_server(stack, AsgiServer(BehindOurProxy(self.gateway, requests), listener))
        return ControlPlane(tuple(own_branches(self.gateway.settings)), PATH_PREFIX, path, requests)

    async def _start_server(self, stack: AsyncExitStack, server: AsgiServer) -> None:
        await server.start()
        stack.push_async_callback(server.stop)


def _report(pipe: int, stage: bytes) -> None:
    # After a killed supervisor too, requests in flight finish. One that is stopped for hours lets the pipe fill up.
    with suppress(BrokenPipeError, BlockingIOError):
        os.write(pipe, stage)


def _connections_by_files() -> int:
    """Return the most connections that this process may accept: each may need a second one, to an upstream."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a shell's soft limit suits interactive programs
    return (most - min(_OTHER_FILES, most // 2)) // 2


async def _run(
    options: Options,
    listeners: Sequence[tuple[socket.socket, int]],
    management: socket.socket | None,
    counts: Path,
    report: int,
    *,
    has_served: bool,
) -> None:
    os.set_blocking(report, False)
    worker = Worker(options, listeners, management, counts, has_served=has_served)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, worker.stop)
    loop.add_signal_handler(REPLACED, worker.give_way)
    loop.add_reader(sys.stdin.fileno(), _stop_orphan, worker)  # its other end closes when the supervisor exits
    await worker.serve(report)


def _stop_orphan(worker: Worker) -> None:
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    worker.stop()


def main(arguments: Sequence[str]) -> int:
    """Serve, and return the exit status.

    *arguments* are the settings' file or "", the folder for metrics, the file descriptors of both listeners and the
    pipe, and 1 if this worker goes on for others that served, else 0.
    """
    config, counts = arguments[:2]
    # A supervisor of an earlier version passes its log level for the last one: whom it starts, others served before.
    listeners = parse_sockets(arguments[2])
    management, report, has_served = map(int, arguments[3:])
    configure_logging("text")
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it logs each revision of a new database
    options: Options = {"config": config} if config else {}
    operators = socket.socket(fileno=management) if management >= 0 else None
    try:
        server = load_settings(options).server
        configure_logging(server.log_format, level=server.log_level, worker=os.getpid())
        uvloop.run(_run(options, listeners, operators, Path(counts), report, has_served=bool(has_served)))
    except GatewayError as exc:
        logger.error("%s", describe_error(exc))  # noqa: TRY400 - it says all there is
        return 1
    return 0
