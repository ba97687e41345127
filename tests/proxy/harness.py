"""A proxy in this process on a real socket, between raw clients and an upstream that does what a test tells it to."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self, Unpack

from machpay_gateway import Gateway, Route
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.proxy.connection import ClientConnection
from machpay_gateway.proxy.proxy import NO_LIMIT, Proxy
from machpay_gateway.proxy.routing import ControlPlane
from machpay_gateway.settings import Options
from machpay_gateway.telemetry.steps import Steps

PATIENCE_SECONDS = 10
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ROUTES = (
    Route("* /public/{rest:path}", public=True),
    Route("* /v1/{rest:path}", scopes="skills:execute"),
)

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Upstream:
    """A server that gives each connection to *handler*, at *path* if that is given.

    *heads* are those of all requests that came, as they came.
    """

    handler: Handler | None = None
    answer: bytes = OK
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    host: str = "127.0.0.1"
    path: Path | None = None
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        if self.path is not None:
            self._server = await asyncio.start_unix_server(self._serve, self.path)
        else:
            self._server = await asyncio.start_server(self._serve, self.host, self.port)
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        """Return the head of the next request, and keep its body."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        fields = fields_of(head)
        if "content-length" in fields:
            self.bodies.append(await reader.readexactly(int(fields["content-length"][0])))
        elif "transfer-encoding" in fields:
            body = b""
            while not (b"\r\n0\r\n" in body and body.endswith(b"\r\n\r\n")):
                piece = await reader.read(65536)
                if not piece:
                    raise asyncio.IncompleteReadError(body, None)
                body += piece
            self.bodies.append(body)
        return head

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            if self.handler is not None:
                await self.handler(reader, writer)
            else:
                while True:
                    await self.read(reader)
                    writer.write(self.answer)
        writer.close()


class Ended(NamedTuple):
    """What the access log was told of a request."""

    facts: RequestFacts
    outcome: str
    status: int
    steps: Steps
    forwarded_path: str | None


class Log:
    """An access log that only remembers."""

    def __init__(self) -> None:
        self.ended: list[Ended] = []

    def add(self, facts: RequestFacts, *details: Any) -> None:  # noqa: ANN401 - of which three are of use
        _, _, outcome, status, steps, *rest = details
        self.ended.append(Ended(facts, str(outcome), status, steps, rest[2] if len(rest) > 2 else None))


@dataclass
class Rig:
    """A proxy at *port*. *connections* are all that were made to it, *ended* all requests that are over."""

    gateway: Gateway
    proxy: Proxy
    port: int
    connections: list[ClientConnection]
    ended: list[Ended]
    faults: list[dict[str, Any]]  # what the event loop was told of; a test that expects some clears them

    async def secret(
        self,
        *,
        scopes: Sequence[str] = ("skills:execute",),
        environment: str = "live",
        tier: str = "standard",
        allowed_ips: Sequence[str] = (),
    ) -> str:
        """Return the secret of a new key of an account in *tier*."""
        account = await self.gateway.accounts.find(tier) or await self.gateway.accounts.create(tier, tier)
        _, secret = await self.gateway.keys.create(
            account.id, name="test", scopes=scopes, environment=environment, allowed_ips=allowed_ips
        )
        return secret

    async def until(self, claim: Callable[[], object]) -> None:
        """Wait until *claim* holds."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not claim():  # noqa: ASYNC110 - what is waited for knows of no event
                await asyncio.sleep(0.001)

    @asynccontextmanager
    async def client(self, *, buffer: int = 0, source: str = "") -> AsyncIterator["Client"]:
        """Connect, from the address *source* if that is given.

        The kernel keeps about *buffer* bytes of what the client has not read, if that is not 0.
        """
        sock = socket.socket(proto=socket.IPPROTO_TCP)  # which asyncio wants to see before it sends without delay
        if source:
            sock.bind((source, 0))
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.settimeout(0)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=buffer or 2**16)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def exchange(self, request: bytes) -> bytes:
        """Send raw bytes, and return all that comes back until the connection is closed."""
        async with self.client() as client:
            await client.send(request)
            return await client.rest()


@dataclass
class Client:
    """A raw connection to the proxy."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        """Return the head of the next answer."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def answer(self) -> tuple[int, bytes, bytes]:
        """Return the status, head and body of the next answer that says how long it is, or comes in chunks."""
        head = await self.head()
        fields = fields_of(head)
        async with asyncio.timeout(PATIENCE_SECONDS):
            if "transfer-encoding" in fields:
                body = b""
                while size := int((await self.reader.readuntil(b"\n")).strip(), 16):
                    body += await self.reader.readexactly(size)
                    await self.reader.readexactly(2)
                while (await self.reader.readuntil(b"\n")) != b"\r\n":
                    pass
            else:
                body = await self.reader.readexactly(int(fields.get("content-length", ["0"])[0]))
        return status_of(head), head, body

    async def rest(self) -> bytes:
        """Return all that comes until the connection is closed."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.read()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close by a reset: who only closes may still be listening."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def status_of(head: bytes) -> int:
    """Return the status of an answer."""
    return int(head.split(b" ", 2)[1])


def fields_of(head: bytes) -> dict[str, list[str]]:
    """Return the header fields of a *head*, by their names in lower case."""
    fields: dict[str, list[str]] = {}
    for line in head.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        name, _, value = line.decode("latin-1").partition(":")
        fields.setdefault(name.lower(), []).append(value.strip())
    return fields


def request(
    method: str = "GET", path: str = "/public/x", *fields: str, body: bytes = b"", secret: str | None = None
) -> bytes:
    """Return the bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: api.test", *fields]
    if secret is not None:
        lines.append(f"Authorization: Bearer {secret}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@contextmanager
def deaf() -> Iterator[Upstream]:
    """Listen, and accept nobody: whoever connects waits."""
    with contextlib.ExitStack() as waiting, socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        for _ in range(4):  # more than wait unseen
            sock = waiting.enter_context(socket.socket())
            sock.settimeout(0)
            sock.connect_ex(listening.getsockname())
        yield Upstream(port=listening.getsockname()[1])


@asynccontextmanager
async def proxied(
    *servers: Upstream, buffer: int = 0, control_plane: ControlPlane | None = None, **options: Unpack[Options]
) -> AsyncIterator[Rig]:
    """Run a proxy in front of *servers*, all of the live environment, unless *options* name others.

    The kernel keeps about *buffer* bytes of what it has sent to a client, if that is not 0.
    """
    defaults: Options = {
        "config": os.devnull,
        "database": "memory://",
        "routes": ROUTES,
        "unlisted_routes": "deny",
        "upstreams": {"live": [f"http://127.0.0.1:{upstream.port}" for upstream in servers]},
    }
    async with Gateway(carries=True, **(defaults | options)) as gateway:
        await gateway.lifecycle.serve()
        faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        log = Log()
        most = gateway.settings.server.max_connections or NO_LIMIT
        proxy = Proxy(gateway, control_plane=control_plane, access_log=log, max_connections=most)
        connections: list[ClientConnection] = []

        def connect() -> ClientConnection:
            connections.append(proxy.connect())
            return connections[-1]

        server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0, backlog=1024)
        sock = server.sockets[0]
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        try:
            yield Rig(gateway, proxy, sock.getsockname()[1], connections, log.ended, faults)
        finally:
            server.close()
            await proxy.close(drain_seconds=0)
            await server.wait_closed()
            assert faults == []
