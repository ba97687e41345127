"""Many requests over a few connections, each of which is opened again when its server closes it."""

import asyncio
from collections.abc import Iterable
from typing import TypeVar

from tests.proxy.harness import Client

Name = TypeVar("Name")


async def answers_to(
    port: int, requests: Iterable[tuple[Name, str]], *, at_once: int, seconds: float
) -> list[tuple[Name, int, bytes]]:
    """Send a GET for each of *requests* to *port*, *at_once* at a time; return the name, status and body of each.

    A request has a name, and is its target, followed by header lines. All take *seconds* at most.
    """
    left = iter(requests)
    answers: list[tuple[Name, int, bytes]] = []

    async def send() -> None:
        client: Client | None = None
        for name, request in left:
            target, _, fields = request.partition("\r\n")
            client = client or Client(*await asyncio.open_connection("127.0.0.1", port))
            await client.send(f"GET {target} HTTP/1.1\r\nHost: api.test\r\n{fields}\r\n".encode())
            status, head, body = await client.answer()
            answers.append((name, status, body))
            if b"connection: close" in head.lower():
                client.writer.close()
                client = None
        if client is not None:
            client.writer.close()

    async with asyncio.timeout(seconds):
        await asyncio.gather(*(send() for _ in range(at_once)))
    return answers
