"""What the gateway is measured beside: Python's rate limiters, each before the same small answer.

They run in an environment of their own, made from `requirements/peers.lock`, so nothing of the gateway is imported
here. Each counts by the Authorization header in the Redis named by BENCHMARK_REDIS and tells what is left, where its
library can; none of them looks a key up, as the gateway does.

The limit is one that no load exhausts, or BENCHMARK_LIMIT a minute. Where a limiter keeps a log (both moving windows,
and pyrate-limiter's bucket), each request is an entry, and a log under such a limit grows throughout the load: that is
its price, and it stays.
The asyncio pools are left unbounded, as is the client's default: each connection of the load finds one to Redis.
"""

import os
import time

import redis.asyncio
from fastapi import Depends, FastAPI
from fastapi_limiter.depends import RateLimiter as LimiterDependency
from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter, RateLimiter, SlidingWindowCounterRateLimiter
from pyrate_limiter import BucketFactory, Duration, Rate, RateItem, RedisBucket
from pyrate_limiter import Limiter as PyrateLimiter
from redis.utils import HIREDIS_AVAILABLE
from slowapi import Limiter as SlowLimiter
from slowapi.middleware import SlowAPIASGIMiddleware
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Endpoint
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from throttled.asyncio.contrib import fastapi as throttled_fastapi
from throttled.asyncio.store import RedisStore

from benchmarks.bare import BODY, PATH, raw

_REDIS = os.environ["BENCHMARK_REDIS"]
_PER_MINUTE = int(os.environ.get("BENCHMARK_LIMIT", "9000000"))

assert HIREDIS_AVAILABLE, "without hiredis every peer is slower than it need be"


async def _execute(request: Request) -> Response:  # noqa: ARG001 - Starlette and throttled-py pass it
    return Response(BODY, media_type="application/json")


def _credentials(request: Request) -> str:
    return request.headers["authorization"]


class _Limits:
    """Limit an application with limits alone: one call counts the request, another tells what is left."""

    def __init__(self, app: ASGIApp, limiter: type[RateLimiter]) -> None:
        self._app = app
        self._item = RateLimitItemPerMinute(_PER_MINUTE)
        self._limiter = limiter(RedisStorage(f"async+{_REDIS}", implementation="redispy"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        key = next(value for name, value in scope["headers"] if name == b"authorization").decode("latin-1")
        admitted = await self._limiter.hit(self._item, key)
        headers = await self._headers(key)
        if not admitted:
            await send({"type": "http.response.start", "status": 429, "headers": [*headers, (b"content-length", b"0")]})
            await send({"type": "http.response.body"})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        await self._app(scope, receive, send_with_headers)

    async def _headers(self, key: str) -> list[tuple[bytes, bytes]]:
        reset_time, remaining = await self._limiter.get_window_stats(self._item, key)
        return [
            (b"ratelimit-limit", b"%d" % self._item.amount),
            (b"ratelimit-remaining", b"%d" % remaining),
            (b"ratelimit-reset", b"%d" % (reset_time - time.time())),
        ]


def _slowapi() -> Starlette:
    """Limit Starlette with slowapi, whose calls to Redis block the event loop."""
    app = Starlette(routes=[Endpoint(PATH, _execute)])
    app.state.limiter = SlowLimiter(
        key_func=_credentials,
        default_limits=[f"{_PER_MINUTE}/minute"],
        storage_uri=_REDIS,
        strategy="moving-window",
        headers_enabled=True,
    )
    app.add_middleware(SlowAPIASGIMiddleware)
    return app


def _throttled() -> FastAPI:
    """Limit FastAPI with throttled-py, whose headers come from a middleware of Starlette's dispatching kind."""
    limiter = throttled_fastapi.Limiter(
        f"{_PER_MINUTE}/m", store=RedisStore(server=_REDIS), using="sliding_window", key_func=_credentials
    )
    app = FastAPI(openapi_url=None)
    app.add_api_route(PATH, limiter.limit()(_execute))
    app.add_exception_handler(throttled_fastapi.RateLimitExceededError, throttled_fastapi.rate_limit_exceeded_handler)
    app.add_middleware(throttled_fastapi.RateLimitMiddleware)
    return app


class _Buckets(BucketFactory):  # type: ignore[misc]  # the library is not installed where mypy runs
    """A bucket in Redis for each key, which pyrate-limiter leaves to its user to make."""

    def __init__(self) -> None:
        self._redis = redis.asyncio.Redis.from_url(_REDIS)
        self._buckets: dict[str, RedisBucket] = {}

    def wrap_item(self, name: str, weight: int = 1) -> RateItem:
        """Return the request as an item of now."""
        return RateItem(name, time.time_ns() // 1_000_000, weight=weight)

    def get(self, item: RateItem) -> object:
        """Return the bucket of *item*'s key, or an awaitable of it when it is the key's first."""
        return self._buckets.get(item.name) or self._made(item.name)

    async def _made(self, name: str) -> RedisBucket:
        bucket = await RedisBucket.init([Rate(_PER_MINUTE, Duration.MINUTE)], self._redis, f"pyrate:{name}")
        self._buckets[name] = bucket
        self.schedule_leak(bucket)
        return bucket


async def _identifier(request: Request) -> str:
    return _credentials(request)


def _fastapi_limiter() -> FastAPI:
    """Limit FastAPI with fastapi-limiter, which has no headers to offer."""
    app = FastAPI(openapi_url=None)
    dependency = LimiterDependency(limiter=PyrateLimiter(_Buckets()), identifier=_identifier)
    app.add_api_route(PATH, _execute, dependencies=[Depends(dependency)])
    return app


limits_sliding = _Limits(raw, SlidingWindowCounterRateLimiter)
limits_moving = _Limits(raw, MovingWindowRateLimiter)
slowapi = _slowapi()
throttled = _throttled()
fastapi_limiter = _fastapi_limiter()
