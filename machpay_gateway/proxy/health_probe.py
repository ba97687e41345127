"""The health check of an upstream server: one request over a connection of its own."""

import asyncio

from machpay_gateway.proxy.upstream import UpstreamConnection, UpstreamHandler
from machpay_gateway.proxy.upstream_server import UpstreamServer

_FINAL = 200  # statuses below are interim responses


class _ResponseHandler(UpstreamHandler):
    """Waits for the status of a response over *connection*."""

    __slots__ = ("_connection", "status")

    def __init__(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def upstream_received(self, data: bytes) -> None:
        """Read heads up to the final response's."""
        while not self.status.done() and (head := self._connection.read_head(data)) is not None:
            data = b""
            if isinstance(head, str):
                self._fail(head)
            elif head.status >= _FINAL:
                self.status.set_result(head.status)

    def upstream_ended(self) -> bool:
        """Fail unless the response has come."""
        self._fail("it closes the connection without a response")
        return False

    def upstream_lost(self, exc: Exception | None) -> None:
        """Fail unless the response has come."""
        self._fail(str(exc) if exc is not None else "it closes the connection without a response")

    def upstream_is_full(self) -> None:
        """Do nothing: the request is short."""

    def upstream_is_free(self) -> None:
        """Do nothing."""

    def _fail(self, problem: str) -> None:
        if not self.status.done():
            self.status.set_exception(OSError(problem))


async def probe_status(server: UpstreamServer, path: str, seconds: float) -> int:
    """Return the status of *server*'s response to `GET` *path*. Raises OSError, and TimeoutError after *seconds*."""
    async with asyncio.timeout(seconds):
        connection = await server.dial(0.0)
        try:
            handler = _ResponseHandler(connection)
            connection.handler = handler
            connection.transport.write(_request(server.check_host, path))
            return await handler.status
        finally:
            connection.abort()


def _request(host: str, path: str) -> bytes:
    lines = (f"GET {path} HTTP/1.1", f"Host: {host}", "User-Agent: machpay-gateway", "Accept: */*", "Connection: close")
    return "\r\n".join((*lines, "", "")).encode("ascii")
