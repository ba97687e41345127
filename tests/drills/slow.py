"""Clients that never finish, in a process of their own: `python -m tests.drills.slow PORT COUNT`.

COUNT send a head byte by byte, and as many a body.
"""

import asyncio
import random
import sys

import uvloop

HEAD = b"GET /public/x HTTP/1.1\r\nHost: drill\r\nX-Long: " + b"x" * 1000
POST = b"POST /public/up HTTP/1.1\r\nHost: drill\r\nContent-Length: 1000\r\n\r\n"
_PAUSE_SECONDS = 1.0


async def drip(port: int, at_once: bytes, slowly: bytes) -> None:
    """Send *at_once*, and then a byte a second, again and again."""
    while True:
        await asyncio.sleep(random.random() * _PAUSE_SECONDS)  # noqa: S311 - so that they do not all come together
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(at_once)
        for byte in slowly:
            if writer.is_closing():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(_PAUSE_SECONDS)
        writer.close()


async def main(port: int, count: int) -> None:
    """Drip until the process is ended."""
    heads = [drip(port, HEAD[:8], HEAD[8:]) for _ in range(count)]
    bodies = [drip(port, POST, bytes(1000)) for _ in range(count)]
    await asyncio.gather(*heads, *bodies)


if __name__ == "__main__":
    uvloop.run(main(*map(int, sys.argv[1:])))
