"""TLS in front of a server, because the wheel's has none: what a client says is the server's own protocol."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.postgres.servers import Server
from tests.redises.ports import HOST

_ASKS_FOR_TLS = b"\0\0\0\x08\x04\xd2\x16\x2f"


@asynccontextmanager
async def tls_in_front_of(server: Server, chain_path: Path) -> AsyncIterator[int]:
    """Listen on the port that is given, and answer with the certificate in *chain_path*."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain_path)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(OSError):  # a client that does not like the certificate
            assert await reader.readexactly(8) == _ASKS_FOR_TLS, "a client that would have spoken in clear"
            writer.write(b"S")
            await writer.start_tls(context)
            from_server, to_server = await asyncio.open_connection(HOST, server.port)
            await asyncio.gather(_copied(reader, to_server), _copied(from_server, writer))
        writer.close()

    listener = await asyncio.start_server(serve, HOST, 0)
    async with listener:
        yield listener.sockets[0].getsockname()[1]
    await asyncio.gather(*tasks)


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
