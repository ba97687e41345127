"""The management endpoints, on an address that callers cannot reach: `/healthz`, `/readyz` and `/metrics`."""

from collections.abc import Callable, Mapping
from time import time

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from machpay_gateway.gateway import Gateway
from machpay_gateway.proxy.pool import ServerPool
from machpay_gateway.serving.metrics import Metrics
from machpay_gateway.serving.readiness import NOT_READY, checks_of, status_of
from machpay_gateway.serving.tls import CallerTls

_READY, _UNAVAILABLE = 200, 503


def management_app(
    gateway: Gateway,
    metrics: Metrics,
    is_draining: Callable[[], bool],
    pools: Callable[[], Mapping[str, ServerPool] | None] = lambda: None,
    tls: CallerTls | None = None,
) -> ASGIApp:
    """Return the application with a worker's health checks, and the metrics of all workers.

    *pools* returns those of the worker's proxy, None without one. *tls* has the certificates for callers.
    """

    async def alive(_: Request) -> Response:
        """Respond as long as the event loop runs. Nothing else is checked: no outage elsewhere restarts the process."""
        return _to_response({"status": "alive"})

    async def ready(_: Request) -> Response:
        """Return whether this worker can serve requests, and if not, why."""
        checks = await checks_of(gateway, is_draining=is_draining(), pools=pools())
        if tls is not None:
            checks = {**checks, "certificates": tls.describe(time())}
        status = status_of(checks)
        return _to_response({"status": status, "checks": checks}, is_ready=status != NOT_READY)

    async def scrape(request: Request) -> Response:
        """Return the metrics of all workers in a format of Prometheus."""
        text, media_type = await metrics.render(request.headers.get("accept", ""))
        return Response(text, headers={"Cache-Control": "no-store", "Content-Type": media_type})

    return Starlette(routes=[Route("/healthz", alive), Route("/readyz", ready), Route("/metrics", scrape)])


def _to_response(body: object, *, is_ready: bool = True) -> Response:
    headers = {"Cache-Control": "no-store"}
    status = _READY if is_ready else _UNAVAILABLE
    return Response(orjson.dumps(body), status, headers, media_type="application/json")
