"""Python's reverse proxies that are ASGI applications, for `benchmarks.server`, in the peers' environment.

Each may have as many connections to the upstream as the load has to it, and keeps them.
"""

import os

import httpx
from asgiproxy.config import BaseURLProxyConfigMixin, ProxyConfig
from asgiproxy.context import ProxyContext
from asgiproxy.simple_proxy import make_simple_proxy_app
from fastapi_proxy_lib.fastapi.app import reverse_http_app

_UPSTREAM = os.environ["BENCHMARK_UPSTREAM"]


class _Configuration(BaseURLProxyConfigMixin, ProxyConfig):  # type: ignore[misc]  # not installed where mypy runs
    upstream_base_url = _UPSTREAM


_KEPT = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=600)

asgiproxy_app = make_simple_proxy_app(ProxyContext(_Configuration(), max_concurrency=1000))
fastapi_proxy_lib_app = reverse_http_app(httpx.AsyncClient(limits=_KEPT), base_url=_UPSTREAM + "/")
