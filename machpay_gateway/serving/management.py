"""What operators ask, on an address that callers cannot reach: is it alive, is it ready, and what does it do."""

from typing import Protocol

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from machpay_gateway.assembly import Gateway
from machpay_gateway.serving.metrics import Metrics
from machpay_gateway.serving.readiness import NEEDED, OK, checks_of

_READY, _UNAVAILABLE = 200, 503


class ManagedWorker(Protocol):
    """The worker, as operators see it."""

    gateway: Gateway
    metrics: Metrics
    is_draining: bool


def management_app(worker: ManagedWorker) -> ASGIApp:
    """Return the application that answers for *worker*."""

    async def alive(_: Request) -> Response:
        """Tell that the event loop turns; nothing else is asked, so that an outage elsewhere restarts nobody."""
        return _answer({"status": "alive"})

    async def ready(_: Request) -> Response:
        """Tell whether requests should come here, and if not, why."""
        checks = await checks_of(worker.gateway, is_draining=worker.is_draining)
        is_ready = all(checks[name] == OK for name in NEEDED)
        return _answer({"status": "ready" if is_ready else "not ready", "checks": checks}, is_ready=is_ready)

    async def metrics(request: Request) -> Response:
        """Tell the metrics of all workers, as Prometheus reads them."""
        told, media_type = await worker.metrics.told(request.headers.get("accept", ""))
        return Response(told, headers={"Cache-Control": "no-store", "Content-Type": media_type})

    return Starlette(routes=[Route("/healthz", alive), Route("/readyz", ready), Route("/metrics", metrics)])


def _answer(body: object, *, is_ready: bool = True) -> Response:
    headers = {"Cache-Control": "no-store"}
    status = _READY if is_ready else _UNAVAILABLE
    return Response(orjson.dumps(body), status, headers, media_type="application/json")
