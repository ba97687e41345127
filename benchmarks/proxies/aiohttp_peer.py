"""A reverse proxy of aiohttp alone, server and client: `python -m benchmarks.proxies.aiohttp_peer PORT`.

It runs in the peers' environment. It reads a body whole, which is the quickest for a small one.
"""

import os
import sys
from collections.abc import AsyncIterator

import uvloop
from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web
from multidict import CIMultiDict, CIMultiDictProxy

_UPSTREAM = os.environ["BENCHMARK_UPSTREAM"]
_SESSION = web.AppKey("session", ClientSession)
_HOP_BY_HOP = ("Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade")


async def _carried(request: web.Request) -> web.Response:
    async with request.app[_SESSION].request(
        request.method,
        _UPSTREAM + request.raw_path,
        headers=_end_to_end(request.headers),
        data=request.content if request.can_read_body else None,
        allow_redirects=False,
    ) as answer:
        return web.Response(status=answer.status, headers=_end_to_end(answer.headers), body=await answer.read())


def _end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    kept = headers.copy()
    for name in _HOP_BY_HOP:
        kept.popall(name, None)
    return kept


async def _session(app: web.Application) -> AsyncIterator[None]:
    connector = TCPConnector(limit=0, keepalive_timeout=600)
    async with ClientSession(connector=connector, cookie_jar=DummyCookieJar(), auto_decompress=False) as session:
        app[_SESSION] = session
        yield


def main(port: str) -> None:
    """Serve on *port* until told to stop."""
    app = web.Application()
    app.cleanup_ctx.append(_session)
    app.router.add_route("*", "/{path:.*}", _carried)
    loop = uvloop.new_event_loop()
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(port),
        access_log=None,
        print=None,
        keepalive_timeout=600,
        loop=loop,
        backlog=4096,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
