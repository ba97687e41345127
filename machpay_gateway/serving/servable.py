"""What supervisor and workers share: the check of the settings, and the stages and heartbeats that a worker reports.

It must stay light: the supervisor serves no request, and imports no code that does.
"""

import signal

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.settings import Settings

PREPARED = b"prepared\n"  # the settings are valid, and the database answers
READY = b"ready\n"  # it serves requests
RELEASED = b"released\n"  # another process may start to count
ALIVE = b"alive\n"  # its event loop runs
HEARTBEAT_SECONDS = 1.0  # between reports of that
REPLACED = signal.SIGUSR1  # tells a worker that another one replaces it
BACKLOG = 4096


def check_servable(settings: Settings) -> None:
    """Check that these *settings* can be served. Raises ConfigurationError with the way out."""
    server = settings.server
    if server.control_plane != "only" and not settings.upstreams and not settings.services:
        raise ConfigurationError(
            "upstreams: none is set, so there is nowhere to forward requests to; set [upstreams] live or sandbox, "
            '[services.NAME], or control_plane = "only" under [server]'
        )
    if server.workers > 1 and settings.redis is None:
        raise ConfigurationError(
            f"server.workers: {server.workers} workers cannot share limits without Redis; set redis, or workers = 1"
        )
    for service in settings.all_services.values():
        for upstream in service.values():
            if upstream.options.tls_files:
                from machpay_gateway.proxy.upstream_tls import upstream_context  # noqa: PLC0415 - only where there is TLS

                upstream_context(upstream.options)
    if server.certificate_files:
        from machpay_gateway.serving.tls import load_certificates  # noqa: PLC0415 - only where there is TLS

        load_certificates(server)
