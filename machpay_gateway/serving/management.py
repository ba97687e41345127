"""What operators ask, on an address that callers cannot reach: is it alive, is it ready, and what does it do."""

import asyncio
import time
from typing import Protocol

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from machpay_gateway.assembly import Gateway
from machpay_gateway.core.errors import Unavailable
from machpay_gateway.serving.metrics import Metrics

_PATIENCE_SECONDS = 2.0
_OK, _UNAVAILABLE = 200, 503


class Worker(Protocol):
    """The worker, as operators see it."""

    gateway: Gateway
    metrics: Metrics
    is_draining: bool


def management_app(worker: Worker) -> ASGIApp:
    """Return the application that answers for *worker*."""

    async def alive(_: Request) -> Response:
        """Tell that the event loop turns; nothing else is asked, so that an outage elsewhere restarts nobody."""
        return _answer({"status": "alive"})

    async def ready(_: Request) -> Response:
        """Tell whether requests should come here, and if not, why."""
        checks = {
            "serving": "draining" if worker.is_draining else "ok",
            "key store": await _store_state(worker.gateway),
            "limiter": "degraded" if worker.gateway.limiter.is_degraded else "ok",  # it goes on by itself
        }
        is_ready = checks["serving"] == checks["key store"] == "ok"
        return _answer({"status": "ready" if is_ready else "not ready", "checks": checks}, is_ready=is_ready)

    async def metrics(request: Request) -> Response:
        """Tell the metrics of all workers, as Prometheus reads them."""
        told, media_type = await worker.metrics.told(request.headers.get("accept", ""))
        return Response(told, headers={"Cache-Control": "no-store", "Content-Type": media_type})

    return Starlette(routes=[Route("/healthz", alive), Route("/readyz", ready), Route("/metrics", metrics)])


async def _store_state(gateway: Gateway) -> str:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await gateway.store.versions_since(time.time())
    except (Unavailable, TimeoutError):
        return "away"
    return "ok"


def _answer(body: object, *, is_ready: bool = True) -> Response:
    headers = {"Cache-Control": "no-store"}
    status = _OK if is_ready else _UNAVAILABLE
    return Response(orjson.dumps(body), status, headers, media_type="application/json")
