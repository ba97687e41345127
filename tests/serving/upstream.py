"""An upstream that does what its path says: `python -m tests.serving.upstream PORT`."""

import asyncio
import socket
import struct
import sys
from urllib.parse import urlsplit

import uvloop

PIECE = bytes(256 * 1024)
SMALL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_RESET = struct.pack("ii", 1, 0)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer requests until the connection ends."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            target = urlsplit(head.split(b" ", 2)[1].decode())
            await _answer(target.path.rpartition("/")[2], target.query, head, reader, writer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _answer(
    name: str, query: str, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    if name == "down":
        left = int(query)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % left)
        while left:
            piece = PIECE[:left]
            writer.write(piece)
            left -= len(piece)
            await writer.drain()
    elif name == "head":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(head), head))
    elif name == "echo":
        writer.write(SWITCH)
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        raise ConnectionError
    elif name == "silent":
        await reader.read()
        raise ConnectionError
    elif name == "slow":
        await asyncio.sleep(float(query))
        writer.write(SMALL)
    elif name == "reset":
        writer.write(CHUNKED + b"3\r\nabc\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
        raise ConnectionError
    else:
        await _read_body(head, reader)
        writer.write(SMALL)


async def _read_body(head: bytes, reader: asyncio.StreamReader) -> None:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            left = int(line.partition(b":")[2])
            while left:
                data = await reader.read(min(left, 1 << 20))
                if not data:
                    raise ConnectionError
                left -= len(data)


async def main(port: int) -> None:
    """Serve until the standard input ends, as it does with the process that holds its other end."""
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=4096)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    async with server:
        await ended.wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
