"""Callers within the drill's own process, for drills that wait for one thing; and what Redis keeps of a subject."""

import asyncio
import socket
import struct
from asyncio import StreamReader, StreamWriter
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import Self

from tests.drills.load import HOST, read_answer, request_for
from tests.limiters.state import State, read_state
from tests.redises.servers import Server

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_PAUSE_SECONDS = 0.01


class Client:
    """A connection to one worker."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @asynccontextmanager
    async def to(cls, port: int) -> AsyncIterator[Self]:
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            yield cls(reader, writer)
        finally:
            writer.transport.abort()

    async def ask(self, path: str, secret: str) -> int:
        """Return the status that *secret* is answered with."""
        self.send(path, secret)
        return (await read_answer(self._reader))[0]

    async def begin(self, path: str, secret: str) -> int:
        """Return the status as soon as the answer has begun."""
        self.send(path, secret)
        return int((await self._reader.readuntil(b"\r\n\r\n")).split(b" ")[1])

    def send(self, path: str, secret: str) -> None:
        self._writer.write(request_for(path, secret))

    def vanish(self, *, reset: bool) -> None:
        """Be gone: with a TCP reset, or as a process that ends."""
        if reset:
            connection: socket.socket = self._writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._writer.transport.abort()


async def once(port: int, path: str, secret: str) -> int:
    """Return the status of one request over a connection of its own."""
    async with Client.to(port) as client:
        return await client.ask(path, secret)


async def seconds_until(condition: Callable[[], bool], *, patience_seconds: float) -> float:
    """Return how long it took until *condition* held, infinity when it did not in time."""
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    while not condition():
        if loop.time() - began_at > patience_seconds:
            return float("inf")
        await asyncio.sleep(_PAUSE_SECONDS)
    return loop.time() - began_at


def subject_state(server: Server, key_id: str) -> State:
    """Return what Redis keeps of a key's subject."""
    digest = urlsafe_b64encode(blake2b(key_id.encode(), digest_size=16).digest()).rstrip(b"=").decode()
    for key in server.command("KEYS", f"machpay:{{*}}{digest}"):
        return read_state(server.command("GET", key).encode(errors="surrogateescape"))
    return State()


def slots_held(server: Server, key_id: str) -> int:
    """Return how many slots the subject holds by its own count."""
    return subject_state(server, key_id).held


def leases(server: Server, key_id: str) -> dict[bytes, int]:
    """Return how many slots each worker holds."""
    return {name: slots for name, slots, _ in subject_state(server, key_id).workers}


def is_free(server: Server, key_id: str) -> bool:
    return slots_held(server, key_id) == 0 and not leases(server, key_id)
